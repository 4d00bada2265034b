"""Repairs of unmanaged shows: the calls that keep before and after, show them, and undo them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg.rows import class_row, dict_row

from retally.procedures.records import Pass
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    import psycopg

    from retally.procedures.records import Finding


@dataclass(frozen=True)
class Repair:
    """What a repair of one show did; ``run`` is None while nothing was changed."""

    run: int | None
    passes: tuple[Pass, ...]


@dataclass(frozen=True)
class Undone:
    """What an undo did, itself the run ``run``; None when it changed nothing.

    ``rows_kept`` hold another value by now, or are gone; ``rows_deferred`` stayed locked.
    """

    run: int | None
    rows_restored: int
    rows_kept: int
    rows_deferred: int
    problems: tuple[str, ...]


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


def repair(
    conn: psycopg.Connection,
    found: Sequence[Finding],
    *,
    wait: bool,
    tick: str,
    worker: str,
    asked_by: str,
    force: bool = False,
    run: int | None = None,
) -> Repair:
    """Mend what was found adrift in one unmanaged show, in one transaction, and keep a ledger.

    ``run``: the run that it belongs to; None: a new one. Raises RepairRefusedError, unless
    ``force``, when it would change too much; ShowBusyError as ``mend`` does.
    """
    query: LiteralString = """
        SELECT
            r.run, r.show_id, r.total, r.rows_adrift, r.rows_changed, r.rows_deferred,
            r.rows_failed, r.core_units::bigint, r.gpus::bigint, r.seconds, r.problems
        FROM retally.repair(%s::text[]::retally.finding[], %s, %s, %s, %s, %s, %s) AS r
    """
    tokens = [finding.token for finding in found]
    with translated():
        rows = conn.execute(query, (tokens, wait, tick, worker, asked_by, force, run)).fetchall()
    passes = [Pass(*row[1:10], problems=tuple(row[10])) for row in rows]
    return Repair(rows[-1][0] if rows else run, tuple(passes))


def undo(conn: psycopg.Connection, run: int) -> Undone:
    """Put back what a run changed, in one transaction, where rows still hold what it wrote.

    Raises UnknownRunError; ShowBusyError when another writer holds a show: nothing has changed.
    """
    with translated(), conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("CALL retally.undo(%s)", (run,)).fetchone()
    assert row is not None  # noqa: S101 - a procedure with INOUT parameters answers with one row
    return Undone(
        row["run"],
        row["rows_restored"],
        row["rows_kept"],
        row["rows_deferred"],
        tuple(row["problems"]),
    )


def ledger(
    conn: psycopg.Connection,
    *,
    show_ids: Sequence[str] = (),
    totals: Sequence[str] = (),
    run: int | None = None,
    since: datetime | None = None,
    limit: int | None = None,
) -> list[Entry]:
    """What runs changed, the latest first; empty filters let everything through."""
    query: LiteralString = """
        SELECT
            l.run, l.changed_at, s.name AS show, l.scope AS show_id, l.total,
            retally.row_name(l.total, l.key) AS name, l.key, l.slot, l.before::bigint AS before,
            l.after::bigint AS after, l.cause, r.cause AS asked_by, r.worker, r.forced, r.undoes
        FROM retally.ledger AS l
        INNER JOIN retally.run AS r ON l.run = r.run
        LEFT JOIN retally.shows() AS s ON l.scope = s.show_id
        WHERE
            (%(shows)s::text[] = '{}' OR l.scope = ANY (%(shows)s))
            AND (%(totals)s::text[] = '{}' OR l.total = ANY (%(totals)s))
            AND (%(run)s::bigint IS NULL OR l.run = %(run)s)
            AND (%(since)s::timestamptz IS NULL OR l.changed_at >= %(since)s)
        ORDER BY l.run DESC, s.name, array_position(retally.totals(), l.total), l.key, l.slot
        LIMIT %(limit)s
    """
    filters = {
        "shows": list(show_ids),
        "totals": list(totals),
        "run": run,
        "since": since,
        "limit": limit,
    }
    with translated(), conn.cursor(row_factory=class_row(Entry)) as cursor:
        return cursor.execute(query, filters).fetchall()
