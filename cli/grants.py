"""``retally grants``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally.cli.options import installed
from retally.cli.output import note
from retally.procedures import rights

if TYPE_CHECKING:
    import psycopg


@click.command()
@click.option("--to", "role", required=True, metavar="ROLE", help="The role that gets the rights.")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(rights.PURPOSES),
    default="worker",
    show_default=True,
    help="What the role does: worker (the ticks, and every command but install and uninstall),"
    " dispatcher (books and releases procs), reader (status, drift, doctor).",
)
@click.option("--apply", "now", is_flag=True, help="Execute the statements, in one transaction.")
@installed
def grants(conn: psycopg.Connection, role: str, purpose: str, now: bool) -> None:
    """Print the GRANT statements that are enough for a role, and no more, or execute them.

    What is printed can be fed to psql. It takes the owner of the farm's tables and of the schema
    "retally" to grant all of it. Run it again after an upgrade of retally.

    \b
    Example:
      retally grants --to retally_worker
      retally grants --to cue_scheduler --for dispatcher --apply
    """
    if now:
        rights.grant(conn, role, purpose)
        note(f"role {role} has the rights of a {purpose}")
        return
    for statement in rights.grants(rights.rights(conn, purpose), role):
        click.echo(f"{statement.as_string(conn)};")
    if not rights.role_exists(conn, role):
        note(f"there is no role {role} yet: CREATE ROLE … LOGIN makes it")
