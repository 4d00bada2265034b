"""``retally journal``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from retally.cli.errors import Exit
from retally.cli.facts import journal_line
from retally.cli.options import chosen_shows, format_option, installed, need, show_option
from retally.cli.output import counted, note, print_rows
from retally.procedures import TOTALS, Show
from retally.procedures.journal import journal_state, set_journal
from retally.procedures.rebuild import rebuild
from retally.sql.errors import PermissionDeniedError, RetallyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = ("show", "managed", "journaled")
_OWNER = "it puts triggers on the farm's table proc: connect as its owner"


@click.command()
@show_option("This show, by name or id; may be given several times. Default: all, to tell.")
@click.option("--all", "everything", is_flag=True, help="Every managed show; off: every show.")
@click.argument("switch", required=False, type=click.Choice(["on", "off"]))
@format_option
@installed
def journal(
    conn: psycopg.Connection,
    names: Sequence[str],
    everything: bool,
    switch: str | None,
    style: str,
) -> None:
    """Tell or set which managed shows are journaled.

    Triggers on the farm's table proc append what a journaled show's procs book and release to a
    journal, which the ticks fold into its totals: they cost what has changed, not what there is. A
    full pass is still made now and then (the worker's --journal-audit). For shows whose totals
    nobody else adds to. `off` for the last show takes the triggers away.

    Both wait for transactions that are writing procs, a few seconds at most, and new ones wait
    behind; exit code 5 when they took longer. The totals are rebuilt afterwards.

    \b
    Example:
      retally journal --show show1 on
      retally journal --all off
    """
    need(not (names and everything), "--all is every show: leave --show away")
    need(switch is None or names or everything, "which show? add --show NAME, or --all")
    code = Exit.FINE
    if switch is not None:
        shows = [s for s in chosen_shows(conn, names) if names or s.managed or switch == "off"]
        if everything and switch == "on":
            _tell_left(chosen_shows(conn, ()))
        code = _switch(conn, shows, on=switch == "on")
    rows = [
        {"show": show.name, "managed": show.managed, "journaled": show.journaled}
        for show in chosen_shows(conn, names)
    ]
    print_rows(rows, style, _COLUMNS)
    note(f"journal: {journal_line(chosen_shows(conn, ()), journal_state(conn))}")
    if code:
        sys.exit(code)


def _tell_left(shows: Sequence[Show]) -> None:
    if left := [show for show in shows if not show.managed]:
        note(f"left, as they are not managed: {counted(len(left), 'show')}")


def _switch(conn: psycopg.Connection, shows: Sequence[Show], *, on: bool) -> Exit:
    """Set it, and make the totals true: nobody else has counted what came before, or was left."""
    try:
        for show in shows:
            set_journal(conn, show.show_id, on=on)
    except PermissionDeniedError as error:
        raise PermissionDeniedError(str(error), _OWNER) from error
    rebuilt = [show for show in shows if show.rebuilt]
    outcome = rebuild(conn, [show.show_id for show in rebuilt], TOTALS, wait=True)
    names = {show.show_id: show.name for show in rebuilt}
    for failure in outcome.failures:
        note(f"failed: show {names[failure.show_id]}: {failure.error}")
    if any(not failure.busy for failure in outcome.failures):
        raise RetallyError("some shows could not be rebuilt", "see the lines above")
    busy = bool(outcome.failures) or any(each.rows_deferred for each in outcome.passes)
    return Exit.BUSY if busy else Exit.FINE
