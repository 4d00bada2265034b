"""``retally status``."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import click
from psycopg.rows import class_row

from retally.cli.options import database, format_option
from retally.cli.output import Row, print_rows
from retally.procedures import LastPass, Show, routines
from retally.sql.errors import translated
from retally.sql.migrate import known_version, require_current, schema_version

if TYPE_CHECKING:
    import psycopg

_COLUMNS = (
    "show",
    "managed",
    "farm_flag",
    "written_by",
    "last_pass",
    "rows_adrift",
    "rows_changed",
    "rows_deferred",
    "rows_failed",
    "seconds",
)


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


# What fits a terminal of 80 columns; `retally managed` tells the flags.
_TABLE = {
    "show": "show",
    "written_by": "written_by",
    "last_pass": "last_pass",
    "rows_adrift": "adrift",
    "rows_changed": "changed",
    "rows_deferred": "deferred",
    "rows_failed": "failed",
}


@click.command()
@format_option
@database
def status(conn: psycopg.Connection, style: str) -> None:
    """Tell versions, the farm that was found, who writes each show's totals, and the last passes.

    Written by: bookings, each increments the totals (or, through retally, leaves them alone);
    scheduler, the farm's own for shows that it flags; ticks, retally's.

    \b
    Example:
      retally status
      retally status --format json
    """
    found = _farm(conn)
    if style == "table":
        click.echo(f"retally     {version('retally')}, schema version {_versions(conn)}")
        click.echo(f"PostgreSQL  {found.server}, database {conn.info.dbname}")
        click.echo(f"farm        {_described(found)}")
    require_current(conn)
    if style == "table":
        click.echo(f"flags       {_flags(conn)}\n")
    rows = _rows(routines.shows(conn), routines.last_passes(conn))
    if style == "table":
        rows = [{short: row[name] for name, short in _TABLE.items()} for row in rows]
        print_rows(rows, style, tuple(_TABLE.values()))
    else:
        print_rows(rows, style, _COLUMNS)


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


def _rows(shows: list[Show], passes: list[LastPass]) -> list[Row]:
    return [_row(show, [p for p in passes if p.show_id == show.show_id]) for show in shows]


def _row(show: Show, passes: list[LastPass]) -> Row:
    return {
        "show": show.name,
        "managed": show.managed,
        "farm_flag": show.farm_flag,
        "written_by": _writer(show),
        "last_pass": max((p.finished_at for p in passes), default=None),
        "rows_adrift": sum(p.rows_adrift for p in passes) if passes else None,
        "rows_changed": sum(p.rows_changed for p in passes) if passes else None,
        "rows_deferred": sum(p.rows_deferred for p in passes) if passes else None,
        "rows_failed": sum(p.rows_failed for p in passes) if passes else None,
        "seconds": round(sum(p.seconds for p in passes), 6) if passes else None,
    }


def _writer(show: Show) -> str:
    """Who writes the totals, by the facts of OpenCue's releases."""
    if show.managed:
        return "bookings, ticks"
    if show.farm_flag:
        return "scheduler, ticks" if show.rebuilt else "scheduler"
    return "bookings"
