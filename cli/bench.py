"""``retally bench dispatch``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from retally.bench.dispatch import run
from retally.bench.plot import draw, require_matplotlib
from retally.bench.records import Plan
from retally.cli.options import debug_option, need
from retally.cli.output import Row, console, note, print_rows, progress

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retally.bench.records import Bar, Line, Run, Spec

_PLAN = Plan()
_COLUMNS = ("what", "clients", "per_second", "flag_on_times", "p50_ms", "p99_ms", "deadlocks")
_HEADS = ("what", "clients", "procs/s", "flag on is", "p50 ms", "p99 ms", "deadlocks", "errors")
_BAR_HEADS = ("bar", "measured", "met")
_FILE = click.Path(dir_okay=False, writable=True, path_type=Path)


@click.group()
def bench() -> None:
    """Measure the product beside its alternatives."""


def _numbers(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    try:
        numbers = tuple(dict.fromkeys(int(part) for part in value.split(",")))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1:
        raise click.BadParameter(f"{value!r} is not a list of numbers above 0, as in 1,4,16")
    return numbers


@bench.command()
@click.option(
    "--clients",
    callback=_numbers,
    default=",".join(map(str, _PLAN.clients)),
    show_default=True,
    metavar="N,N…",
    help="How many clients book at a time.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0.1),
    default=_PLAN.seconds,
    show_default=True,
    help="Measured time of each cell.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=_PLAN.rounds,
    show_default=True,
    help="How often everything is measured; medians are reported.",
)
@click.option(
    "--hosts", type=click.IntRange(min=1), default=_PLAN.hosts, show_default=True, help="Hosts."
)
@click.option(
    "--seed", type=int, default=_PLAN.seed, show_default=True, help="Same seed, same draws."
)
@click.option(
    "--dsn",
    metavar="DSN",
    help="Measure on this server, in a database of its own that is dropped at the end. RETALLY_DSN"
    " is not looked at.  [default: an embedded PostgreSQL, durable, on disk]",
)
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "markdown", "json", "csv"]),
    default="table",
    show_default=True,
    help="How to print; json has every cell, the others medians.",
)
@click.option("--json", "json_file", type=_FILE, metavar="FILE", help="Write the JSON here, too.")
@click.option(
    "--plot", "plot_file", type=_FILE, metavar="FILE", help="Draw a plot: a file .svg or .png."
)
@debug_option
def dispatch(
    clients: tuple[int, ...],
    seconds: float,
    rounds: int,
    hosts: int,
    seed: int,
    dsn: str | None,
    style: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """Bookings through retally, beside the inline path and the bare statements.

    All clients book on one subscription of one show. flag on and flag off: one call of book_proc
    each. Bare statements: INSERT proc and UPDATE host, nothing else. Inline: those two and the
    five totals. Both send BEGIN and COMMIT, one round trip a statement; all statements are
    prepared. The column "flag on is" says how many times the throughput of that line flag on has.
    Takes about 12 minutes. The exit code does not depend on the bars.

    \b
    Example:
      retally bench dispatch --plot dispatch.svg --json dispatch.json
    """
    _check_files(json_file, plot_file)
    plan = Plan(clients=clients, seconds=seconds, rounds=rounds, hosts=hosts, seed=seed)
    with _stopped_by_signals(), progress() as bar:
        task = bar.add_task("making a farm", total=None)

        def tell(number: int, total: int, spec: Spec) -> None:
            text = f"{_what(spec)}, {spec.clients} clients"
            bar.update(task, description=text, completed=number - 1, total=total)

        if dsn is None:
            for name in [name for name in os.environ if name.startswith("PG")]:
                del os.environ[name]  # they speak of another server
        outcome = run(dsn, plan, tell)
    if json_file:
        json_file.write_text(_as_json(outcome) + "\n", encoding="utf-8")
    if plot_file:
        draw(outcome, plot_file)
    _print(outcome, style)


def _check_files(json_file: Path | None, plot_file: Path | None) -> None:
    """Refuse before the run what could not be written after it."""
    for file in (json_file, plot_file):
        need(file is None or file.parent.is_dir(), f"there is no directory for {file}")
    if plot_file:
        need(plot_file.suffix in {".svg", ".png"}, f"{plot_file} ends neither in .svg nor in .png")
        require_matplotlib()


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[None]:
    """SIGTERM ends the block as Ctrl-C does, so that the database is dropped."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, signal.default_int_handler) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)


def _print(outcome: Run, style: str) -> None:
    if style == "json":
        click.echo(_as_json(outcome))
    elif style == "csv":
        print_rows([_row(line) for line in outcome.lines], "csv", (*_COLUMNS, "errors"))
    else:
        show = _print_markdown if style == "markdown" else _print_table
        show(_HEADS, [_cells(line) for line in outcome.lines], numbers_from=1)
        show(_BAR_HEADS, [_bar(bar) for bar in outcome.bars], numbers_from=len(_BAR_HEADS))
        note(_place(outcome))


def _print_table(heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, head in enumerate(heads):
        table.add_column(head, justify="right" if index >= numbers_from else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console().print(table)
    click.echo()


def _print_markdown(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, numbers_from: int
) -> None:
    marks = ["---:" if index >= numbers_from else "---" for index in range(len(heads))]
    for row in (heads, marks, *rows):
        click.echo(f"| {' | '.join(row)} |")
    click.echo()


def _as_json(outcome: Run) -> str:
    return json.dumps(asdict(outcome), indent=2)


def _row(line: Line) -> Row:
    return asdict(line) | {"what": _what(line.spec), "clients": line.spec.clients}


def _cells(line: Line) -> list[str]:
    times = line.flag_on_times
    return [
        _what(line.spec),
        str(line.spec.clients),
        f"{line.per_second:,.0f}",
        "" if times is None else f"{times:.2f} times",
        f"{line.p50_ms:.2f}",
        f"{line.p99_ms:.2f}",
        str(line.deadlocks),
        str(line.errors),
    ]


def _bar(bar: Bar) -> list[str]:
    return [bar.promise, bar.measured, {True: "yes", False: "NO", None: "-"}[bar.met]]


def _what(spec: Spec) -> str:
    many = f" {spec.batch} a call" if spec.batch > 1 else ""
    more = "" if spec.prepared else ", not prepared"
    more += ", own hosts" if spec.own_hosts else ""
    more += ", recomputed in a loop" if spec.recompute else ""
    more += ", acct_release sent" if spec.notify else ""
    return f"{spec.action}{many}: {spec.mode}{more}"


def _place(outcome: Run) -> str:
    place, plan = outcome.place, outcome.plan
    settings = ", ".join(f"{name} {value}" for name, value in place.settings)
    return (
        f"{place.server}, {place.cpus} CPUs, Python {place.python};"
        f" {plan.rounds} x {plan.seconds:g} s a cell, {plan.hosts:,} hosts;"
        f" the server's settings: {settings}"
    )
