"""The client of the dispatch path: each call is one round trip and one transaction."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

from psycopg.rows import tuple_row
from psycopg_pool import PoolTimeout

from retally.procedures import booking as calls
from retally.sql.connect import connect, pool
from retally.sql.errors import (
    DatabaseUnreachableError,
    NoConnectionError,
    RetallyError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import psycopg
    from psycopg_pool import ConnectionPool

    from retally.procedures.booking import Answer, Booking

_WAIT_SECONDS = 10.0  # for a connection of the pool


class Dispatcher:
    """Books procs and releases them; may be used by ``connections`` threads at a time.

    ``dsn`` as for ``connect``. A context manager: leaving it closes the connections. Whether a
    booking writes totals is up to the show's flag, in the database; the caller need not know.

    ``prepared`` saves a seventh of a booking's work, and is for a direct connection to the server,
    or for a PgBouncer from 1.21 on with its ``max_prepared_statements`` set.

    Every call raises DatabaseUnreachableError when the database is away; after it was restarted,
    each connection of the pool fails one call that way. What became of the call is not known then:
    releasing again is always right, and booking the frame again either books it or raises
    FrameBookedError, whose ``proc`` is what the lost answer was about.
    """

    def __init__(
        self, dsn: str | None = None, *, connections: int = 4, prepared: bool = False
    ) -> None:
        if connections < 1:
            raise RetallyError(f"a Dispatcher cannot have {connections} connections", "1 or more")
        self._dsn = dsn
        self._connections = connections
        self._prepared = prepared
        self._pool: ConnectionPool[psycopg.Connection] | None = None
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
        return self

    def __exit__(self, *_: object) -> None:
        """Close all connections."""
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def book(self, booking: Booking) -> str:
        """Book a proc; answers with its id (``pk_proc``).

        Raises the subclass of BookingRefusedError that says why not; nothing has changed then.
        """
        with self._cursor() as cursor:
            return calls.book(cursor, booking)

    def release(self, proc: str) -> bool:
        """End a proc and give back what it held; False when it was gone already."""
        with self._cursor() as cursor:
            return calls.release(cursor, proc)

    def book_many(self, bookings: Iterable[Booking]) -> list[Answer]:
        """Book many procs in one transaction; answers in the same order, refused ones included."""
        with self._cursor() as cursor:
            return calls.book_many(cursor, bookings)

    def release_many(self, procs: Iterable[str]) -> list[bool]:
        """End many procs in one transaction; for each, in order, whether it was there."""
        with self._cursor() as cursor:
            return calls.release_many(cursor, procs)

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
