"""The client of the dispatch path: each call is one round trip and one transaction."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from retally.dispatch.admission import Admission, AdmissionService
from retally.procedures import booking as calls
from retally.procedures.booking import Answer
from retally.sql.connect import connect, pool
from retally.sql.errors import (
    BookingRefusedError,
    DatabaseUnreachableError,
    MovedError,
    NoConnectionError,
    RetallyError,
    ServedElsewhereError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    import psycopg
    from psycopg_pool import ConnectionPool

    from retally.dispatch.admission import AdmissionStats, Entry, Gate
    from retally.procedures.booking import Booking

_WAIT_SECONDS = 10.0  # for a connection of the pool
# How often a booking is counted anew whose show, job or host has changed in between.
_TRIES = 3
_CHANGED = (ServedElsewhereError, MovedError)


class Dispatcher:
    """Books procs and releases them; may be used by ``connections`` threads at a time.

    ``dsn`` as for ``connect``. A context manager: leaving it closes the connections. Whether a
    booking writes totals is up to the show's flag, in the database; the caller need not know.

    ``admission``: how it keeps to the caps of managed shows: it serves a show alone, under a lease,
    and counts in memory. The first booking of a show takes its lease; from then on up to three
    threads and a few connections more keep it. None: nobody counts, and bookings of a managed show
    may pass its caps; they are refused while another dispatcher has the show's lease.

    ``prepared`` saves a seventh of a booking's work, and is for a direct connection to the server,
    or for a PgBouncer from 1.21 on with its ``max_prepared_statements`` set.

    Every call raises DatabaseUnreachableError when the database is away; after it was restarted,
    each connection of the pool fails one call that way. What became of the call is not known then:
    releasing again is always right, and booking the frame again either books it or raises
    FrameBookedError, whose ``proc`` is what the lost answer was about.
    """

    def __init__(
        self,
        dsn: str | None = None,
        *,
        connections: int = 4,
        prepared: bool = False,
        admission: Admission | None = Admission(),  # noqa: B008 - frozen
    ) -> None:
        if connections < 1:
            raise RetallyError(f"a Dispatcher cannot have {connections} connections", "1 or more")
        self._dsn = dsn
        self._admission = admission
        self._connections = connections
        self._prepared = prepared
        self._pool: ConnectionPool[psycopg.Connection] | None = None
        self._service: AdmissionService | None = None
        self._cursors: WeakKeyDictionary[psycopg.Connection, psycopg.Cursor[tuple[Any, ...]]] = (
            WeakKeyDictionary()
        )

    def __enter__(self) -> Self:
        """Open the pool. Raises DatabaseUnreachableError when the database cannot be reached."""
        if self._pool is not None:
            raise RetallyError("this Dispatcher is open already", "use another one, or this one")
        connect(self._dsn).close()  # says at once, and why; the pool only that it has none
        self._pool = pool(
            self._dsn,
            max_size=self._connections,
            timeout=_WAIT_SECONDS,
            prepared=self._prepared,
        )
        self._pool.open()
        if self._admission:
            self._service = AdmissionService(self._dsn, self._admission)
        return self

    def __exit__(self, *_: object) -> None:
        """Give up the shows that are served, and close all connections."""
        if self._service is not None:
            self._service.close()
            self._service = None
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def book(self, booking: Booking) -> str:
        """Book a proc; answers with its id (``pk_proc``).

        Raises the subclass of BookingRefusedError that says why not; nothing has changed then.
        """
        if self._service is None:
            with self._cursor() as cursor:
                return calls.book(cursor, booking)
        gate = self._service.gate
        for _ in range(_TRIES - 1):
            entry = gate.admit(booking)
            with contextlib.suppress(*_CHANGED):
                return self._send(gate, entry)
        return self._send(gate, gate.admit(booking))

    def release(self, proc: str) -> bool:
        """End a proc and give back what it held; False when it was gone already."""
        with self._cursor() as cursor:
            return calls.release(cursor, proc)

    def book_many(self, bookings: Iterable[Booking]) -> list[Answer]:
        """Book many procs in one transaction; answers in the same order, refused ones included."""
        bookings = list(bookings)
        if self._service is None:
            with self._cursor() as cursor:
                return calls.book_many(cursor, bookings)
        gate, asked, answers = self._service.gate, dict(enumerate(bookings)), dict[int, Answer]()
        for _ in range(_TRIES):
            answers |= self._send_many(gate, asked)
            asked = {nr: asked[nr] for nr in asked if isinstance(answers[nr].error, _CHANGED)}
            if not asked:
                break
        return [answers[nr] for nr in range(len(bookings))]

    def release_many(self, procs: Iterable[str]) -> list[bool]:
        """End many procs in one transaction; for each, in order, whether it was there."""
        with self._cursor() as cursor:
            return calls.release_many(cursor, procs)

    def stats(self) -> AdmissionStats | None:
        """What the admission has done since this was opened; None while closed, or without one."""
        return self._service.stats() if self._service else None

    def elsewhere(self) -> frozenset[str]:
        """The shows (``pk_show``) that others serve, as heard in the last second.

        Bookings of them would be refused: there is better work to look for.
        """
        return self._service.gate.shows.elsewhere() if self._service else frozenset()

    def give_up(self, show_id: str) -> None:
        """Let another dispatcher serve a show (``pk_show``); the next booking asks for it again."""
        if self._service:
            self._service.gate.shows.give_up([show_id])

    def _send(self, gate: Gate, entry: Entry) -> str:
        with gate.sending([entry]):
            with self._cursor() as cursor:
                proc, xact = calls.book_in(cursor, entry.booking, entry.counted)
            gate.confirm(entry, xact)
        return proc

    def _send_many(self, gate: Gate, asked: Mapping[int, Booking]) -> dict[int, Answer]:
        """The answers by the places of ``asked``."""
        entries: dict[int, Entry] = {}
        answers: dict[int, Answer] = {}
        with gate.sending(entries.values()):
            for nr, booking in asked.items():
                try:
                    entries[nr] = gate.admit(booking)
                except BookingRefusedError as error:
                    answers[nr] = Answer(booking, None, error)
            sent = list(entries.values())
            with self._cursor() as cursor:
                found = calls.book_many(
                    cursor, [entry.booking for entry in sent], [entry.counted for entry in sent]
                )
            for nr, answer in zip(entries, found, strict=True):
                answers[nr] = answer
                if answer.error:
                    gate.undo(entries[nr], answer.error)
                else:
                    gate.confirm(entries[nr], answer.xact)
        return answers

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        if self._pool is None:
            raise RetallyError("this Dispatcher is not open", "use it inside of its `with` block")
        try:
            with translated(), self._pool.connection() as conn:
                # the pool lends a connection to one thread at a time, so its cursor is ours as well
                if conn not in self._cursors:
                    self._cursors[conn] = conn.cursor(row_factory=tuple_row)
                yield self._cursors[conn]
        except DatabaseUnreachableError as error:
            if not isinstance(error.__cause__, PoolTimeout):
                raise
            connect(self._dsn).close()  # where the database is away, this says so, and why
            raise NoConnectionError(
                f"all {self._connections} connections were busy for {_WAIT_SECONDS:.0f} s",
                "nothing was sent; give Dispatcher more connections, or use it in fewer threads",
            ) from error
