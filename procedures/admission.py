"""Admission: what is capped and booked, who serves which show, and changes of caps.

Connections are in autocommit: each call is a transaction of its own. Every call raises the typed
errors of ``retally.sql.errors``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

    import psycopg


#: At which bookings are capped, in the order in which they are asked.
VERTICES = ("subscription", "folder", "job")


@dataclass(frozen=True)
class Snapshot:
    """What a statement saw: the transactions below ``xmax``, save those that were ``running``.

    ``asked_at``: when it was sent, by this process's monotonic clock.
    """

    xmax: int
    running: frozenset[int]
    asked_at: float = 0.0

    @classmethod
    def parsed(cls, text: str, asked_at: float) -> Snapshot:
        """From PostgreSQL's text form: ``xmin:xmax:xip,xip…``."""
        _, xmax, running = text.split(":")
        ids = running.split(",") if running else ()
        return cls(int(xmax), frozenset(map(int, ids)), asked_at)

    def sees(self, xact: int) -> bool:
        """Whether what this transaction, which has committed, did was seen."""
        return xact < self.xmax and xact not in self.running


@dataclass(frozen=True, slots=True)
class VertexRow:
    """A vertex as the database has it.

    ``vertex``: subscription (``key`` is pk_alloc), folder or job; ``name``: of the allocation,
    folder or job. Caps are as the farm has them, in core units and GPUs; ``cores`` (core units) and
    ``gpus`` are booked. ``folder_id``: the job's.
    """

    vertex: str
    key: str
    name: str
    folder_id: str
    max_cores: int
    max_gpus: int
    cores: int
    gpus: int


@dataclass(frozen=True)
class Counts:
    """All vertices of a show, of one snapshot; folders come before the jobs in them."""

    snapshot: Snapshot
    rows: tuple[VertexRow, ...]

    def by_vertex(self) -> dict[str, dict[str, VertexRow]]:
        """The rows by vertex and key."""
        found: dict[str, dict[str, VertexRow]] = {vertex: {} for vertex in VERTICES}
        for row in self.rows:
            found[row.vertex][row.key] = row
        return found


@dataclass(frozen=True)
class JobCounts:
    """A job: its show, whether that is managed, and its vertex."""

    show_id: str
    show_name: str
    managed: bool
    row: VertexRow
    snapshot: Snapshot


@dataclass(frozen=True)
class Taking:
    """What became of asking for a lease.

    ``managed`` False: none is needed. ``token`` None: ``served_by`` has the show, or is to have it
    next, and keeps it for ``expires_in`` seconds at most.
    """

    token: int | None
    managed: bool
    served_by: str | None
    expires_in: float | None


@dataclass(frozen=True)
class Lease:
    """A lease that somebody holds. ``live`` False: it has ended without being given up."""

    show_id: str
    name: str | None
    holder: str
    token: int
    taken_at: datetime
    expires_at: datetime
    live: bool
    wanted_by: str | None


def counts(conn: psycopg.Connection, show_id: str) -> Counts:
    """What is capped and booked in a show."""
    query: LiteralString = """
        SELECT v.*, s.snapshot::text
        FROM (SELECT pg_current_snapshot() AS snapshot) AS s
        LEFT JOIN retally.vertices(%s) AS v ON TRUE
    """
    asked_at = time.monotonic()
    with translated():
        rows = conn.execute(query, (show_id,)).fetchall()
    snapshot = Snapshot.parsed(rows[0][-1], asked_at)
    return Counts(snapshot, tuple(_vertex(*row[:-1]) for row in rows if row[0]))


def job_counts(conn: psycopg.Connection, job: str) -> JobCounts | None:
    """What is capped and booked of one job; None when there is no such job."""
    query: LiteralString = """
        SELECT
            v.show_id, v.show_name, v.managed, v.name, v.folder_id, v.max_cores, v.max_gpus,
            v.cores, v.gpus, pg_current_snapshot()::text
        FROM retally.job_vertex(%s) AS v
    """
    asked_at = time.monotonic()
    with translated():
        row = conn.execute(query, (job,)).fetchone()
    if row is None:
        return None
    show_id, name, managed, *vertex, snapshot = row
    return JobCounts(
        show_id, name, managed, _vertex("job", job, *vertex), Snapshot.parsed(snapshot, asked_at)
    )


def allocations(conn: psycopg.Connection, host: str | None = None) -> dict[str, str]:
    """The allocation of each host by id, or of one."""
    query: LiteralString = """
        SELECT h.pk_host::text, h.pk_alloc::text FROM public.host AS h
        WHERE %(host)s::text IS NULL OR h.pk_host::text = %(host)s
    """
    with translated():
        return dict(conn.execute(query, {"host": host}).fetchall())


def take_lease(
    conn: psycopg.Connection, show_id: str, name: str, holder: str, seconds: float
) -> Taking:
    """Ask for the lease of a show. Raises ShowBusyError when bookings stayed in flight."""
    query: LiteralString = """
        SELECT t.token, t.managed, t.served_by, t.expires_in
        FROM retally.take_lease(%s, %s, %s, make_interval(secs => %s)) AS t
    """
    with translated():
        row = conn.execute(query, (show_id, name, holder, seconds)).fetchone()
    assert row is not None  # noqa: S101 - a function with OUT parameters has always one row
    return Taking(*row)


def keep_leases(
    conn: psycopg.Connection, holder: str, tokens: Mapping[str, int], seconds: float
) -> dict[str, bool]:
    """Make leases last; those that still stand, and whether to yield each to somebody else."""
    query: LiteralString = """
        SELECT k.scope, k.yield
        FROM retally.keep_leases(%s, %s::text[], %s::bigint[], make_interval(secs => %s)) AS k
    """
    params = (holder, list(tokens), list(tokens.values()), seconds)
    with translated():
        return dict(conn.execute(query, params).fetchall())


def end_leases(conn: psycopg.Connection, holder: str, tokens: Mapping[str, int]) -> None:
    """Give leases up; bookings under them have to be over."""
    query: LiteralString = "SELECT retally.end_leases(%s, %s::text[], %s::bigint[])"
    with translated():
        conn.execute(query, (holder, list(tokens), list(tokens.values())))


def end_lease(conn: psycopg.Connection, show: str) -> None:
    """End the lease of a show, whoever holds it. ``show``: name or id."""
    with translated():
        conn.execute("CALL retally.end_lease(%s)", (show,))


def leases(conn: psycopg.Connection) -> list[Lease]:
    """The leases that somebody holds."""
    with translated():
        rows: Sequence[tuple[object, ...]] = conn.execute(
            "SELECT * FROM retally.leases()"
        ).fetchall()
    return [Lease(*row) for row in rows]  # type: ignore[arg-type]


def _vertex(
    vertex: str,
    key: str,
    name: str,
    folder_id: str | None,
    max_cores: int,
    max_gpus: int,
    *sums: Decimal,
) -> VertexRow:
    cores, gpus = map(int, sums)
    return VertexRow(vertex, key, name, folder_id or "", max_cores, max_gpus, cores, gpus)
