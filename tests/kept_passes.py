"""Passes that a test makes up, and what is kept of them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from psycopg import sql
from small_farm import Rows, Work, corrupt, make_work

from retally.procedures import TOTALS, routines
from retally.procedures.kept import history

if TYPE_CHECKING:
    import psycopg

START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """What a pass that the test makes up has found and done."""

    adrift: int = 0
    changed: int = 0
    deferred: int = 0
    failed: int = 0
    core_units: int = 0
    action: str = "watched"


QUIET = Found()


OLD_DRIFT = Found(adrift=1, core_units=100)


def note(
    conn: psycopg.Connection, at: float, found: Found = QUIET, scope: str = "show", tick: str = "t"
) -> None:
    """Keep such a pass over the jobs of a show; ``at``: seconds after START."""
    conn.execute(
        "SELECT retally.note_passes(ARRAY[ROW(%s, %s, 'job', %s, 'me', %s, 0.25, %s, %s, %s, %s,"
        " %s, 0, '{}', NULL, NULL, NULL)::retally.pass])",
        (
            scope,
            tick,
            found.action,
            START + timedelta(seconds=at),
            found.adrift,
            found.changed,
            found.deferred,
            found.failed,
            found.core_units,
        ),
    )


def times(conn: psycopg.Connection) -> list[float]:
    """When the rows of the history are from, in seconds after START."""
    return [(row.finished_at - START).total_seconds() for row in reversed(history(conn))]


def wrong_show(conn: psycopg.Connection, name: str | None = None) -> Work:
    """A show with one proc of 300 core units, whose every total is wrong."""
    rows = Rows(conn)
    work = make_work(rows, name)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(conn)
    return work


def watch(conn: psycopg.Connection, show_ids: list[str], totals: tuple[str, ...] = TOTALS) -> None:
    found = routines.findings(conn, show_ids, totals)
    routines.note_findings(conn, found, action="watched", tick="t", worker="me", seconds=0.5)


def count(conn: psycopg.Connection, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM retally.{}").format(sql.Identifier(table))
    (number,) = conn.execute(query).fetchone() or (0,)
    return int(number)
