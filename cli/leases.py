"""``retally leases``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally.cli.options import format_option, installed
from retally.cli.output import note, print_rows
from retally.procedures import admission

if TYPE_CHECKING:
    import psycopg

_COLUMNS = ("show", "show_id", "holder", "live", "taken_at", "expires_at", "wanted_by", "token")
_TABLE = ("show", "holder", "live", "taken_at", "expires_at", "wanted_by")


@click.command()
@click.option(
    "--end", "show", metavar="SHOW", help="End the lease of this show, by name or id, first."
)
@format_option
@installed
def leases(conn: psycopg.Connection, show: str | None, style: str) -> None:
    """Show which dispatcher serves which show, and counts its caps.

    A lease that is not live has ended without being given up, as after a crash: the next dispatcher
    that books takes the show. Until then the show's bookings are refused, also those of a scheduler
    that keeps no caps. To go back to such a one for good, end the lease.

    \b
    Example:
      retally leases
      retally leases --end show1
    """
    if show is not None:
        admission.end_lease(conn, show)
        note(f"nobody serves show {show} now, until a dispatcher takes it")
    rows = [
        {
            "show": lease.name or lease.show_id,
            "show_id": lease.show_id,
            "holder": lease.holder,
            "live": lease.live,
            "taken_at": lease.taken_at,
            "expires_at": lease.expires_at,
            "wanted_by": lease.wanted_by,
            "token": lease.token,
        }
        for lease in admission.leases(conn)
    ]
    if style == "table" and not rows:
        note("no show is served by a dispatcher that keeps its caps")
        return
    print_rows(rows, style, _TABLE if style == "table" else _COLUMNS)
