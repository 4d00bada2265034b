"""The gate: lets bookings in by the store, and has the shows served that they need."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg

from retally.dispatch.admission.places import Places
from retally.dispatch.admission.shows import Shows
from retally.dispatch.admission.store import Store
from retally.dispatch.admission.tickets import Missing, Ticket
from retally.procedures.booking import Counted, unsendable
from retally.sql.errors import (
    BookingRefusedError,
    DatabaseUnreachableError,
    MovedError,
    NoConnectionError,
    NoSubscriptionError,
    OverCapError,
    RetallyError,
    ServedElsewhereError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

    from retally.dispatch.admission.line import Connected
    from retally.dispatch.admission.settings import Admission
    from retally.dispatch.admission.tickets import Refusal
    from retally.dispatch.admission.wire import Release
    from retally.procedures.booking import Booking

# Loads that one booking may need: its job's show, its lease, its job; and all that once more.
_LOADS = 8
# Counts caps and holds no lease: let in where the database keeps the caps.
_UNLEASED = Counted(0)


@dataclass(frozen=True)
class Entry:
    """A booking that may be sent, and how. ``ticket`` None: no cap of ours counts it."""

    booking: Booking
    counted: Counted = _UNLEASED
    show: str | None = None
    ticket: Ticket | None = None


class Gate:
    """Decides which bookings of one process are sent, and under which lease. Any thread may call.

    ``connected`` lends a connection in autocommit; ``on_served`` is called when a show begins to
    be served.
    """

    def __init__(
        self,
        settings: Admission,
        connected: Connected,
        on_served: Callable[[], None],
    ) -> None:
        self.store = Store()
        self.shows = Shows(settings, self.store, connected, on_served)
        self.places = Places(connected)

    def admit(self, booking: Booking) -> Entry:
        """Count the booking, or let it pass uncounted where that is the database's to do.

        Raises OverCapError, NoSubscriptionError, ServedElsewhereError, and what went wrong when its
        show had to be counted. The entry is then sent inside of ``sending``.
        """
        if not _is_countable(booking):
            return Entry(booking)  # the database says what is wrong with it
        for _ in range(_LOADS):
            show = self.places.show(booking.job)
            if show is None:
                found = self.places.look_up(booking.job)
                if found is None:
                    return Entry(booking)
                self.shows.learn(found.show_id, found.show_name, managed=found.managed)
                # last: whoever finds the show by its job finds it known
                self.places.remember(booking.job, found.show_id)
            elif not self.shows.is_managed(show):
                return Entry(booking, show=show)
            elif entry := self._counted(booking, show):
                return entry
        raise ServedElsewhereError(
            f"the show of job {booking.job!r} changes hands all the time", "try again in a moment"
        )

    def admit_many(
        self, bookings: Mapping[int, Booking]
    ) -> tuple[dict[int, Entry], dict[int, RetallyError]]:
        """As ``admit`` for each, by number: the entries, and what was raised for the others.

        Raises DatabaseUnreachableError and NoConnectionError; none is counted then.
        """
        entries: dict[int, Entry] = {}
        errors: dict[int, RetallyError] = {}
        try:
            for nr, booking in bookings.items():
                try:
                    entries[nr] = self.admit(booking)
                except (DatabaseUnreachableError, NoConnectionError):
                    raise
                except RetallyError as error:
                    errors[nr] = error
        except BaseException:
            for entry in entries.values():
                self.undo(entry)
            raise
        return entries, errors

    @contextlib.contextmanager
    def sending(self, entries: Collection[Entry]) -> Iterator[None]:
        """In the block the entries are sent, and each is confirmed or undone as it was answered.

        When the block raises, the others are undone where the server has surely undone them, or was
        sent nothing; what else became of them is in doubt, and their shows are counted anew.
        """
        try:
            yield
        except BaseException as error:
            undone = isinstance(error, RetallyError) and _is_undone(error)
            for entry in entries:
                if entry.ticket and not entry.ticket.is_open:
                    continue
                if undone:
                    self.undo(entry)
                else:
                    self._doubt(entry)
            if undone:
                self.learn([(entry, error) for entry in entries])
            raise

    def send(self, entries: Collection[Entry]) -> None:
        """They are sent now, on a connection that is there."""
        self.store.send(entry.ticket for entry in entries if entry.ticket)

    def confirm(self, entry: Entry, xact: int | None) -> None:
        """Its proc is committed, by this transaction."""
        if entry.ticket:
            self.store.confirm(entry.ticket, xact)

    def undo(self, entry: Entry) -> None:
        """It was not booked, and never will be."""
        if entry.ticket:
            self.store.rollback(entry.ticket)

    def learn(self, undone: Sequence[tuple[Entry, BaseException | None]]) -> None:
        """What the database has said against entries: leases that are gone, what has moved."""
        moved = set()
        for entry, error in undone:
            if entry.show is None:
                continue
            if isinstance(error, ServedElsewhereError):
                self.shows.look_again(entry.show)
                self.store.drop(entry.show, entry.counted.token)
            elif isinstance(error, MovedError):
                self.places.look_again(entry.booking.host)
                moved.add(entry.show)
        for show in moved:
            self.shows.recount_or_drop(show)

    def hear_release(self, release: Release) -> bool:
        """Procs have ended. False: it takes a recount to know where they were counted."""
        since = float("inf")
        if release.hosts is not None:
            since = self.places.known_since(release.hosts, release.alloc)
        return self.store.release(release, since)

    def _doubt(self, entry: Entry) -> None:
        """It may have been booked, or may yet be.

        Another lease is taken by whoever books next: that waits for the bookings under this one,
        so that the count which follows has them all.
        """
        if entry.ticket:
            self.store.doubt(entry.ticket)
            self.store.drop(entry.ticket.tenure.show, entry.counted.token)

    def _counted(self, booking: Booking, show: str) -> Entry | None:
        """The booking, counted; None when something had to be loaded first."""
        if booking.local:
            token = self.store.token(show)
            if token is not None:
                return Entry(booking, Counted(token), show)
            self.shows.serve(show)
            return None
        alloc = self.places.allocation(booking.host)
        if alloc is None:
            return Entry(booking)
        answer = self.store.book(show, alloc, booking.job, booking.core_units, booking.gpus)
        if isinstance(answer, Ticket):
            counted = Counted(answer.tenure.token, alloc, answer.folder.key)
            return Entry(booking, counted, show, answer)
        if answer is Missing.SHOW:
            self.shows.serve(show)
        elif answer is Missing.JOB:
            return self._add_job(booking, show)
        else:
            raise self._refused(answer, show)
        return None

    def _add_job(self, booking: Booking, show: str) -> Entry | None:
        found = self.places.look_up(booking.job)
        if found is None or found.show_id != show:
            self.places.forget_job(booking.job)
            return None if found else Entry(booking)
        if not self.store.add_job(show, found.row, found.snapshot):
            self.shows.recount(show)
        return None

    def _refused(self, refusal: Refusal, show: str) -> BookingRefusedError:
        show_name = self.shows.name(show)
        if refusal.vertex == "subscription":
            where = f'subscription of show "{show_name}" to "{refusal.name or refusal.key}"'
            if not refusal.name:
                return NoSubscriptionError(
                    f'show "{show_name}" has no subscription to allocation "{refusal.key}"',
                    "subscribe the show, or choose a host of another allocation",
                )
            cap = "burst"
        else:
            where = f'{refusal.vertex} "{refusal.name or refusal.key}" of show "{show_name}"'
            cap = "maximum"
        unit = "core units" if refusal.slot == "cores" else "GPUs"
        return OverCapError(
            f"{where}: {refusal.asked} {unit} more would pass its {cap} of {refusal.limit},"
            f" {refusal.current} are in use",
            f"wait for a release, or raise the {cap}",
        )


def _is_countable(booking: Booking) -> bool:
    return (
        unsendable(booking) is None
        and type(booking.core_units) is int
        and type(booking.gpus) is int
        and booking.core_units > 0
        and booking.gpus >= 0
    )


def _is_undone(error: RetallyError) -> bool:
    """Whether the server has surely not booked what it was sent, and will not."""
    if isinstance(error, BookingRefusedError | NoConnectionError):
        return True
    # the server's own word: it has ended the transaction, and not the session with it
    cause = error.__cause__
    return (
        isinstance(cause, psycopg.Error)
        and cause.diag.severity_nonlocalized == "ERROR"
        and not isinstance(error, DatabaseUnreachableError)
    )
