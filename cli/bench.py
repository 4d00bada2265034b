"""``retally bench``: the group, and what its commands share: options, signals and printing."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from rich.table import Table

from retally.bench.style import require_matplotlib
from retally.cli.options import debug_option, need
from retally.cli.output import console

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from retally.bench.admission import Run as AdmissionRun
    from retally.bench.dispatch import Run as DispatchRun
    from retally.bench.recompute import Run as RecomputeRun
    from retally.bench.records import Bar, Place

_Named = TypeVar("_Named")
_Outcome = TypeVar("_Outcome", "AdmissionRun", "DispatchRun", "RecomputeRun")
_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)
_BAR_HEADS = ("bar", "measured", "met")


@click.group()
def bench() -> None:
    """Measure the product beside its alternatives."""


def numbers(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    """The callback of an option that takes numbers above 0, separated by commas."""
    try:
        found = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        found = ()
    if not found or min(found) < 1:
        raise click.BadParameter(f"{value!r} is not a list of numbers above 0, as in 1,4,16")
    return found


def names(
    known: Mapping[str, _Named], what: str
) -> Callable[[click.Context, click.Parameter, str | None], tuple[_Named, ...] | None]:
    """The callback of an option that takes names of ``known``, separated by commas.

    They come in the order of ``known``; None where the option is not given.
    """

    def chosen(
        _ctx: click.Context, _param: click.Parameter, value: str | None
    ) -> tuple[_Named, ...] | None:
        if value is None:
            return None
        asked = [name.strip() for name in value.split(",")]
        if unknown := [name for name in asked if name not in known]:
            raise click.BadParameter(
                f"there is no {what} {unknown[0]!r}; there are {', '.join(known)}"
            )
        return tuple(one for name, one in known.items() if name in asked)

    return chosen


def write_files(
    outcome: _Outcome,
    json_file: Path | None,
    plot_file: Path | None,
    draw: Callable[[_Outcome, Path], None],
) -> None:
    """Write the outcome where ``bench_options`` was told to; ``draw`` makes the plot."""
    if json_file:
        json_file.write_text(as_json(outcome) + "\n", encoding="utf-8")
    if plot_file:
        draw(outcome, plot_file)


def load_options(
    *, clients: Sequence[int], seconds: float, rounds: int, hosts: int, seed: int
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """How many clients book on how many hosts, and for how long: ``--clients`` to ``--seed``.

    The arguments are the defaults.
    """
    options = (
        click.option(
            "--clients",
            callback=numbers,
            default=",".join(map(str, clients)),
            show_default=True,
            metavar="N,N…",
            help="How many clients book at a time.",
        ),
        click.option(
            "--seconds",
            type=click.FloatRange(min=0.1),
            default=seconds,
            show_default=True,
            help="Measured time of each cell.",
        ),
        click.option(
            "--rounds",
            type=click.IntRange(min=1),
            default=rounds,
            show_default=True,
            help="How often everything is measured; medians are reported.",
        ),
        click.option(
            "--hosts", type=click.IntRange(min=1), default=hosts, show_default=True, help="Hosts."
        ),
        click.option(
            "--seed", type=int, default=seed, show_default=True, help="Same seed, same draws."
        ),
    )

    def wrap(command: Callable[..., Any]) -> Callable[..., Any]:
        for option in reversed(options):
            command = option(command)
        return command

    return wrap


def bench_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Where to measure, and what becomes of the outcome: ``--dsn`` to ``--debug``.

    The command gets ``dsn``, ``style``, ``json_file`` and ``plot_file``. Files that could not be
    written after the run are refused before it, and PG… variables are forgotten without --dsn.
    """

    @functools.wraps(command)
    def checked(
        dsn: str | None, json_file: Path | None, plot_file: Path | None, **kwargs: Any
    ) -> Any:
        _check_files(json_file, plot_file)
        if dsn is None:
            for name in [name for name in os.environ if name.startswith("PG")]:
                del os.environ[name]  # they speak of another server
        return command(dsn=dsn, json_file=json_file, plot_file=plot_file, **kwargs)

    wrapped: Callable[..., Any] = debug_option(checked)
    for option in reversed(_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_OPTIONS = (
    click.option(
        "--dsn",
        metavar="DSN",
        help="Measure on this server, in a database of its own that is dropped at the end."
        " RETALLY_DSN is not looked at.  [default: an embedded PostgreSQL, durable, on disk]",
    ),
    click.option(
        "--format",
        "style",
        type=click.Choice(["table", "markdown", "json", "csv"]),
        default="table",
        show_default=True,
        help="How to print; json has every cell, the others medians.",
    ),
    click.option(
        "--json", "json_file", type=_FILE, metavar="FILE", help="Write the JSON here, too."
    ),
    click.option(
        "--plot", "plot_file", type=_FILE, metavar="FILE", help="Draw a plot: a file .svg or .png."
    ),
)


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    """Refuse before the run what could not be written after it."""
    for file in (json_file, plot_file):
        need(file is None or file.parent.is_dir(), f"there is no directory for {file}")
    if plot_file:
        need(plot_file.suffix in {".svg", ".png"}, f"{plot_file} ends neither in .svg nor in .png")
        require_matplotlib()


@contextlib.contextmanager
def stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that the database is dropped."""
    taken = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in taken}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def as_json(outcome: AdmissionRun | DispatchRun | RecomputeRun) -> str:
    """The whole run, every cell of it."""
    return json.dumps(asdict(outcome), indent=2)


def print_tables(
    style: str, heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int
) -> None:
    """Print rows as a table for the terminal or, for the style markdown, for a document.

    Columns from ``numbers_from`` on, counted from 0, are set flush right.
    """
    show = _print_markdown if style == "markdown" else _print_table
    show(heads, rows, numbers_from)
    click.echo()


def print_bars(style: str, bars: Sequence[Bar]) -> None:
    """Print what was promised, and whether this run kept it."""
    met = {True: "yes", False: "NO", None: "-"}
    rows = [[bar.promise, bar.measured, met[bar.met]] for bar in bars]
    print_tables(style, _BAR_HEADS, rows, numbers_from=len(_BAR_HEADS))


def where(place: Place, how: str) -> str:
    """The server, this machine, ``how`` it was measured, and the server's settings."""
    here = f"{place.server}, {place.cpus} CPUs, Python {place.python}; {how}"
    settings = ", ".join(f"{name} {value}" for name, value in place.settings)
    return f"{here}; the server's settings: {settings}" if settings else here


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index >= numbers_from else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console().print(table)


def _print_markdown(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers_from: int) -> None:
    marks = ["---:" if index >= numbers_from else "---" for index in range(len(heads))]
    for row in (heads, marks, *rows):
        click.echo(f"| {' | '.join(row)} |")
