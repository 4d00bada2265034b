"""``retally bench recompute``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from retally.bench.recompute import Plan, Scenario, run
from retally.bench.recompute.plot import draw
from retally.bench.recompute.records import Method
from retally.bench.recompute.run import BIG, methods_for, takes_part
from retally.cli.bench import (
    as_json,
    bench_options,
    names,
    numbers,
    print_bars,
    print_tables,
    stopped_by_signals,
    where,
    write_files,
)
from retally.cli.options import need
from retally.cli.output import Row, note, print_rows, progress

if TYPE_CHECKING:
    from pathlib import Path

    from retally.bench.recompute import Run
    from retally.bench.recompute.records import Line

_PLAN = Plan()
_LEAST, _MOST = 1_000, 2_000_000
_SCENARIOS = {
    "quiet": Scenario.QUIET,
    "busy1": Scenario.BUSY_1,
    "busy10": Scenario.BUSY_10,
    "cold": Scenario.COLD,
    "changed1000": Scenario.CHANGED_1000,
}
_METHODS = {
    "all": Method.ALL,
    "shows": Method.BY_SHOW,
    "one": Method.ONE,
    "journal": Method.JOURNAL,
    "row": Method.ROWS,
    "table": Method.TABLES,
    "views": Method.VIEWS,
    "concurrent": Method.VIEWS_BESIDE,
    "limit": Method.LIMIT,
    "layer": Method.LIMIT_BY_LAYER,
}
_LEFT_OUT = [name for name, method in _METHODS.items() if method not in methods_for(_PLAN, BIG + 1)]
_COLUMNS = (
    "procs", "scenario", "method", "seconds", "limit_times", "retally_times", "wal_bytes",
    "rows_written", "dead_rows", "buffers", "rows_wrong",
)  # fmt: skip
_HEADS = (
    "scenario", "method", "seconds", "times the limit", "times retally", "WAL", "rows written",
    "dead rows", "pages", "rows left wrong",
)  # fmt: skip


@click.command()
@click.option(
    "--procs",
    callback=numbers,
    default=",".join(map(str, _PLAN.procs)),
    show_default=True,
    metavar="N[,N…]",
    help=f"How many procs the farm has, {_LEAST:,} to {_MOST:,}; several sizes are measured one"
    " after the other.",
)
@click.option(
    "--scenarios",
    callback=names(_SCENARIOS, "scenario"),
    default=",".join(_SCENARIOS),
    show_default=True,
    metavar="NAME[,NAME…]",
    help="What has happened since the last pass.",
)
@click.option(
    "--methods",
    callback=names(_METHODS, "method"),
    metavar="NAME[,NAME…]",
    help=f"What is measured: {', '.join(_METHODS)}.  [default: every one; above {BIG:,} procs"
    f" without {', '.join(_LEFT_OUT)}]",
)
@click.option(
    "--parallel",
    type=click.IntRange(0, 1024),
    default=_PLAN.parallel,
    show_default=True,
    metavar="N",
    help="max_parallel_workers_per_gather of every session.",
)
@click.option(
    "--rounds",
    type=click.IntRange(min=1),
    default=_PLAN.rounds,
    show_default=True,
    help="How often everything is measured, slow alternatives just once; medians are reported.",
)
@click.option(
    "--seed",
    type=click.IntRange(-(2**63), 2**63 - 1),
    default=_PLAN.seed,
    show_default=True,
    help="Same seed, same farm.",
)
@bench_options
def recompute(
    procs: tuple[int, ...],
    scenarios: tuple[Scenario, ...],
    methods: tuple[Method, ...] | None,
    parallel: int,
    rounds: int,
    seed: int,
    dsn: str | None,
    style: str,
    json_file: Path | None,
    plot_file: Path | None,
) -> None:
    """A pass over all totals, beside other ways to rebuild them.

    quiet: nothing has changed since the last pass. busy1 and busy10: 1 % and 10 % of the procs
    have, half of them released and as many booked elsewhere; changed1000: just 1,000 procs. cold:
    every total is wrong. "retally, journal" folds the journal of all shows. The limit is a sum over
    all procs, which no full pass can undercut. All methods find the same farm, alike before each.
    "times the limit" and "times retally" say how many times as long as that sum, and as retally
    over all shows, the line took. Takes about 15 minutes. The exit code does not depend on the
    bars.

    \b
    Example:
      retally bench recompute --procs 100000,2000000 --scenarios quiet --plot recompute.svg
      retally bench recompute --procs 2000000 --scenarios quiet,changed1000 --methods all,journal
    """
    need(
        min(procs) >= _LEAST and max(procs) <= _MOST,
        f"--procs goes from {_LEAST:,} to {_MOST:,}",
    )
    need(
        methods is None or any(takes_part(m, s) for m in methods for s in scenarios),
        "none of these --methods is measured in these --scenarios",
    )
    plan = Plan(
        procs=procs, scenarios=scenarios, methods=methods, parallel=parallel, rounds=rounds,
        seed=seed,
    )  # fmt: skip
    with stopped_by_signals(), progress() as bar:
        task = bar.add_task("making a farm", total=None)

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
        print_rows([_row(line) for line in outcome.lines], "csv", _COLUMNS)
        return
    for size in outcome.sizes:
        own = [line for line in outcome.lines if line.spec.procs == size.procs]
        click.echo(
            f"{size.procs:,} procs: {size.shows} shows, {size.jobs + size.finished_jobs:,} jobs,"
            f" {size.layers:,} layers; the one show has {size.one_show:,}\n"
        )
        print_tables(style, _HEADS, [_cells(line) for line in own], numbers_from=2)
    print_bars(style, outcome.bars)
    note(where(outcome.place, f"rounds: {outcome.plan.rounds}, seed {outcome.plan.seed}"))


def _row(line: Line) -> Row:
    spec = {name: str(value) for name, value in asdict(line.spec).items()}
    return asdict(line) | spec


def _cells(line: Line) -> list[str]:
    return [
        line.spec.scenario,
        line.spec.method,
        f"{line.seconds:.3f}",
        _times(line.limit_times),
        _times(line.retally_times),
        _bytes(line.wal_bytes),
        f"{line.rows_written:,}",
        f"{line.dead_rows:,}",
        f"{line.buffers:,}",
        "" if line.rows_wrong is None else f"{line.rows_wrong:,}",
    ]


def _times(times: float | None) -> str:
    return "" if times is None else f"{times:,.2f}"


def _bytes(count: int) -> str:
    """In the unit that leaves up to four digits; 1 kB is 1,000 bytes."""
    for unit, size in (("MB", 10**6), ("kB", 10**3)):
        if count >= size:
            return f"{count / size:,.1f} {unit}"
    return f"{count} B"
