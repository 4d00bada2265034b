"""``retally status``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import click
from psycopg.rows import class_row
from rich.table import Table

from retally.cli.options import database, format_option
from retally.cli.output import TABLE_ROWS, Row, console, counted, note, print_rows
from retally.cli.overview import (
    ON_REPLICA,
    ShowNow,
    age,
    overview,
    shares,
    ticks_of,
    without_passes,
    workers_of,
)
from retally.procedures import Show, routines
from retally.procedures.kept import Heartbeat, Kept, kept
from retally.sql.errors import translated
from retally.sql.migrate import known_version, require_current, schema_version

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

_COLUMNS = (
    "show",
    "managed",
    "farm_flag",
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
_WORKER_COLUMNS = ("worker", "tick", "every_seconds", "seen_at", "alive", "shows")
_LINES = 10  # of shows that fail, of workers
_WIDE = 100  # columns from which on each show's worker fits, too


@dataclass(frozen=True)
class Farm:
    """What the catalog tells of the farm; a migration version only where Flyway keeps one."""

    server: str
    tables: int
    has_gpus: bool
    has_flag: bool
    flyway: str | None


_FARM = """
SELECT
    current_setting('server_version') AS server,
    (
        SELECT count(*) FROM unnest(ARRAY[
            'proc', 'show', 'subscription', 'layer_resource', 'job_resource', 'folder_resource',
            'point'
        ]) AS t (name) WHERE to_regclass('public.' || t.name) IS NOT NULL
    ) AS tables,
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = to_regclass('public.proc') AND a.attname = 'int_gpus_reserved'
    ) AS has_gpus,
    EXISTS (
        SELECT FROM pg_catalog.pg_attribute AS a
        WHERE a.attrelid = to_regclass('public.show') AND a.attname = 'b_scheduler_managed'
    ) AS has_flag,
    to_regclass('public.flyway_schema_history')::text AS flyway
"""


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
                 scheduler: the farm's own, for shows that it flags; ticks: retally's
    Mode         rebuild: of managed shows; watch, repair, off: of the others; default: what the
                 worker's setting --unmanaged says
    Last pass    how long ago, tick by tick
    Adrift       rows left adrift; changed, deferred, failed: rows of the latest passes

    \b
    Example:
      retally status
      retally status --format json
      retally status --workers --format csv
    """
    if style == "table":
        found = _farm(conn)
        click.echo(f"retally     {version('retally')}, schema version {_versions(conn)}")
        click.echo(f"PostgreSQL  {found.server}, database {conn.info.dbname}")
        click.echo(f"farm        {_described(found)}")
    require_current(conn)
    state = kept(conn)
    if workers:
        print_rows(_workers(state), style, _WORKER_COLUMNS)
        return
    rows = overview(routines.shows(conn), state)
    if style != "table":
        print_rows([_row(each) for each in rows], style, _COLUMNS)
        if why := without_passes(state):
            note(f"passes: {why}")
        return
    click.echo(f"flags       {_flags(conn)}")
    for title, line in _told(rows, state):
        click.echo(f"{title:<12}{line}")
    click.echo()
    _print_table(rows, ticks_of(state))


def _farm(conn: psycopg.Connection) -> Farm:
    with translated(), conn.cursor(row_factory=class_row(Farm)) as cursor:
        found = cursor.execute(_FARM).fetchone()
        assert found is not None  # noqa: S101 - the query has always one row
        if found.flyway is None:
            return found
        row = conn.execute(
            "SELECT max(version::int) FROM public.flyway_schema_history"
            " WHERE success AND version ~ '^[0-9]+$'"
        ).fetchone()
        return Farm(
            found.server,
            found.tables,
            found.has_gpus,
            found.has_flag,
            None if row is None else f"V{row[0]}",
        )


def _versions(conn: psycopg.Connection) -> str:
    there = schema_version(conn)
    if there is None:
        return "none (not installed)"
    return str(there) if there == known_version() else f"{there} (program: {known_version()})"


def _described(found: Farm) -> str:
    if not found.tables:
        return "none in the schema public"
    if not found.has_gpus:
        return "OpenCue before migration V11: no GPU columns, too old for retally"
    era = (
        "1.19 or newer (show.b_scheduler_managed is there)"
        if found.has_flag
        else "1.18 or older (no show.b_scheduler_managed)"
    )
    return f"OpenCue {era}" + (f", migrated to {found.flyway}" if found.flyway else "")


def _flags(conn: psycopg.Connection) -> str:
    with translated():
        row = conn.execute("SELECT s.follow_farm_flag FROM retally.setting AS s").fetchone()
    farm = "the farm's own is followed" if row and row[0] else "the farm's own is ignored"
    in_force = routines.override(conn)
    ours = "per show" if in_force == "per-show" else f"override {in_force}"
    return f"retally's {ours}; {farm}"


def _told(rows: Sequence[ShowNow], state: Kept | None) -> Iterator[tuple[str, str]]:
    """The lines about workers and passes, each under its title."""
    if why := without_passes(state):
        yield "passes", why
    if state is None:
        return
    yield from _titled("workers", _worker_lines(state) or ["none"])
    if ticks := ticks_of(state):
        yield "ticks", ", ".join(ticks)
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


def _worker_lines(state: Kept) -> list[str]:
    claimed = shares(state)
    lines = []
    for worker, beats in workers_of(state).items():
        ticks = [
            f"{beat.tick} {age((state.now - beat.seen_at).total_seconds())} ago,"
            f" {counted(claimed[worker, beat.tick], 'show')}"
            for beat in beats
            if beat.alive
        ]
        lines.append(f"{worker}: " + ("; ".join(ticks) or f"gone since {_latest(beats, state)}"))
    return lines


def _latest(beats: Sequence[Heartbeat], state: Kept) -> str:
    return age((state.now - max(beat.seen_at for beat in beats)).total_seconds())


def _workers(state: Kept | None) -> list[Row]:
    if state is None:
        note(f"workers: {ON_REPLICA}")
        return []
    claimed = shares(state)
    return [
        {
            "worker": beat.worker,
            "tick": beat.tick,
            "every_seconds": beat.every,
            "seen_at": beat.seen_at,
            "alive": beat.alive,
            "shows": claimed[beat.worker, beat.tick],
        }
        for beats in workers_of(state).values()
        for beat in beats
    ]


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
        "seconds": round(sum(each.seconds for each in row.latest), 6) if last else None,
        "rows_left_adrift": row.rows_left if last else None,
        "core_units_left_adrift": row.core_units_left if last else None,
        "gpus_left_adrift": row.gpus_left if last else None,
        "due": row.is_due,
        "failures": failing.failures if failing else 0,
        "failing_tick": failing.tick if failing else None,
        "error": failing.error if failing else None,
        "retry_at": failing.due_at if failing else None,
    }


def _writer(show: Show) -> str:
    """Who writes the totals, by the facts of OpenCue's releases."""
    if show.managed:
        return "bookings, ticks"
    if show.farm_flag:
        return "scheduler, ticks" if show.rebuilt else "scheduler"
    return "bookings"
