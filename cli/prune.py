"""``retally prune``."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

import click

from retally.cli.errors import Exit
from retally.cli.numbers import Number, WholeNumber
from retally.cli.options import installed
from retally.cli.output import counted, note
from retally.procedures import kept

if TYPE_CHECKING:
    import psycopg

_PAUSE = 0.5  # seconds between two tries while another one prunes


@click.command()
@click.option(
    "--rows",
    type=WholeNumber(1, 10**9),
    default=10_000,
    show_default=True,
    metavar="N",
    help="How many rows of each kind to delete in one transaction, about.",
)
@click.option(
    "--patience",
    type=Number(min=0),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait while a worker, or somebody else, prunes.",
)
@installed
def prune(conn: psycopg.Connection, rows: int, patience: float) -> None:
    """Delete old history and old repairs until none are left.

    What is old is in retally.setting: history_age and ledger_age. What is kept of shows that are
    gone goes, too. The workers do this themselves, little by little; this is for after an age was
    shortened, or where no worker runs. Beside anything else it waits for nothing. Exit code 5 when
    something old is left, because another one prunes or undoes it.

    \b
    Example:
      retally prune
    """
    history_rows = runs = 0
    until = time.monotonic() + patience
    while True:
        done = kept.prune(conn, rows)
        history_rows += done.history_rows
        runs += done.runs
        left = kept.old_is_left(conn)
        if not left or not (done.history_rows or done.runs or time.monotonic() < until):
            break
        if not (done.history_rows or done.runs):
            time.sleep(min(_PAUSE, patience))
    note(f"{counted(history_rows, 'row')} of the history and {counted(runs, 'run')} deleted")
    if left:
        note("something old is left: another session prunes, or undoes a run; run it again")
        sys.exit(Exit.BUSY)
