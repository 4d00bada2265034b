"""Repairs of unmanaged shows, which keep before and after in the ledger, and what undoes them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from retally.procedures.ledger import whole_row
from retally.procedures.records import Pass
from retally.sql.errors import (
    ManagedShowError,
    RepairRefusedError,
    ShowBusyError,
    UnknownRunError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    ``shows_busy``: ids of shows that another writer held; ``refusals``: why shows are not put
    back, those that are managed by now. Nothing of either has changed.
    """

    run: int | None
    rows_restored: int
    rows_kept: int
    rows_deferred: int
    shows_busy: tuple[str, ...]
    refusals: tuple[ManagedShowError, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Restorable:
    """A slot that a run wrote, and what it holds ``now``, None where its row is gone.

    ``restorable``: all slots of its row that the run wrote still hold what it wrote, and its show
    is not managed.
    """

    show: str | None
    show_id: str
    total: str
    name: str
    key: str
    slot: str
    before: int
    after: int
    now: int | None
    restorable: bool


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
            r.rows_failed, r.core_units, r.gpus, r.seconds, r.problems
        FROM retally.repair(%s::text[]::retally.finding[], %s, %s, %s, %s, %s, %s) AS r
    """
    tokens = [finding.token for finding in found]
    with translated():
        rows = conn.execute(query, (tokens, wait, tick, worker, asked_by, force, run)).fetchall()
    passes = tuple(Pass.of_row(*row[1:]) for row in rows)
    return Repair(rows[-1][0] if rows else run, passes)


def refusal(
    conn: psycopg.Connection, show_id: str, totals: Sequence[str]
) -> RepairRefusedError | None:
    """Why a repair of these totals of an unmanaged show would be refused now; None: it would not.

    For a connection in autocommit.
    """
    try:
        with translated():
            conn.execute(
                "SELECT retally.refuse_large_repair(%s, %s, NULL)", (show_id, list(totals))
            )
    except RepairRefusedError as error:
        return error
    return None


def undo(conn: psycopg.Connection, run: int) -> Undone:
    """Put back what a run changed, where rows still hold what it wrote; a transaction per show.

    Raises UnknownRunError. A show that another writer holds, or that is managed by now, is left,
    and named.
    """
    query: LiteralString = """
        SELECT u.run, u.rows_restored, u.rows_kept, u.rows_deferred, u.problems
        FROM retally.undo_scope(%s, %s, %s, %s) AS u
    """
    new_run: int | None = None
    counts = (0, 0, 0)
    busy: list[str] = []
    refusals: list[ManagedShowError] = []
    problems: list[str] = []
    for show_id in run_show_ids(conn, run):
        try:
            with translated(), conn.transaction():
                row = conn.execute(query, (run, show_id, conn.info.user, new_run)).fetchone()
        except ShowBusyError:
            busy.append(show_id)
            continue
        except ManagedShowError as error:
            refusals.append(error)
            continue
        assert row is not None  # noqa: S101 - a function with OUT parameters answers with one row
        new_run = row[0]
        counts = (counts[0] + row[1], counts[1] + row[2], counts[2] + row[3])
        problems += row[4]
    return Undone(new_run, *counts, tuple(busy), tuple(refusals), tuple(problems))


def run_show_ids(conn: psycopg.Connection, run: int) -> list[str]:
    """The ids of the shows that a run has changed. Raises UnknownRunError."""
    query: LiteralString = """
        SELECT
            ARRAY(SELECT DISTINCT l.scope FROM retally.ledger AS l WHERE l.run = r.run ORDER BY 1)
        FROM retally.run AS r
        WHERE r.run = %s::numeric
    """
    with translated():
        row = conn.execute(query, (run,)).fetchone()
    if row is None:
        raise UnknownRunError(
            f"there is no run {run}", "`retally ledger --runs` lists them; old ones are pruned"
        )
    return list(row[0])


def restorable(conn: psycopg.Connection, run: int) -> list[Restorable]:
    """What an undo of this run would meet, slot by slot; reads only."""
    query: LiteralString = """
        SELECT
            s.name AS show, r.show_id, r.total, coalesce(n.name, r.key) AS name, r.key, r.slot,
            r.before, r.after, r.now,
            r.restorable AND NOT coalesce(s.rebuilt, FALSE) AS restorable
        FROM retally.restorable(%s) AS r
        LEFT JOIN retally.shows() AS s ON r.show_id = s.show_id
        LEFT JOIN retally.names() AS n ON r.total = n.total AND r.key = n.key
        ORDER BY s.name, r.show_id, array_position(retally.totals(), r.total), r.key, r.slot
    """
    with translated(), conn.cursor(row_factory=whole_row(Restorable)) as cursor:
        return cursor.execute(query, (run,)).fetchall()
