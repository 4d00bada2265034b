"""The client of the dispatch path: a call is one round trip and one transaction, as a rule."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from psycopg.rows import tuple_row
from psycopg_pool import PoolClosed, PoolTimeout

from retally.dispatch.admission import Admission, AdmissionService
from retally.procedures import booking as calls
from retally.procedures.booking import Answer
from retally.sql.connect import connect, pool
from retally.sql.errors import (
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
    and counts in memory. The first booking of a show takes its lease; from then on three threads
    more, with a connection each, keep it. None: nobody counts, and bookings of a managed show may
    pass its caps; they are refused while another dispatcher has the show's lease.

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
            self._service = AdmissionService(self._dsn, self._admission, self._connected)
        return self

    def __exit__(self, *_: object) -> None:
        """Give up the shows that are served, and close all connections."""
        service, lent = self._service, self._pool
        try:
            if service is not None:
                service.close()
        finally:
            self._service = self._pool = None
            if lent is not None:
                lent.close()

    def book(self, booking: Booking) -> str:
        """Book a proc; answers with its id (``pk_proc``).

        Raises the subclass of BookingRefusedError that says why not; nothing has changed then.
        """
        gate = self._gate()
        if gate is None:
            with self._cursor() as cursor:
                return calls.book(cursor, booking)
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
        """Book many procs; answers in the same order, refused ones included.

        In one transaction; what was counted where it is not any more is tried again in a second
        one, or a third. An answer's error is a BookingRefusedError, or what went wrong when its
        show had to be counted, or at such a second try.
        """
        asked = dict(enumerate(bookings))
        gate = self._gate()
        if gate is None:
            with self._cursor() as cursor:
                return calls.book_many(cursor, asked.values())
        answers, again = self._send_many(gate, asked)
        for _ in range(_TRIES - 1):
            if not again:
                break
            try:
                more, again = self._send_many(gate, again)
            except RetallyError as error:
                # the others are booked, and have to be told
                more, again = {nr: Answer(each, None, error) for nr, each in again.items()}, {}
            answers |= more
        return [answers[nr] for nr in sorted(answers)]

    def release_many(self, procs: Iterable[str]) -> list[bool]:
        """End many procs in one transaction; for each, in order, whether it was there."""
        with self._cursor() as cursor:
            return calls.release_many(cursor, procs)

    def stats(self) -> AdmissionStats | None:
        """What the admission has done since this was opened; None while closed, or without one."""
        service = self._service
        return service.stats() if service else None

    def elsewhere(self) -> frozenset[str]:
        """The shows (``pk_show``) that others serve, as heard in the last second.

        Bookings of them would be refused: there is better work to look for.
        """
        service = self._service
        return service.gate.shows.elsewhere() if service else frozenset()

    def give_up(self, show_id: str) -> None:
        """Let another dispatcher serve a show (``pk_show``); the next booking asks for it again."""
        service = self._service
        if service:
            service.give_up([show_id])

    def _gate(self) -> Gate | None:
        """None where nobody counts."""
        if self._admission is None:
            return None
        service = self._service
        if service is None:
            raise _not_open()
        return service.gate

    def _send(self, gate: Gate, entry: Entry) -> str:
        with gate.sending([entry]):
            with self._cursor() as cursor:
                gate.send([entry])
                proc, xact = calls.book_in(cursor, entry.booking, entry.counted)
            gate.confirm(entry, xact)
        return proc

    def _send_many(
        self, gate: Gate, asked: Mapping[int, Booking]
    ) -> tuple[dict[int, Answer], dict[int, Booking]]:
        """The answers by the places of ``asked``, and what to try again."""
        entries, errors = gate.admit_many(asked)
        answers = {nr: Answer(asked[nr], None, error) for nr, error in errors.items()}
        sent = list(entries.values())
        with gate.sending(sent):
            with self._cursor() as cursor:
                gate.send(sent)
                found = calls.book_many(
                    cursor, [entry.booking for entry in sent], [entry.counted for entry in sent]
                )
            for entry, answer in zip(sent, found, strict=True):
                if answer.error:
                    gate.undo(entry)
                else:
                    gate.confirm(entry, answer.xact)
        refused = {nr: each for nr, each in zip(entries, found, strict=True) if each.error}
        gate.learn([(entries[nr], each.error) for nr, each in refused.items()])
        again = {nr: asked[nr] for nr, each in refused.items() if isinstance(each.error, _CHANGED)}
        return answers | dict(zip(entries, found, strict=True)), again

    @contextlib.contextmanager
    def _cursor(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        with self._connected() as conn:
            # the pool lends a connection to one thread at a time, so its cursor is ours as well
            if conn not in self._cursors:
                self._cursors[conn] = conn.cursor(row_factory=tuple_row)
            yield self._cursors[conn]

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        lent = self._pool
        if lent is None:
            raise _not_open()
        try:
            with translated(), lent.connection() as conn:
                yield conn
        except DatabaseUnreachableError as error:
            if isinstance(error.__cause__, PoolClosed):
                raise _not_open() from error
            if not isinstance(error.__cause__, PoolTimeout):
                raise
            connect(self._dsn).close()  # where the database is away, this says so, and why
            raise NoConnectionError(
                f"all {self._connections} connections were busy for {_WAIT_SECONDS:.0f} s",
                "nothing was sent; give Dispatcher more connections, or use it in fewer threads",
            ) from error


def _not_open() -> RetallyError:
    return RetallyError("this Dispatcher is not open", "use it inside of its `with` block")
