"""``retally journal``."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING

import click

from retally.cli.errors import Exit
from retally.cli.facts import journal_line
from retally.cli.options import chosen_shows, format_option, installed, need, show_option
from retally.cli.output import counted, note, print_rows
from retally.procedures import TOTALS, Show
from retally.procedures.journal import end_journal, journal_state, set_journal
from retally.procedures.rebuild import rebuild
from retally.sql.errors import DatabaseUnreachableError, PermissionDeniedError, RetallyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

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

    Both take the owner of proc, and wait for transactions that are writing procs, a few seconds at
    most, and new ones wait behind. The totals are rebuilt afterwards. Exit code 0 when done, 5 when
    others held proc or rows of totals for too long, 1 for a show that is not managed.

    \b
    Example:
      retally journal --show show1 on
      retally journal --all off
    """
    need(not (names and everything), "--all is every show: leave --show away")
    need(switch is None or names or everything, "which show? add --show NAME, or --all")
    code = Exit.FINE
    if switch is not None:
        shows = chosen_shows(conn, names)
        if switch == "off" and everything:
            code = _end(conn, [show for show in shows if show.journaled])
        else:
            if everything:
                _tell_left(shows)
            code = _switch(conn, [s for s in shows if names or s.managed], on=switch == "on")
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
    done: list[Show] = []
    try:
        # those that are refused come first, so that nothing has changed by then
        for show in sorted(shows, key=lambda show: show.managed):
            with _told_who_may():
                set_journal(conn, show.show_id, on=on)
            done.append(show)
    except DatabaseUnreachableError:
        raise
    except RetallyError:
        # what has come of the others is told first
        with contextlib.suppress(RetallyError):
            _rebuild(conn, done)
        raise
    return _rebuild(conn, done)


def _end(conn: psycopg.Connection, journaled: Sequence[Show]) -> Exit:
    """Take the journal away, what is left of shows that are gone, too, and make the totals true."""
    with _told_who_may():
        end_journal(conn)
    return _rebuild(conn, journaled)


@contextlib.contextmanager
def _told_who_may() -> Iterator[None]:
    try:
        yield
    except PermissionDeniedError as error:
        raise PermissionDeniedError(str(error), _OWNER) from error


def _rebuild(conn: psycopg.Connection, shows: Sequence[Show]) -> Exit:
    names = {show.show_id: show.name for show in shows if show.rebuilt}
    outcome = rebuild(conn, list(names), TOTALS, wait=True)
    for each in outcome.passes:
        for problem in each.problems:
            note(f"note: show {names[each.show_id]}: {problem}")
    for failure in outcome.failures:
        note(f"failed: show {names[failure.show_id]}: {failure.error}")
    if any(not failure.busy for failure in outcome.failures):
        raise RetallyError("some shows could not be rebuilt", "see the lines above")
    busy = bool(outcome.failures) or any(each.rows_deferred for each in outcome.passes)
    return Exit.BUSY if busy else Exit.FINE
