"""A connection of one thread's own, made when it is needed and again when it was lost."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from retally.sql.connect import connect
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    import psycopg

    #: Lends a connection; each block is a transaction, or each of its statements.
    Connected = Callable[[], AbstractContextManager[psycopg.Connection]]


class Line:
    """What must not wait for a pool that others may use up. ``dsn`` as for ``connect``."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._conn: psycopg.Connection | None = None

    @contextlib.contextmanager
    def connected(self) -> Iterator[psycopg.Connection]:
        """Lend it for one transaction, READ COMMITTED. Raises the typed errors."""
        if self._conn is None:
            self._conn = connect(self._dsn)
        try:
            with translated(), self._conn.transaction():
                yield self._conn
        finally:
            if self._conn.closed:
                self.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None
