"""What the passes have left to be read: the latest of each, who is due or fails, the history.

None of it touches the farm's procs or totals, so that reading it costs next to nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, TypeVar

from psycopg.rows import class_row

from retally.procedures.records import WRITING
from retally.procedures.routines import last_passes
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import psycopg

    from retally.procedures.records import LastPass

T = TypeVar("T")


@dataclass(frozen=True)
class Turn:
    """When a show is due in a tick; ``failures``: how many passes running have failed, and why.

    ``claimed_by``: the worker that had it last. ``is_due``: by now, so that somebody is about to
    take it. ``every``: for how many seconds it was put off. ``error``: of the latest failure.
    """

    show_id: str
    tick: str
    due_at: datetime
    is_due: bool
    every: float
    claimed_by: str
    failures: int
    error: str | None


@dataclass(frozen=True)
class Heartbeat:
    """When a worker was last seen in a tick; ``every``: how often it should be, in seconds."""

    worker: str
    tick: str
    every: float
    seen_at: datetime
    alive: bool


@dataclass(frozen=True)
class Kept:
    """All that is kept of the present state, and the database's time ``now``."""

    now: datetime
    passes: tuple[LastPass, ...]
    turns: tuple[Turn, ...]
    heartbeats: tuple[Heartbeat, ...]

    @property
    def empty(self) -> bool:
        """Whether no pass was ever kept, or a crash of the server has emptied the tables."""
        return not self.passes and not self.heartbeats


@dataclass(frozen=True)
class PastPass:
    """A row of the history; drift as absolute sums, ``seconds``: duration."""

    finished_at: datetime
    show_id: str
    tick: str
    total: str
    action: str
    worker: str
    rows_adrift: int
    rows_changed: int
    rows_deferred: int
    rows_failed: int
    core_units: int
    gpus: int
    seconds: float


@dataclass(frozen=True)
class Pruned:
    """What one round of pruning has deleted: rows of the history, and runs with all their rows."""

    history_rows: int
    runs: int


def kept(conn: psycopg.Connection) -> Kept | None:
    """What is kept of the present state; None on a replica, which has no unlogged tables."""
    with translated(), conn.transaction():
        row = conn.execute("SELECT pg_is_in_recovery(), clock_timestamp()").fetchone()
        assert row is not None  # noqa: S101 - such a query has always one row
        in_recovery, now = row
        if in_recovery:
            return None
        return Kept(
            now,
            tuple(last_passes(conn)),
            tuple(_records(conn, Turn, _TURNS, {"now": now})),
            tuple(_records(conn, Heartbeat, _HEARTBEATS, {"now": now})),
        )


def prune(conn: psycopg.Connection, rows: int) -> Pruned:
    """Delete what is older than its age in ``retally.setting``, about ``rows`` of each kind."""
    return _records(conn, Pruned, "CALL retally.prune(%(rows)s)", {"rows": rows})[0]


def old_is_left(conn: psycopg.Connection) -> bool:
    """Whether there is something that ``prune`` is to delete; it may be another one's just now."""
    with translated():
        row = conn.execute(_OLD).fetchone()
    return bool(row and row[0])


def latest(passes: Sequence[LastPass]) -> list[LastPass]:
    """Of each total of each show the latest pass, by whatever tick or by hand."""
    found: dict[tuple[str, str], LastPass] = {}
    for each in passes:
        known = found.setdefault((each.show_id, each.total), each)
        if known.finished_at < each.finished_at:
            found[each.show_id, each.total] = each
    return list(found.values())


def left_adrift(each: LastPass) -> int:
    """How many rows a pass has left adrift; those that cannot be made exact are not among them."""
    return each.rows_deferred if each.action in WRITING else each.rows_adrift


def history(
    conn: psycopg.Connection,
    *,
    show_ids: Sequence[str] = (),
    since: datetime | None = None,
    limit: int | None = None,
) -> list[PastPass]:
    """The history of these shows, of all when there are none, the latest first."""
    filters = {"shows": list(show_ids), "since": since, "limit": limit}
    return _records(conn, PastPass, _HISTORY, filters)


_TURNS: LiteralString = """
SELECT
    d.scope AS show_id, d.tick, d.due_at,
    retally.is_due(d.due_at, d.every, %(now)s, %(now)s) AS is_due,
    extract(EPOCH FROM d.every)::double precision AS every, d.claimed_by, d.failures, d.error
FROM retally.due AS d
ORDER BY d.scope, d.tick
"""

_HEARTBEATS: LiteralString = """
SELECT
    w.worker, w.tick, extract(EPOCH FROM w.every)::double precision AS every, w.seen_at,
    retally.is_alive(w.seen_at, w.every, %(now)s) AS alive
FROM retally.worker AS w
ORDER BY w.worker, w.tick
"""

_OLD: LiteralString = """
SELECT
    EXISTS (
        SELECT FROM retally.history AS h WHERE h.finished_at < clock_timestamp() - s.history_age
    )
    OR EXISTS (
        SELECT FROM retally.run AS r WHERE r.begun_at < clock_timestamp() - s.ledger_age
    )
FROM retally.setting AS s
"""

_HISTORY: LiteralString = """
SELECT
    h.finished_at, h.scope AS show_id, h.tick, h.total, h.action, h.worker, h.rows_adrift,
    h.rows_changed, h.rows_deferred, h.rows_failed, h.core_units_adrift::bigint AS core_units,
    h.gpus_adrift::bigint AS gpus, h.seconds
FROM retally.history AS h
WHERE
    (%(shows)s::text[] = '{}' OR h.scope = ANY (%(shows)s))
    AND (%(since)s::timestamptz IS NULL OR h.finished_at >= %(since)s)
ORDER BY h.finished_at DESC, h.scope, array_position(retally.totals(), h.total)
LIMIT %(limit)s
"""


def _records(
    conn: psycopg.Connection, kind: type[T], query: LiteralString, params: Mapping[str, object]
) -> list[T]:
    with translated(), conn.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, params).fetchall()
