"""``retally managed``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally.cli.options import chosen_shows, format_option, installed, need, show_option
from retally.cli.output import note, print_rows
from retally.procedures import Show, routines

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = ("show", "managed", "farm_flag", "rebuilt_by_ticks")


@click.command()
@show_option("This show, by name or id; may be given several times. Default: all, to tell.")
@click.argument("switch", required=False, type=click.Choice(["on", "off"]))
@format_option
@installed
def managed(conn: psycopg.Connection, names: Sequence[str], switch: str | None, style: str) -> None:
    """Tell or set whether a show is managed.

    The ticks rebuild a managed show's totals; Cuebot's bookings go on as before. The flip rebuilds
    them in its own transaction. The farm's own flag (show.b_scheduler_managed) is
    read and never written; "-" means that this farm has no such column.

    \b
    Example:
      retally managed --show show1 on
    """
    need(switch is None or names, "which show? add --show NAME")
    if switch is not None:
        for show in chosen_shows(conn, names):
            for problem in routines.set_managed(conn, show.show_id, managed=switch == "on"):
                note(f"note: show {show.name}: {problem}")
    print_rows([_row(show) for show in chosen_shows(conn, names)], style, _COLUMNS)


def _row(show: Show) -> dict[str, object]:
    return {
        "show": show.name,
        "managed": show.managed,
        "farm_flag": show.farm_flag,
        "rebuilt_by_ticks": show.rebuilt,
    }
