"""A vertex: one row of the farm at which bookings are capped, as the store counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.dispatch.admission.tickets import Ticket
    from retally.dispatch.admission.wire import LimitChange
    from retally.procedures.admission import Snapshot, VertexRow

#: Above what can be asked for, so that the check needs no case for "no limit".
NO_LIMIT = 1 << 80


class Vertex:
    """A subscription or folder of one tenure. Guarded by the store's lock; amounts as there.

    In use are ``base + counted``: ``base`` is what the farm's procs said in ``snapshot`` less what
    ``counted`` held of that already. ``counted`` grows with each booking that is let in and
    ``confirmed`` with each that is committed and that the snapshot has not; a recount sets neither
    back, so that none is forgotten. ``room`` is the cap less the base: what ``counted`` may grow
    to. ``marked`` is what was confirmed when the recount ``marked_for`` came by. Tickets after
    ``since`` were sent when the snapshot had been read. ``is_there`` False: the database has no
    such row, or had none when it was last read; then nothing is known of what is booked there.
    """

    __slots__ = (
        "cores_base",
        "cores_confirmed",
        "cores_counted",
        "cores_marked",
        "cores_room",
        "gpus_base",
        "gpus_confirmed",
        "gpus_counted",
        "gpus_marked",
        "gpus_room",
        "is_there",
        "key",
        "kind",
        "marked_for",
        "max_cores",
        "max_gpus",
        "name",
        "since",
        "snapshot",
    )

    def __init__(self, kind: str, key: str, snapshot: Snapshot, row: VertexRow | None) -> None:
        self.kind = kind
        self.key = key
        self.name = ""
        self.is_there = False
        self.snapshot = snapshot
        self.since = 0
        self.cores_base = self.cores_counted = self.cores_confirmed = self.cores_marked = 0
        self.gpus_base = self.gpus_counted = self.gpus_confirmed = self.gpus_marked = 0
        self.marked_for: object = None
        self.max_cores = 0 if kind == "subscription" else NO_LIMIT
        self.max_gpus = NO_LIMIT
        self.overwrite(row, 0, 0, snapshot, 0)

    @property
    def cores(self) -> int:
        """Core units in use."""
        return self.cores_base + self.cores_counted

    @property
    def gpus(self) -> int:
        """GPUs in use."""
        return self.gpus_base + self.gpus_counted

    @property
    def is_quiet(self) -> bool:
        """Whether no booking is in flight here."""
        return self.cores_counted == self.cores_confirmed

    def mark(self, recount: object) -> None:
        """Note what is confirmed by now; the recount reads the database after this."""
        self.cores_marked = self.cores_confirmed
        self.gpus_marked = self.gpus_confirmed
        self.marked_for = recount

    def overwrite(
        self, row: VertexRow | None, cores: int, gpus: int, snapshot: Snapshot, since: int
    ) -> None:
        """Take over what was read after the mark, and keep what is counted beyond the mark.

        ``row`` None: there is none. ``cores``, ``gpus``: to be added to what it says. ``since``:
        the last ticket that was sent before the database had answered.
        """
        self.is_there = row is not None
        if row:
            self.name = row.name
            self.max_cores = limit(self.kind, row.max_cores)
            self.max_gpus = limit(self.kind, row.max_gpus, gpus=True)
            cores += row.cores
            gpus += row.gpus
        elif self.kind == "subscription":
            self.max_cores = 0
        self.snapshot = snapshot
        self.since = since
        self._rebase(cores - self.cores_marked, gpus - self.gpus_marked)

    def confirm(self, ticket: Ticket, xact: int | None) -> bool:
        """What was counted is committed; False when the base has it by now.

        ``xact`` None: nobody knows when, so it stays counted until the next recount.
        """
        # the numbers of transactions begin again lower after a crash of the server, so they are
        # asked only about what was on its way when the snapshot was read
        if xact is not None and ticket.nr <= self.since and self.snapshot.sees(xact):
            self.cores_counted -= ticket.cores
            self.gpus_counted -= ticket.gpus
            return False
        self.cores_confirmed += ticket.cores
        self.gpus_confirmed += ticket.gpus
        return True

    def uncount(self, ticket: Ticket) -> None:
        """What was confirmed since the mark is in what was read."""
        self.cores_counted -= ticket.cores
        self.cores_confirmed -= ticket.cores
        self.gpus_counted -= ticket.gpus
        self.gpus_confirmed -= ticket.gpus

    def release(self, cores: int, gpus: int) -> None:
        """So much less is in use."""
        self._rebase(self.cores_base - cores, self.gpus_base - gpus)

    def change(self, change: LimitChange) -> None:
        """Change the caps, unless what was read is newer."""
        if change.xact is not None and self.snapshot.sees(change.xact):
            return
        max_cores, max_gpus = self.max_cores, self.max_gpus
        if change.core_units is not None:
            max_cores = limit(self.kind, change.core_units)
        if change.gpus is not None:
            max_gpus = limit(self.kind, change.gpus, gpus=True)
        if change.xact is None:
            # nothing tells how old it is: it may only lower, and the next recount knows better
            max_cores = min(max_cores, self.max_cores)
            max_gpus = min(max_gpus, self.max_gpus)
        self.max_cores, self.max_gpus = max_cores, max_gpus
        self._rebase(self.cores_base, self.gpus_base)

    def _rebase(self, cores: int, gpus: int) -> None:
        self.cores_base = cores
        self.cores_room = self.max_cores - cores
        self.gpus_base = gpus
        self.gpus_room = self.max_gpus - gpus


class Job(Vertex):
    """A job, and the folder that its procs count in.

    ``is_moving``: it has come to that folder while bookings were on their way that count in the
    former one, so nobody knows where its procs are counted.
    """

    __slots__ = ("folder", "is_moving")

    def __init__(self, row: VertexRow, snapshot: Snapshot, folder: Vertex) -> None:
        super().__init__("job", row.key, snapshot, row)
        self.folder = folder
        self.is_moving = False

    def place(self, folder: Vertex) -> None:
        """Where it was read to be."""
        all_read = self.cores_counted == self.cores_marked
        self.is_moving = not all_read and (self.is_moving or folder is not self.folder)
        self.folder = folder


def limit(kind: str, value: int, *, gpus: bool = False) -> int:
    """A cap of the farm as an amount: 0 and below are no limit, save for a burst.

    A burst caps cores only; one of 0 books nothing.
    """
    if kind == "subscription":
        return NO_LIMIT if gpus else value
    return value if value > 0 else NO_LIMIT
