"""``retally uninstall``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally import procedures
from retally.cli.options import database, need
from retally.cli.output import note
from retally.procedures import rights, served
from retally.sql.errors import RetallyError
from retally.sql.migrate import require_current

if TYPE_CHECKING:
    import psycopg

    from retally.procedures.rights import Right


@click.command()
@click.option("--yes", is_flag=True, help="Really do it.")
@database
def uninstall(conn: psycopg.Connection, yes: bool) -> None:
    """Take retally out of the database; the farm's tables stay as they were.

    Drops the schema "retally" with its flags and records, and the triggers of `retally journal`.
    Nothing else was ever added. Managed shows are rebuilt first, once the bookings in flight are
    done, so that Cuebot counts on from totals that are true.

    Stop the workers first. What roles were granted on the farm's own tables stays granted: take it
    back before, by `retally grants --to ROLE --for PURPOSE --revoke --apply`. What is left of it is
    told, with the REVOKE statements.

    \b
    Example:
      retally uninstall --yes
    """
    need(yes, "this drops the schema retally with its flags and records: add --yes")
    workers, left = _before(conn)
    if workers:
        note(f"note: still running, and of no use from now on: {', '.join(workers)}")
    if not procedures.uninstall(conn):
        click.echo(f"retally is not installed in database {conn.info.dbname}: nothing to do")
        return
    click.echo(f"retally is out of database {conn.info.dbname}")
    for role, granted in left.items():
        note(f"note: role {role} keeps rights on the farm's tables; these take them back:")
        for statement in rights.revokes(granted, role):
            note(f"{statement.as_string(conn)};")


def _before(conn: psycopg.Connection) -> tuple[list[str], dict[str, list[Right]]]:
    """The live workers, and what roles were granted outside of our schema."""
    try:
        require_current(conn)
        workers, held = served.live_workers(conn), rights.held(conn)
    except RetallyError:
        return [], {}  # an older install cannot tell, and is no less to be dropped
    outside = {
        role: [right for right in granted if right.object.split(".")[0] != "retally"]
        for role, granted in held.items()
    }
    return workers, {role: granted for role, granted in outside.items() if granted}
