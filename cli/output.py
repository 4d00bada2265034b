"""Tables for people, JSON and CSV for programs; notes go to standard error."""

from __future__ import annotations

import csv
import io
import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: A table of more rows than this helps nobody; JSON and CSV print all of them.
TABLE_ROWS = 500

Row = dict[str, Any]

#: The columns that hold amounts.
NUMBERS = frozenset(
    {
        "stored",
        "booked",
        "drift",
        "before",
        "after",
        "now",
        "rows",
        "cores",
        "gpus",
        "rows_adrift",
        "rows_changed",
        "rows_deferred",
        "rows_failed",
        "adrift",
        "changed",
        "deferred",
        "failed",
        "cores_adrift",
        "core_units_adrift",
        "gpus_adrift",
        "seconds",
    }
)


def cores(core_units: int) -> str:
    """Core units (1/100 core) as cores, two decimals."""
    sign = "-" if core_units < 0 else ""
    whole, hundredths = divmod(abs(core_units), 100)
    return f"{sign}{whole:,}.{hundredths:02d}"


def print_rows(rows: Sequence[Row], style: str, columns: Sequence[str]) -> None:
    """Print rows to standard output in the style table, json or csv."""
    if style == "json":
        click.echo(json.dumps([_plain(row, columns) for row in rows], indent=2))
    elif style == "csv":
        writer = csv.DictWriter(sys.stdout, list(columns), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_csv(row, columns) for row in rows)
    else:
        _print_table(rows, columns)


def counted(number: int, thing: str) -> str:
    """The number and the thing, in the plural unless it is one."""
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def note(text: str) -> None:
    """A line for the person, on standard error, so that standard output stays data."""
    click.echo(text, err=True)


def console() -> Console:
    """Where tables go: standard output, as wide as it needs when it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else 200, highlight=False, markup=False)


def progress(*columns: ProgressColumn) -> Progress:
    """A bar on standard error that goes away when it is done; none where there is no terminal."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *columns,
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )


def print_anything() -> None:
    """Let the standard streams print every name, whatever their encoding: escaped if need be."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _plain(row: Mapping[str, Any], columns: Sequence[str]) -> Row:
    values = {name: row[name] for name in columns}
    return {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in values.items()
    }


def _csv(row: Mapping[str, Any], columns: Sequence[str]) -> Row:
    """As JSON has it; Python's own spelling of a boolean is nobody else's."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in _plain(row, columns).items()
    }


def _print_table(rows: Sequence[Row], columns: Sequence[str]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in columns:
        number = name in NUMBERS
        # a number that is folded in the middle is another number
        table.add_column(
            name.replace("_", " "),
            justify="right" if number else "left",
            no_wrap=number,
            overflow="fold",
        )
    for row in rows[:TABLE_ROWS]:
        table.add_row(*_cells(row[name] for name in columns))
    console().print(table)
    if len(rows) > TABLE_ROWS:
        note(f"… and {len(rows) - TABLE_ROWS:,} more rows; --format csv prints all of them")


def _cells(values: Iterable[Any]) -> list[str]:
    return [_cell(value) for value in values]


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.3f}"
    if isinstance(value, datetime):
        return _time(value.astimezone(UTC))
    return str(value)


def _time(at: datetime) -> str:
    """With the year where it is not the present one."""
    year = "" if at.year == datetime.now(UTC).year else f"{at.year:04d}-"
    return f"{year}{at:%m-%d %H:%M:%S}Z"
