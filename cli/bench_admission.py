"""``retally bench admission``."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import TYPE_CHECKING

import click

from retally.bench.admission import Part, Plan, run
from retally.bench.admission.plot import draw
from retally.bench.admission.records import Line
from retally.bench.admission.summary import costs
from retally.cli.bench import (
    as_json,
    bench_options,
    load_options,
    names,
    print_bars,
    print_tables,
    stopped_by_signals,
    where,
    write_files,
)
from retally.cli.options import need
from retally.cli.output import note, print_rows, progress

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from retally.bench.admission import Run

_PLAN = Plan()
_PARTS = {part.value: part for part in Part}
_COLUMNS = tuple(field.name for field in fields(Line))


def _whole(value: float) -> str:
    return f"{value:,.0f}"


def _fine(value: float) -> str:
    return f"{value:.2f}"


#: field of a line -> the head of its column, and how it is printed
_PRINTED: dict[str, tuple[str, Callable[..., str]]] = {
    "what": ("what", str),
    "clients": ("clients", str),
    "per_second": ("a second", _whole),
    "times": ("times without", _fine),
    "p50_ms": ("p50 ms", _fine),
    "p99_ms": ("p99 ms", _fine),
    "seconds": ("seconds", _fine),
    "hold_ms": ("longest hold ms", _fine),
    "hold_but_gc_ms": ("but for gc ms", _fine),
    "gc_ms": ("longest gc ms", _fine),
    "wait_ms": ("longest wait ms", _fine),
    "bookings": ("bookings", _whole),
    "refusals": ("refusals", _whole),
    "looks": ("looks", _whole),
    "over_bookings": ("over-bookings", _whole),
    "deadlocks": ("deadlocks", _whole),
    "errors": ("errors", _whole),
}
_SERVED = ("what", "clients", "per_second", "times", "p50_ms", "p99_ms", "deadlocks", "errors")
#: The tables: the parts in each, and its columns.
_TABLES: tuple[tuple[tuple[Part, ...], tuple[str, ...]], ...] = (
    ((Part.STORE,), ("what", "per_second")),
    ((Part.RECOUNT,), ("what", "seconds", "hold_ms", "hold_but_gc_ms", "gc_ms", "wait_ms")),
    ((Part.BOOK, Part.RELEASE), _SERVED),
    (
        (Part.CAPS,),
        ("what", "clients", "per_second", "bookings", "refusals", "looks", "over_bookings",
         "deadlocks", "errors"),
    ),
)  # fmt: skip


@click.command()
@click.option(
    "--parts",
    callback=names(_PARTS, "part"),
    default=",".join(_PARTS),
    show_default=True,
    metavar="NAME[,NAME…]",
    help="What is measured.",
)
@load_options(
    clients=_PLAN.clients,
    seconds=_PLAN.seconds,
    rounds=_PLAN.rounds,
    hosts=_PLAN.hosts,
    seed=_PLAN.seed,
)
@click.option(
    "--vertices",
    type=click.IntRange(min=100),
    default=_PLAN.vertices,
    show_default=True,
    help="Subscriptions, folders and jobs of the store that is counted anew.",
)
@click.option(
    "--bookings",
    type=click.IntRange(min=1),
    default=_PLAN.bookings,
    show_default=True,
    help="How many bookings the part caps has to get through, in one round.",
)
@bench_options
def admission(
    parts: tuple[Part, ...],
    clients: tuple[int, ...],
    seconds: float,
    rounds: int,
    hosts: int,
    vertices: int,
    bookings: int,
    seed: int,
    dsn: str | None,
    style: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """What it costs a dispatcher to keep to the caps of managed shows, and whether it does.

    store: what the counters do by themselves, in one thread. recount: all of them are
    overwritten; how long their lock is held at a time, and how long a thread waits that books
    beside it. book: bookings by a Dispatcher in each process, with room for all, with admission
    and without; a recount falls into each cell. release: with notifications and without. caps:
    shows that run into their caps all the time, while somebody looks at all of them in one
    snapshot. "times without" is the throughput as a multiple of that of the line without
    admission, or without notifications. Takes about 6 minutes. The exit code does not depend on
    the bars.

    \b
    Example:
      retally bench admission --json admission.json
      retally bench admission --parts caps --bookings 1000000
    """
    need(plot_file is None or Part.BOOK in parts, "a plot shows the part book, which is left out")
    plan = Plan(
        parts=parts, clients=clients, seconds=seconds, rounds=rounds, hosts=hosts,
        vertices=vertices, bookings=bookings, seed=seed,
    )  # fmt: skip
    with stopped_by_signals(), progress() as bar:
        task = bar.add_task("beginning", total=None)

        def tell(done: int, total: int, text: str) -> None:
            bar.update(task, description=text, completed=done, total=total)

        outcome = run(dsn, plan, tell)
    write_files(outcome, json_file, plot_file, draw)
    _print(outcome, style)


def _print(outcome: Run, style: str) -> None:
    if style == "json":
        click.echo(as_json(outcome))
        return
    if style == "csv":
        print_rows([asdict(line) for line in outcome.lines], "csv", _COLUMNS)
        return
    for parts, columns in _TABLES:
        own = [line for line in outcome.lines if line.part in parts]
        if own:
            heads = [_PRINTED[column][0] for column in columns]
            print_tables(style, heads, [_cells(line, columns) for line in own], numbers_from=1)
    for said in costs(outcome.lines):
        click.echo(f"{said}\n")
    print_bars(style, outcome.bars)
    for cell in outcome.cells.caps:
        for example in cell.examples:
            note(f"over-booked: {example}")
    plan = outcome.plan
    how = f"{plan.rounds} x {plan.seconds:g} s a cell, {plan.hosts:,} hosts"
    note(where(outcome.place, how))


def _cells(line: Line, columns: tuple[str, ...]) -> list[str]:
    values = [(getattr(line, column), _PRINTED[column][1]) for column in columns]
    return ["" if value is None else said(value) for value, said in values]
