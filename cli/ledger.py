"""``retally ledger``."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import click

from retally.cli.numbers import WholeNumber
from retally.cli.options import chosen_shows, format_option, installed, show_option, total_option
from retally.cli.output import TABLE_ROWS, Row, cores, note, print_rows
from retally.procedures import ledger as book

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

_COLUMNS = (
    "run",
    "changed_at",
    "show",
    "show_id",
    "total",
    "name",
    "key",
    "slot",
    "before",
    "after",
    "cause",
    "asked_by",
    "worker",
    "forced",
    "undoes",
)
_RUN_COLUMNS = (
    "run",
    "begun_at",
    "worker",
    "asked_by",
    "shows",
    "rows",
    "core_units",
    "gpus",
    "forced",
    "undoes",
)
# What fits a terminal of 100 columns; the keys are in JSON and CSV.
_TABLE = (
    "run",
    "changed_at",
    "show",
    "total",
    "name",
    "slot",
    "before",
    "after",
    "cause",
    "asked_by",
)
_RUN_TABLE = ("run", "begun_at", "asked_by", "worker", "shows", "rows", "cores", "gpus", "notes")

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def _since(_: click.Context, __: click.Parameter, value: str | None) -> datetime | None:
    """A time, or how long ago: 90m, 3h, 2d. Without an offset it is in UTC, as in the tables."""
    if value is None:
        return None
    ago = re.fullmatch(r"([0-9]+)([smhdw])", value)
    try:
        if ago:
            return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
        time = datetime.fromisoformat(value)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{value!r} is neither a time (2026-03-01T12:00) nor an age (90m, 3h, 2d)"
        ) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


@click.command()
@show_option("Only this show, by name or id; may be given several times.")
@total_option
@click.option("--run", type=WholeNumber(1, 2**63 - 1), metavar="N", help="Only this run.")
@click.option(
    "--since",
    callback=_since,
    metavar="TIME|AGE",
    help="Only what was changed since then: 2026-03-01T12:00 (UTC, unless it has an offset), or"
    " 90m, 3h, 2d ago.",
)
@click.option("--limit", type=WholeNumber(1, 2**31 - 1), metavar="N", help="Only the latest N.")
@click.option("--runs", "only_runs", is_flag=True, help="One line for each run.")
@format_option
@installed
def ledger(
    conn: psycopg.Connection,
    names: Sequence[str],
    totals: Sequence[str],
    run: int | None,
    since: datetime | None,
    limit: int | None,
    only_runs: bool,
    style: str,
) -> None:
    """Show what repairs of unmanaged shows have changed, the latest first. Reads only.

    One row per slot: before and after, what had made it wrong, where the pattern tells, and what
    asked for it; JSON and CSV have the keys, too. With --runs, what each run has changed in all,
    summed over the totals. Old runs are pruned, see retally.setting.ledger_age.

    \b
    Example:
      retally ledger --show show1 --since 3h
      retally ledger --run 12 --format csv
      retally ledger --runs
    """
    filters = book.Filters(
        shows=[show.show_id for show in chosen_shows(conn, names)] if names else (),
        totals=totals,
        run=run,
        since=since,
        # one more than a table shows tells whether there is more
        limit=limit or (TABLE_ROWS + 1 if style == "table" else None),
    )
    if only_runs:
        rows = [_run_row(each, style) for each in book.runs(conn, filters)]
        _print(rows, style, _RUN_COLUMNS, _RUN_TABLE, limit)
    else:
        rows = [_entry_row(each, style) for each in book.ledger(conn, filters)]
        _print(rows, style, _COLUMNS, _TABLE, limit)


def _print(
    rows: Sequence[Row],
    style: str,
    columns: Sequence[str],
    table: Sequence[str],
    limit: int | None,
) -> None:
    if style != "table":
        print_rows(rows, style, columns)
    elif not rows:
        note("nothing was repaired, as far as is kept and asked for")
    elif limit is None and len(rows) > TABLE_ROWS:
        print_rows(rows[:TABLE_ROWS], style, table)
        note("… and more; --limit N or --format csv print them")
    else:
        print_rows(rows, style, table)


def _entry_row(entry: book.Entry, style: str) -> Row:
    row = {name: getattr(entry, name) for name in _COLUMNS}
    if style == "table":
        row["run"] = str(entry.run)
        row["show"] = entry.show or entry.show_id
        row["asked_by"] = _asked_by(entry)
        if entry.slot.endswith("cores"):
            row |= {"before": cores(entry.before), "after": cores(entry.after)}
    return row


def _asked_by(entry: book.Entry) -> str:
    """In few columns; --runs has it in full."""
    if entry.undoes is not None:
        return f"undo of {entry.undoes}"
    return entry.asked_by.removeprefix("retally ") + (", forced" if entry.forced else "")


def _run_row(run: book.Run, style: str) -> Row:
    row = {name: getattr(run, name) for name in _RUN_COLUMNS}
    if style == "csv":
        row["shows"] = " ".join(run.shows)
    elif style == "table":
        row |= {
            "run": str(run.run),
            "shows": _several(run.shows),
            "cores": cores(run.core_units),
            "notes": "forced" if run.forced else None,
        }
    return row


def _several(shows: Sequence[str]) -> str:
    """All of a few names, or the first of many."""
    return ", ".join(shows) if len(shows) <= 3 else f"{shows[0]} and {len(shows) - 1} more"
