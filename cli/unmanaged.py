"""``retally unmanaged``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally.cli.options import chosen_shows, format_option, installed, need, show_option
from retally.cli.output import note, print_rows
from retally.procedures import MODES, Show, routines
from retally.worker.settings import SettingError, read

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = ("show", "mode", "rebuilt_by_ticks", "in_force")


@click.command()
@show_option("This show, by name or id; may be given several times. Default: all, to tell.")
@click.option("--all", "everything", is_flag=True, help="Every show of the farm.")
@click.argument("switch", required=False, type=click.Choice([*MODES, "default"]))
@format_option
@installed
def unmanaged(
    conn: psycopg.Connection,
    names: Sequence[str],
    everything: bool,
    switch: str | None,
    style: str,
) -> None:
    """Tell or set what the ticks do with a show while it is unmanaged.

    off: nothing. watch: drift is found and told. repair: drift is repaired, with a ledger and
    within limits. default: as the worker's setting `unmanaged` says. A managed show is rebuilt,
    a journaled one folded, whatever its mode. In force is what a worker with the settings of this
    command would do.

    \b
    Example:
      retally unmanaged --show show1 repair
      retally unmanaged --all watch
      retally unmanaged
    """
    need(not (names and everything), "--all is every show: leave --show away")
    need(switch is None or names or everything, "which show? add --show NAME, or --all")
    if switch is not None:
        for show in chosen_shows(conn, names):
            routines.set_mode(conn, show.show_id, None if switch == "default" else switch)
        if everything and switch != "default":
            note("a show that is made later is not among them: it is as the workers' settings say")
    default = _default()
    rows = [_row(show, default) for show in chosen_shows(conn, names)]
    print_rows(rows, style, _COLUMNS)
    if default is not None:
        note(f"default, by the settings here: {default}; a worker may have others")


def _default() -> str | None:
    """What the settings say; None where they cannot be read: a mode can be set in any case."""
    try:
        return read(config=click.get_current_context().params["config"]).worker.unmanaged
    except SettingError as error:
        note(f"note: what is the default is not known: {error}")
        return None


def _row(show: Show, default: str | None) -> dict[str, object]:
    return {
        "show": show.name,
        "mode": show.mode or "default",
        "rebuilt_by_ticks": show.rebuilt,
        "in_force": _in_force(show, default),
    }


def _in_force(show: Show, default: str | None) -> str | None:
    if show.journaled:
        return "folded"
    return "rebuilt" if show.rebuilt else show.mode or default
