"""The ledger: what repairs of unmanaged shows, and the undoing of them, have changed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from psycopg.rows import class_row

from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime

    import psycopg

T = TypeVar("T")


@dataclass(frozen=True)
class Filters:
    """Which part of the ledger is asked for; what is empty or None lets everything through.

    ``shows``: their ids. ``limit``: entries, or runs.
    """

    shows: Sequence[str] = ()
    totals: Sequence[str] = ()
    run: int | None = None
    since: datetime | None = None
    limit: int | None = None


@dataclass(frozen=True)
class Entry:
    """A slot that a run wrote; amounts in the unit in which the farm stores the slot.

    ``show`` is None where the show is gone. ``asked_by``: a tick, or by hand. ``cause``: what had
    made the value wrong, where that is known. ``undoes``: the run that this one has put back.
    """

    run: int
    changed_at: datetime
    show: str | None
    show_id: str
    total: str
    name: str
    key: str
    slot: str
    before: int
    after: int
    cause: str | None
    asked_by: str
    worker: str
    forced: bool
    undoes: int | None


@dataclass(frozen=True)
class Run:
    """One repair or undo. ``core_units``, ``gpus``: what it changed, as absolute sums.

    ``shows`` are names, or ids where the show is gone.
    """

    run: int
    begun_at: datetime
    worker: str
    asked_by: str
    shows: Sequence[str]
    rows: int
    core_units: int
    gpus: int
    forced: bool
    undoes: int | None


def whole_row(kind: type[T]) -> Callable[[psycopg.Cursor[Any]], Callable[[Sequence[Any]], T]]:
    """As psycopg's class_row; what the ledger holds as numeric comes as an int."""

    def factory(cursor: psycopg.Cursor[Any]) -> Callable[[Sequence[Any]], T]:
        make = class_row(kind)(cursor)
        return lambda values: make([int(v) if isinstance(v, Decimal) else v for v in values])

    return factory


def ledger(conn: psycopg.Connection, filters: Filters) -> list[Entry]:
    """What runs changed, the latest first."""
    # names are joined to what is left of the ledger: one by one, each would cost a query
    query: LiteralString = """
        WITH chosen AS MATERIALIZED (
            SELECT l.*
            FROM retally.ledger_rows(%(shows)s, %(totals)s, %(run)s, %(since)s) AS l
            ORDER BY
                l.run DESC, l.scope, array_position(retally.totals(), l.total), l.key, l.slot
            LIMIT %(limit)s
        )

        SELECT
            l.run, l.changed_at, s.name AS show, l.scope AS show_id, l.total,
            coalesce(n.name, l.key) AS name, l.key, l.slot, l.before, l.after,
            l.cause, r.cause AS asked_by, r.worker, r.forced, r.undoes
        FROM chosen AS l
        INNER JOIN retally.run AS r ON l.run = r.run
        LEFT JOIN retally.shows() AS s ON l.scope = s.show_id
        LEFT JOIN retally.names() AS n ON l.total = n.total AND l.key = n.key
        ORDER BY
            l.run DESC, s.name, l.scope, array_position(retally.totals(), l.total), l.key, l.slot
    """
    with translated(), conn.cursor(row_factory=whole_row(Entry)) as cursor:
        return cursor.execute(query, _parameters(filters)).fetchall()


def runs(conn: psycopg.Connection, filters: Filters) -> list[Run]:
    """The runs that changed what the filters choose, the latest first; sums of just that."""
    query: LiteralString = """
        WITH sums AS (
            SELECT
                l.run,
                array_agg(DISTINCT coalesce(s.name, l.scope)) AS shows,
                count(DISTINCT (l.scope, l.total, l.key)) AS rows,
                sum(abs(l.after - l.before)) FILTER (WHERE l.slot LIKE '%%cores') AS core_units,
                sum(abs(l.after - l.before)) FILTER (WHERE l.slot LIKE '%%gpus') AS gpus
            FROM retally.ledger_rows(%(shows)s, %(totals)s, %(run)s, %(since)s) AS l
            LEFT JOIN retally.shows() AS s ON l.scope = s.show_id
            GROUP BY l.run
            ORDER BY l.run DESC
            LIMIT %(limit)s
        )

        SELECT
            r.run, r.begun_at, r.worker, r.cause AS asked_by, c.shows, c.rows,
            coalesce(c.core_units, 0) AS core_units, coalesce(c.gpus, 0) AS gpus, r.forced, r.undoes
        FROM sums AS c
        INNER JOIN retally.run AS r ON c.run = r.run
        ORDER BY r.run DESC
    """
    with translated(), conn.cursor(row_factory=whole_row(Run)) as cursor:
        return cursor.execute(query, _parameters(filters)).fetchall()


def _parameters(filters: Filters) -> dict[str, object]:
    return {
        "shows": list(filters.shows),
        "totals": list(filters.totals),
        "run": filters.run,
        "since": filters.since,
        "limit": filters.limit,
    }
