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
@click.option("--to", "role", required=True, metavar="ROLE", help="The role they are for.")
@click.option(
    "--for",
    "purpose",
    type=click.Choice(rights.PURPOSES),
    default="worker",
    show_default=True,
    help="What the role does: worker (the ticks, and every command but install, uninstall,"
    " simulate, bench and farm),"
    " dispatcher (books and releases procs), reader (status, drift, doctor).",
)
@click.option(
    "--revoke",
    "back",
    is_flag=True,
    help="Take back instead what the role was granted of these rights: REVOKE.",
)
@click.option("--apply", "now", is_flag=True, help="Execute the statements, in one transaction.")
@installed
def grants(conn: psycopg.Connection, role: str, purpose: str, back: bool, now: bool) -> None:
    """Print the GRANT statements that are enough for a role, and no more, or execute them.

    What is printed can be fed to psql. It takes the owner of the farm's tables and of the schema
    "retally" to grant all of it. Run it again after an upgrade of retally.

    --revoke, with the same --for, takes them back: do it before `retally uninstall`, as what is
    granted on the farm's own tables stays, and a role that holds it cannot be dropped. What it had
    been granted by others in the same words goes too; for what it also does, grant again.

    \b
    Example:
      retally grants --to retally_worker
      retally grants --to cue_scheduler --for dispatcher --apply
      retally grants --to cue_scheduler --for dispatcher --revoke --apply
    """
    if back:
        _revoke(conn, role, purpose, now=now)
        return
    if now:
        rights.grant(conn, role, purpose)
        note(f"role {role} has the rights of a {purpose}")
        return
    for statement in rights.grants(rights.rights(conn, purpose), role):
        click.echo(f"{statement.as_string(conn)};")
    if not rights.role_exists(conn, role):
        note(f"there is no role {role} yet: CREATE ROLE … LOGIN makes it")


def _revoke(conn: psycopg.Connection, role: str, purpose: str, *, now: bool) -> None:
    granted = rights.held(conn, [purpose], role).get(role, [])
    if not granted:
        note(f"role {role} was granted none of the rights of a {purpose}: nothing to do")
    elif now:
        rights.revoke(conn, role, purpose)
        note(f"role {role} has no right of a {purpose} any more that was granted to it by name")
    else:
        for statement in rights.revokes(granted, role):
            click.echo(f"{statement.as_string(conn)};")
