"""``retally bench dispatch``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from retally.bench.dispatch import Plan, run
from retally.bench.dispatch.plot import draw
from retally.cli.bench import (
    as_json,
    bench_options,
    load_options,
    print_bars,
    print_tables,
    stopped_by_signals,
    where,
    write_files,
)
from retally.cli.output import Row, note, print_rows, progress

if TYPE_CHECKING:
    from pathlib import Path

    from retally.bench.dispatch import Run, Spec
    from retally.bench.dispatch.records import Line

_PLAN = Plan()
_COLUMNS = ("what", "clients", "per_second", "flag_on_times", "p50_ms", "p99_ms", "deadlocks")
_HEADS = ("what", "clients", "procs/s", "flag on is", "p50 ms", "p99 ms", "deadlocks", "errors")


@click.command()
@load_options(
    clients=_PLAN.clients,
    seconds=_PLAN.seconds,
    rounds=_PLAN.rounds,
    hosts=_PLAN.hosts,
    seed=_PLAN.seed,
)
@bench_options
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
    plan = Plan(clients=clients, seconds=seconds, rounds=rounds, hosts=hosts, seed=seed)
    with stopped_by_signals(), progress() as bar:
        task = bar.add_task("making a farm", total=None)

        def tell(number: int, total: int, spec: Spec) -> None:
            text = f"{_what(spec)}, {spec.clients} clients"
            bar.update(task, description=text, completed=number - 1, total=total)

        outcome = run(dsn, plan, tell)
    write_files(outcome, json_file, plot_file, draw)
    _print(outcome, style)


def _print(outcome: Run, style: str) -> None:
    if style == "json":
        click.echo(as_json(outcome))
    elif style == "csv":
        print_rows([_row(line) for line in outcome.lines], "csv", (*_COLUMNS, "errors"))
    else:
        print_tables(style, _HEADS, [_cells(line) for line in outcome.lines], numbers_from=1)
        print_bars(style, outcome.bars)
        plan = outcome.plan
        how = f"{plan.rounds} x {plan.seconds:g} s a cell, {plan.hosts:,} hosts"
        note(where(outcome.place, how))


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


def _what(spec: Spec) -> str:
    many = f" {spec.batch} a call" if spec.batch > 1 else ""
    more = "" if spec.prepared else ", not prepared"
    more += ", own hosts" if spec.own_hosts else ""
    more += ", recomputed in a loop" if spec.recompute else ""
    more += ", acct_release sent" if spec.notify else ""
    more += ", journaled" if spec.journaled else ""
    return f"{spec.action}{many}: {spec.mode}{more}"
