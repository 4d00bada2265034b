"""The journal: what procs of journaled shows book and release, folded into the totals by ticks.

Every call raises the typed errors of ``retally.sql.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from retally.procedures.records import BY_HAND, Pass
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg


#: How many triggers the journal has on the farm's proc while a show is journaled.
TRIGGERS = 3


@dataclass(frozen=True)
class JournalState:
    """The journal as a whole: its triggers on the farm's proc, and entries not folded.

    ``triggers``: those that work; ``idle``: those that are switched off.
    """

    triggers: int
    idle: int
    entries: int


def set_journal(conn: psycopg.Connection, show: str, *, on: bool) -> None:
    """Journal a show, by name or id, or do so no more. Raises UnmanagedShowError.

    Takes a lock on the farm's proc, and so waits for those who are writing it, within a bound:
    ShowBusyError. Raises PermissionDeniedError unless the role has the rights of proc's owner.
    """
    with translated():
        conn.execute("CALL retally.set_journal(%s, %s)", (show, on))


def end_journal(conn: psycopg.Connection) -> None:
    """Journal no show any more and take the triggers away; errors as of ``set_journal``."""
    with translated():
        conn.execute("CALL retally.end_journal()")


def fold(
    conn: psycopg.Connection,
    show_ids: Sequence[str],
    *,
    wait: bool,
    tick: str = BY_HAND,
    worker: str = BY_HAND,
) -> list[Pass]:
    """Fold the journal of these shows into all of their totals, in one transaction.

    One pass per show and total; shows that are not journaled are left out. ``rows_failed``: rows
    that could not take what is to be added, which a full pass tells more of. Raises ShowBusyError
    when rows stayed locked by others: nothing is folded then.
    """
    query: LiteralString = """
        SELECT
            f.show_id, f.total, f.rows_adrift, f.rows_changed, f.rows_deferred, f.rows_failed,
            f.core_units, f.gpus, f.seconds, f.problems
        FROM retally.fold(%s, %s, %s, %s) AS f
    """
    with translated():
        rows = conn.execute(query, (list(show_ids), wait, tick, worker)).fetchall()
    return [Pass.of_row(*row) for row in rows]


def waiting(conn: psycopg.Connection, show_ids: Sequence[str]) -> int:
    """How many entries of these shows are not folded yet."""
    query: LiteralString = "SELECT count(*) FROM retally.journal AS j WHERE j.scope = ANY (%s)"
    with translated():
        row = conn.execute(query, (list(show_ids),)).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return int(row[0])


def journal_state(conn: psycopg.Connection) -> JournalState:
    """How the journal stands."""
    query: LiteralString = """
        SELECT
            count(*) FILTER (WHERE t.works), count(*) FILTER (WHERE NOT t.works),
            (SELECT count(*) FROM retally.journal)
        FROM retally.journal_triggers() AS t
    """
    with translated():
        row = conn.execute(query).fetchone()
    assert row is not None  # noqa: S101 - an aggregate has one row
    return JournalState(*row)
