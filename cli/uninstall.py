"""``retally uninstall``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally import procedures
from retally.cli.options import database, need

if TYPE_CHECKING:
    import psycopg


@click.command()
@click.option("--yes", is_flag=True, help="Really do it.")
@database
def uninstall(conn: psycopg.Connection, yes: bool) -> None:
    """Take retally out of the database; the farm stays as it was.

    Drops the schema "retally" with its flags and records. Nothing else was ever added. Managed
    shows are rebuilt first, once the bookings in flight are done, so that Cuebot counts on from
    totals that are true.

    \b
    Example:
      retally uninstall --yes
    """
    need(yes, "this drops the schema retally with its flags and records: add --yes")
    if procedures.uninstall(conn):
        click.echo(f"retally is out of database {conn.info.dbname}")
    else:
        click.echo(f"retally is not installed in database {conn.info.dbname}: nothing to do")
