"""``retally status``."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING

import click
from rich.table import Table

from retally.cli.facts import described, farm, flags, journal_line, versions
from retally.cli.options import database, format_option
from retally.cli.output import TABLE_ROWS, Row, console, counted, note, print_rows
from retally.cli.overview import (
    ON_REPLICA,
    ShowNow,
    overview,
    ticks_of,
    without_passes,
)
from retally.cli.workers import COLUMNS as WORKER_COLUMNS
from retally.cli.workers import TABLE as WORKER_TABLE
from retally.cli.workers import gone_line, ticks_line, worker_lines, worker_rows
from retally.procedures import Show, routines
from retally.procedures.journal import journal_state
from retally.procedures.kept import Kept, kept
from retally.sql.migrate import require_current

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

_COLUMNS = (
    "show",
    "managed",
    "farm_flag",
    "journaled",
    "mode",
    "written_by",
    "last_pass",
    "tick",
    "worker",
    "subscription_pass",
    "resource_pass",
    "rows_adrift",
    "rows_changed",
    "rows_deferred",
    "rows_failed",
    "seconds",
    "rows_left_adrift",
    "core_units_left_adrift",
    "gpus_left_adrift",
    "due",
    "failures",
    "failing_tick",
    "error",
    "retry_at",
)
_LINES = 10  # of shows that fail, of workers
_WIDE = 100  # columns from which on each show's worker fits, too


@click.command()
@click.option("--workers", is_flag=True, help="The workers and their ticks instead of the shows.")
@format_option
@database
def status(conn: psycopg.Connection, style: str, workers: bool) -> None:
    """Tell versions, the farm, the workers, who writes each show's totals, and the last passes.

    Reads no proc: what is told as adrift is what the latest pass over each total has left, by a
    tick or by hand.

    \b
    Written by   bookings: each increments the totals (or, through retally, leaves them alone);
                 journal: folded by the ticks, nobody else may add to these totals; scheduler: the
                 farm's own, for shows that it flags; ticks: retally's
    Mode         rebuild: of managed shows; journal: of journaled ones; watch, repair, off: of the
                 others; default: what the worker's setting --unmanaged says
    Last pass    how long ago, tick by tick
    Adrift       rows left adrift; changed, deferred, failed: rows of the latest passes; "-" where
                 nobody looks: mode off, or none for 5 minutes (for 10 intervals of the tick, if
                 that is longer)

    \b
    Example:
      retally status
      retally status --format json
      retally status --workers --format csv
    """
    if style == "table":
        found = farm(conn)
        click.echo(f"retally     {version('retally')}, schema version {versions(conn)}")
        click.echo(f"PostgreSQL  {found.server}, database {conn.info.dbname}")
        click.echo(f"farm        {described(found)}")
    require_current(conn)
    state = kept(conn)
    if workers:
        if state is None:
            note(f"workers: {ON_REPLICA}")
        rows_of_workers = worker_rows(state) if state else []
        print_rows(rows_of_workers, style, WORKER_TABLE if style == "table" else WORKER_COLUMNS)
        return
    rows = overview(routines.shows(conn), state)
    if style != "table":
        print_rows([_row(each) for each in rows], style, _COLUMNS)
        if why := without_passes(state):
            note(f"passes: {why}")
        return
    click.echo(f"flags       {flags(conn)}")
    shows = [each.show for each in rows]
    click.echo(f"journal     {journal_line(shows, journal_state(conn))}")
    for title, line in _told(rows, state):
        click.echo(f"{title:<12}{line}")
    click.echo()
    _print_table(rows, ticks_of(state))


def _told(rows: Sequence[ShowNow], state: Kept | None) -> Iterator[tuple[str, str]]:
    """The lines about workers and passes, each under its title."""
    if why := without_passes(state):
        yield "passes", why
    if state is None:
        return
    yield from _titled("workers", worker_lines(state) or ["none"])
    if gone := gone_line(state):
        yield "gone", gone
    if ticks := ticks_line(state):
        yield "ticks", ticks
        yield "due", counted(sum(row.is_due for row in rows), "show") + " now"
    yield from _titled(
        "failing", [f"{row.show.name}: {row.failure()}" for row in rows if row.failing]
    )


def _titled(title: str, lines: Sequence[str]) -> Iterator[tuple[str, str]]:
    for line in lines[:_LINES]:
        yield title, line
        title = ""
    if len(lines) > _LINES:
        yield "", f"… and {len(lines) - _LINES:,} more; --format json has all of them"


def _print_table(rows: Sequence[ShowNow], ticks: Sequence[str]) -> None:
    screen = console()
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("show", overflow="fold")
    table.add_column("written by", overflow="fold")
    table.add_column("mode", no_wrap=True)
    table.add_column("last pass", no_wrap=True)
    if wide := screen.width >= _WIDE:
        table.add_column("worker", no_wrap=True, overflow="ellipsis", min_width=6, max_width=24)
    for name in ("adrift", "changed", "deferred", "failed"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:TABLE_ROWS]:
        table.add_row(
            row.show.name,
            _writer(row.show),
            row.mode,
            row.ages(ticks),
            *([row.last.worker if row.last else "-"] if wide else []),
            *(
                "-" if number is None else f"{number:,}"
                for number in (
                    row.rows_left if row.latest else None,
                    row.summed("rows_changed"),
                    row.summed("rows_deferred"),
                    row.summed("rows_failed"),
                )
            ),
        )
    screen.print(table)
    if len(rows) > TABLE_ROWS:
        note(f"… and {len(rows) - TABLE_ROWS:,} more shows; --format csv prints all of them")


def _row(row: ShowNow) -> Row:
    last, failing = row.last, row.failing
    return {
        "show": row.show.name,
        "managed": row.show.managed,
        "farm_flag": row.show.farm_flag,
        "journaled": row.show.journaled,
        "mode": row.mode,
        "written_by": _writer(row.show),
        "last_pass": last.finished_at if last else None,
        "tick": last.tick if last else None,
        "worker": last.worker if last else None,
        "subscription_pass": row.finished_at("subscription"),
        "resource_pass": row.finished_at("resource"),
        **{
            name: row.summed(name)
            for name in ("rows_adrift", "rows_changed", "rows_deferred", "rows_failed")
        },
        "seconds": round(sum(each.seconds for each in row.latest), 6) if row.latest else None,
        "rows_left_adrift": row.rows_left if row.latest else None,
        "core_units_left_adrift": row.core_units_left if row.latest else None,
        "gpus_left_adrift": row.gpus_left if row.latest else None,
        "due": row.is_due,
        "failures": failing.failures if failing else 0,
        "failing_tick": failing.tick if failing else None,
        "error": failing.error if failing else None,
        "retry_at": failing.due_at if failing else None,
    }


def _writer(show: Show) -> str:
    """Who writes the totals, by the facts of OpenCue's releases."""
    if show.managed:
        return "journal, ticks" if show.journaled else "bookings, ticks"
    if show.farm_flag:
        return "scheduler, ticks" if show.rebuilt else "scheduler"
    return "bookings"
