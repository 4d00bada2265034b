"""``retally install``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally import procedures
from retally.cli.options import database

if TYPE_CHECKING:
    import psycopg


@click.command()
@database
def install(conn: psycopg.Connection) -> None:
    """Put retally's schema and routines into the farm's database.

    Everything goes into the schema "retally"; the farm's own tables are left alone. Running it
    again brings an older install up to date, and changes nothing when it is.

    \b
    Example:
      retally install --dsn postgresql://cue@db.example/cuebot
    """
    done = procedures.install(conn)
    applied = ", ".join(done.migrations) or "none needed"
    click.echo(
        f"retally is installed in database {conn.info.dbname}: schema version {done.version}, "
        f"{done.routines} routines; migrations applied: {applied}"
    )
