"""``retally managed``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from retally.cli.errors import Exit
from retally.cli.options import chosen_shows, format_option, installed, need, show_option
from retally.cli.output import counted, note, print_rows
from retally.procedures import OVERRIDES, Show, routines

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = ("show", "managed", "farm_flag", "rebuilt_by_ticks")


@click.command()
@show_option("This show, by name or id; may be given several times. Default: all, to tell.")
@click.option(
    "--override",
    type=click.Choice(OVERRIDES),
    help="For every show of the farm: all of them managed, none, or each by its own flag.",
)
@click.argument("switch", required=False, type=click.Choice(["on", "off"]))
@format_option
@installed
def managed(
    conn: psycopg.Connection,
    names: Sequence[str],
    override: str | None,
    switch: str | None,
    style: str,
) -> None:
    """Tell or set whether a show is managed.

    The ticks rebuild a managed show's totals, and a booking through retally leaves them alone;
    Cuebot's bookings go on as before. A flip waits for bookings in flight and rebuilds the totals
    in its own transaction. The farm's own flag (show.b_scheduler_managed) is read and never
    written; "-" means that this farm has no such column.

    \b
    Example:
      retally managed --show show1 on
      retally managed --override none
    """
    need(override is None or not (names or switch), "--override is for every show, by itself")
    need(switch is None or names, "which show? add --show NAME")
    left = _set_override(conn, override) if override is not None else 0
    if switch is not None:
        for show in chosen_shows(conn, names):
            for problem in routines.set_managed(conn, show.show_id, managed=switch == "on"):
                note(f"note: show {show.name}: {problem}")
    in_force = routines.override(conn)
    if in_force != "per-show":
        note(
            f"override {in_force}: the shows' own flags wait for"
            " `retally managed --override per-show`"
        )
    print_rows([_row(show) for show in chosen_shows(conn, names)], style, _COLUMNS)
    if left:
        sys.exit(Exit.BUSY)


def _set_override(conn: psycopg.Connection, override: str) -> int:
    """Set it, and answer with the number of shows that could not be flipped now."""
    done = routines.set_override(conn, override)
    for problem in done.problems:
        note(f"note: {problem}")
    note(f"{counted(done.shows, 'show')} flipped")
    if done.shows_left:
        note(f"not flipped: {counted(done.shows_left, 'show')}; run it again")
    return done.shows_left


def _row(show: Show) -> dict[str, object]:
    return {
        "show": show.name,
        "managed": show.managed,
        "farm_flag": show.farm_flag,
        "rebuilt_by_ticks": show.rebuilt,
    }
