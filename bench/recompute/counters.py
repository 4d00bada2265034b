"""What the server has counted, read when it has counted everything."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retally.bench.errors import BenchError
from retally.bench.place import await_alone
from retally.bench.recompute.totals import TABLES

if TYPE_CHECKING:
    import psycopg

    from retally.bench.recompute.farm import Farm

_ARRIVAL_SECONDS = 30.0
_POLL_SECONDS = 0.01

_MARKED = "SELECT pg_stat_get_tuples_inserted('bench.marker'::regclass)"
_COUNTED = """
SELECT
    coalesce(sum(t.n_tup_ins + t.n_tup_upd + t.n_tup_del), 0),
    coalesce(sum(t.n_dead_tup), 0),
    (
        SELECT d.blks_hit + d.blks_read FROM pg_stat_database AS d
        WHERE d.datname = current_database()
    )
FROM pg_stat_all_tables AS t
WHERE
    (t.schemaname = 'public' AND t.relname = ANY(%s))
    OR (t.schemaname = 'bench' AND t.relname = ANY(%s))
"""


@dataclass(frozen=True)
class Counted:
    """Rows written and dead rows of the totals and their views; pages looked at by anybody."""

    rows: int
    dead: int
    buffers: int

    def since(self, before: Counted) -> Counted:
        """What came on top of ``before``."""
        return Counted(
            self.rows - before.rows, self.dead - before.dead, self.buffers - before.buffers
        )


class Counters:
    """The server's counters of the farm's database."""

    def __init__(self, farm: Farm) -> None:
        self._farm = farm
        self._marks = 0
        self.read()
        first = self.read()
        with farm.session() as conn:
            wal_bytes(conn)
        # what a cell costs without its call: connections, and the catalogue for our own queries
        self.overhead = self.read().since(first).buffers

    def read(self) -> Counted:
        """Read them when all sessions before have left and reported. Raises BenchError."""
        with self._farm.session() as conn:
            await_alone(conn)
            self._await_all_counted(conn)
            names = [table.name for table in TABLES]
            views = [f"view_{name}" for name in names]
            row = conn.execute(_COUNTED, (names, views)).fetchone()
        assert row is not None  # noqa: S101 - an aggregate has always one row
        return Counted(*(int(value) for value in row))

    def _await_all_counted(self, conn: psycopg.Connection) -> None:
        # Sessions report when they end, up to PostgreSQL 14 to a process that counts later, in the
        # order of arrival: once it has counted what comes last, everything before is counted.
        with self._farm.session() as last:
            last.execute("INSERT INTO bench.marker (nr) VALUES (1)")
        self._marks += 1
        until = time.monotonic() + _ARRIVAL_SECONDS
        while (row := conn.execute(_MARKED).fetchone()) is None or int(row[0]) < self._marks:
            if time.monotonic() > until:
                raise BenchError("the server's statistics do not arrive", "is track_counts on?")
            time.sleep(_POLL_SECONDS)


def wal_bytes(conn: psycopg.Connection) -> int:
    """How many bytes of WAL the server has written so far."""
    row = conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn").fetchone()
    assert row is not None  # noqa: S101 - there is always a position
    return int(row[0])
