"""What ``retally status`` tells of versions, the farm and the flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.rows import class_row

from retally.cli.output import counted
from retally.procedures import routines
from retally.procedures.journal import TRIGGERS
from retally.sql.errors import translated
from retally.sql.migrate import known_version, schema_version

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

    from retally.procedures import Show
    from retally.procedures.journal import JournalState


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


def farm(conn: psycopg.Connection) -> Farm:
    """What there is to be known of it without reading its rows."""
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


def versions(conn: psycopg.Connection) -> str:
    """The version of the schema there, beside this program's where that is another one."""
    there = schema_version(conn)
    if there is None:
        return "none (not installed)"
    return str(there) if there == known_version() else f"{there} (program: {known_version()})"


def described(found: Farm) -> str:
    """The farm in one line."""
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


def flags(conn: psycopg.Connection) -> str:
    """Which flags of the shows are in force."""
    with translated():
        row = conn.execute("SELECT s.follow_farm_flag FROM retally.setting AS s").fetchone()
    farm = "the farm's own is followed" if row and row[0] else "the farm's own is ignored"
    in_force = routines.override(conn)
    ours = "per show" if in_force == "per-show" else f"override {in_force}"
    return f"retally's {ours}; {farm}"


def journal_line(shows: Sequence[Show], state: JournalState) -> str:
    """How the journal stands: who is journaled, the triggers on proc, what waits to be folded."""
    journaled = sum(show.journaled for show in shows)
    if not journaled and not state.triggers + state.idle:
        return "off"
    if not journaled:
        return "off, but its triggers are on proc: `retally journal --all off` takes them away"
    triggers = (
        "triggers on proc"
        if state.triggers >= TRIGGERS
        else f"only {state.triggers} of {TRIGGERS} triggers on proc (see `retally doctor`)"
    )
    return f"{counted(journaled, 'show')}, {triggers}, {entries(state.entries)} to fold"


def entries(number: int) -> str:
    """The number of entries of the journal."""
    return "1 entry" if number == 1 else f"{number:,} entries"
