"""A vertex: one row of the farm at which bookings are capped, as the store counts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.procedures.admission import Snapshot, VertexRow

#: Above what can be asked for, so that the check needs no case for "no limit".
NO_LIMIT = 1 << 80


class Vertex:
    """A subscription or folder of one tenure. Guarded by the store's lock; amounts as there.

    In use are ``base + counted``: ``base`` is what the farm's procs said in ``snapshot`` less what
    ``counted`` held of that already. ``counted`` grows with each booking that is let in and
    ``confirmed`` with each that is committed and that the snapshot has not; a recount sets neither
    back, so that none is forgotten. ``room`` is the cap less the base: what ``counted`` may grow
    to. ``marked`` is what was confirmed when the recount ``marked_for`` came by. ``name`` is empty
    where the database has no such row.
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
        "key",
        "kind",
        "marked_for",
        "max_cores",
        "max_gpus",
        "name",
        "snapshot",
    )

    def __init__(self, kind: str, key: str, snapshot: Snapshot) -> None:
        self.kind = kind
        self.key = key
        self.name = ""
        self.snapshot = snapshot
        self.cores_base = self.cores_counted = self.cores_confirmed = 0
        self.gpus_base = self.gpus_counted = self.gpus_confirmed = 0
        self.cores_marked = self.gpus_marked = 0
        self.marked_for: object = None
        self.cap(0 if kind == "subscription" else NO_LIMIT, NO_LIMIT)

    @classmethod
    def of(cls, row: VertexRow, snapshot: Snapshot) -> Vertex:
        """The vertex as the database has it."""
        vertex = cls(row.vertex, row.key, snapshot)
        vertex.read(row, snapshot)
        return vertex

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

    def read(self, row: VertexRow, snapshot: Snapshot) -> None:
        """Take over what the database says, where nothing is counted beside it."""
        self.name = row.name
        self.cap_by(row)
        self.rebase(row.cores, row.gpus, snapshot)

    def mark(self, recount: object) -> None:
        """Note what is confirmed by now; the recount reads the database after this."""
        self.cores_marked = self.cores_confirmed
        self.gpus_marked = self.gpus_confirmed
        self.marked_for = recount

    def overwrite(self, cores: int, gpus: int, snapshot: Snapshot) -> None:
        """Take over what was read after the mark, and keep what is counted beyond the mark."""
        self.rebase(cores - self.cores_marked, gpus - self.gpus_marked, snapshot)

    def uncount(self, cores: int, gpus: int) -> None:
        """What was confirmed since the mark is in what was read."""
        self.cores_counted -= cores
        self.cores_confirmed -= cores
        self.gpus_counted -= gpus
        self.gpus_confirmed -= gpus

    def cap_by(self, row: VertexRow | None) -> None:
        """Take over the caps as the farm has them; a subscription that is gone books nothing."""
        if row:
            self.cap(limit(self.kind, row.max_cores), limit(self.kind, row.max_gpus, gpus=True))
        elif self.kind == "subscription":
            self.cap(0, None)

    def cap(self, max_cores: int | None, max_gpus: int | None) -> None:
        """Set the caps; None: as it is."""
        if max_cores is not None:
            self.max_cores = max_cores
            self.cores_room = max_cores - self.cores_base
        if max_gpus is not None:
            self.max_gpus = max_gpus
            self.gpus_room = max_gpus - self.gpus_base

    def rebase(self, cores: int, gpus: int, snapshot: Snapshot) -> None:
        """Set what is in use besides ``counted``."""
        self.cores_base = cores
        self.cores_room = self.max_cores - cores
        self.gpus_base = gpus
        self.gpus_room = self.max_gpus - gpus
        self.snapshot = snapshot

    def confirm(self, cores: int, gpus: int, xact: int | None) -> bool:
        """What was counted is committed; False when the base has it by now.

        ``xact`` None: nobody knows when, so it stays counted until the next recount.
        """
        if xact is not None and self.snapshot.sees(xact):
            self.cores_counted -= cores
            self.gpus_counted -= gpus
            return False
        self.cores_confirmed += cores
        self.gpus_confirmed += gpus
        return True

    def release(self, cores: int, gpus: int) -> None:
        """So much less is in use."""
        self.rebase(self.cores_base - cores, self.gpus_base - gpus, self.snapshot)


class Job(Vertex):
    """A job, and the folder that its procs count in."""

    __slots__ = ("folder",)

    folder: Vertex

    @classmethod
    def in_folder(cls, row: VertexRow, snapshot: Snapshot, folder: Vertex) -> Job:
        """The job as the database has it."""
        job = cls(row.vertex, row.key, snapshot)
        job.read(row, snapshot)
        job.folder = folder
        return job


def limit(kind: str, value: int, *, gpus: bool = False) -> int:
    """A cap of the farm as an amount: 0 and below are no limit, save for a burst.

    A burst caps cores only; one of 0 books nothing.
    """
    if kind == "subscription":
        return NO_LIMIT if gpus else value
    return value if value > 0 else NO_LIMIT
