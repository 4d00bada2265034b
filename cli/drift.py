"""``retally drift``."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click
from psycopg import IsolationLevel

from retally.cli.errors import Exit
from retally.cli.facts import entries
from retally.cli.options import (
    chosen_shows,
    chosen_totals,
    format_option,
    installed,
    show_option,
    total_option,
)
from retally.cli.output import Row, cores, counted, note, print_rows
from retally.procedures import Drift, routines
from retally.procedures.journal import waiting

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = ("show", "total", "name", "key", "slot", "stored", "booked", "drift")


@click.command()
@show_option("Only this show, by name or id; may be given several times.")
@total_option
@format_option
@installed
def drift(
    conn: psycopg.Connection, names: Sequence[str], totals: Sequence[str], style: str
) -> None:
    """Show where the totals are not what the procs say. Reads only.

    One row per slot that differs: stored is the total's row, booked is the sum of its procs,
    drift is the one minus the other. Exit code 0 when there is no drift, 3 when there is. A
    journaled show differs by what is not folded yet, too: what its ticks are about to add.

    \b
    Example:
      retally drift --show show1 --total subscription --format csv
    """
    found = _read(conn, names, chosen_totals(totals))
    if found or style != "table":
        print_rows([_row(item, style) for item in found], style, _COLUMNS)
    slots = counted(len(found), "slot")
    rows = counted(len({(item.show, item.total, item.key) for item in found}), "row")
    shows = counted(len({item.show for item in found}), "show")
    note(f"adrift: {slots} in {rows} of {shows}" if found else "no drift")
    sys.exit(Exit.DRIFT if found else Exit.FINE)


def _read(conn: psycopg.Connection, names: Sequence[str], totals: Sequence[str]) -> list[Drift]:
    # one snapshot for both questions; the read-only transaction is the promise in the help text
    conn.isolation_level = IsolationLevel.REPEATABLE_READ
    conn.read_only = True
    with conn.transaction():
        ids = [show.show_id for show in chosen_shows(conn, names)]
        for orphan in routines.orphans(conn):
            if not names or orphan.show_id in ids:
                note(f"note: proc {orphan.proc_id} is in no total of its kind: {orphan.reason}")
        found = routines.drift(conn, ids, totals)
        if number := waiting(conn, ids) if found else 0:
            note(f"note: {entries(number)} of the journal to fold: what is owed is told as drift")
        return found


def _row(item: Drift, style: str) -> Row:
    amounts: Row = {"stored": item.stored, "booked": item.booked, "drift": item.drift}
    if style == "table" and item.slot.endswith("cores"):
        amounts = {name: None if n is None else cores(n) for name, n in amounts.items()}
    return {
        "show": item.show,
        "total": item.total,
        "name": item.name,
        "key": item.key,
        "slot": item.slot,
        **amounts,
    }
