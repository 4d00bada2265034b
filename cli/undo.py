"""``retally undo``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from retally.cli.errors import Exit
from retally.cli.numbers import WholeNumber
from retally.cli.options import format_option, installed
from retally.cli.output import Row, cores, counted, note, print_rows
from retally.procedures import Show, repairs, routines

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from retally.procedures.repairs import Restorable, Undone

_COLUMNS = (
    "show",
    "show_id",
    "total",
    "name",
    "key",
    "slot",
    "before",
    "after",
    "now",
    "restorable",
)
_TABLE = ("show", "total", "name", "slot", "before", "after", "now", "restorable")


@click.command()
@click.argument("run", type=WholeNumber(1))
@click.option("--dry-run", is_flag=True, help="Only tell what would be put back; write nothing.")
@format_option
@installed
def undo(conn: psycopg.Connection, run: int, dry_run: bool, style: str) -> None:
    """Put back what a repair changed: RUN is its number, see `retally ledger --runs`.

    A row is put back where it still holds what the repair wrote; one that a booking or another
    repair has changed since is kept as it is. Each show is a transaction of its own. The undo is
    itself a run, and can be undone. A show that is managed is not put back: exit code 1. Exit code
    5 when rows, or a show, stayed busy: undo RUN again.

    \b
    Example:
      retally undo 12 --dry-run
      retally undo 12
    """
    show_ids = repairs.run_show_ids(conn, run)
    shows = {show.show_id: show for show in routines.shows(conn)}
    concerned = [shows[show_id] for show_id in show_ids if show_id in shows]
    if dry_run:
        _tell(repairs.restorable(conn, run), style)
        _warn(concerned, dry_run=True)
        return
    undone = repairs.undo(conn, run)
    if undone.rows_restored:
        _warn(concerned, dry_run=False)
    sys.exit(_report(undone, run, shows, style))


def _warn(shows: Sequence[Show], *, dry_run: bool) -> None:
    """Where the ticks write themselves, an undo does not last, or is not done at all."""
    for show in shows:
        if show.rebuilt:
            if dry_run:  # otherwise the undo says so itself
                note(f"note: show {show.name} is managed: it would not be put back")
        elif show.mode == "repair":
            note(
                f"note: show {show.name} is in mode repair: its next tick repairs it again;"
                f" `retally unmanaged --show {show.name} watch` keeps it from that"
            )


def _tell(found: Sequence[Restorable], style: str) -> None:
    print_rows(
        [_row(each, style) for each in found], style, _COLUMNS if style != "table" else _TABLE
    )
    restored = len({(e.show_id, e.total, e.key) for e in found if e.restorable})
    kept = len({(e.show_id, e.total, e.key) for e in found if not e.restorable})
    note(
        f"{counted(restored, 'row')} would be put back, {kept:,} kept (changed since, gone, or"
        " managed); nothing written (--dry-run)"
    )


def _row(each: Restorable, style: str) -> Row:
    row = {name: getattr(each, name) for name in _COLUMNS}
    if style == "table":
        row["show"] = each.show or each.show_id
        if each.slot.endswith("cores"):
            amounts = {"before": each.before, "after": each.after, "now": each.now}
            row |= {name: None if n is None else cores(n) for name, n in amounts.items()}
    return row


def _report(undone: Undone, run: int, shows: Mapping[str, Show], style: str) -> Exit:
    if style != "table":
        columns = (
            "run",
            "undoes",
            "rows_restored",
            "rows_kept",
            "rows_deferred",
            "shows_busy",
            "shows_refused",
        )
        row: Row = {
            "run": undone.run,
            "undoes": run,
            "rows_restored": undone.rows_restored,
            "rows_kept": undone.rows_kept,
            "rows_deferred": undone.rows_deferred,
            "shows_busy": len(undone.shows_busy),
            "shows_refused": len(undone.refusals),
        }
        print_rows([row], style, columns)
    for problem in undone.problems:
        note(f"note: {problem}")
    for show_id in undone.shows_busy:
        name = shows[show_id].name if show_id in shows else show_id
        note(f"not done: show {name}: another session is rebuilding its totals")
    for error in undone.refusals:
        note(f"not done: {error} ({error.hint})")
    note(
        f"{counted(undone.rows_restored, 'row')} put back, {undone.rows_kept:,} kept"
        f" (changed since, or gone), {undone.rows_deferred:,} left because busy"
    )
    if undone.run is not None:
        note(f"run {undone.run}: `retally undo {undone.run}` takes this undo back")
    if undone.refusals:
        return Exit.ERROR
    return Exit.BUSY if undone.rows_deferred or undone.shows_busy else Exit.FINE
