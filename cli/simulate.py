"""``retally simulate``."""

from __future__ import annotations

import contextlib
import json
import sys
import threading
import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from retally.cli.errors import Exit
from retally.cli.options import dsn_option, need
from retally.cli.output import console, counted, note
from retally.dispatch.simulator import Counts, Report, Simulation, simulate
from retally.sql.connect import connect
from retally.sql.errors import SimulationError
from retally.sql.migrate import require_current
from retally.worker import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

_DEFAULT = Simulation()
_TELL_EVERY = 5.0  # seconds between two lines where there is no terminal


@click.command("simulate")
@click.option(
    "--dispatchers",
    type=click.IntRange(min=1),
    default=_DEFAULT.dispatchers,
    show_default=True,
    metavar="N",
    help="How many dispatchers at once.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End by itself after this time.  [default: until Ctrl-C]",
)
@click.option(
    "--seed", type=int, default=_DEFAULT.seed, show_default=True, help="Same seed, same draws."
)
@click.option(
    "--processes/--threads",
    default=_DEFAULT.processes,
    show_default=True,
    help="What the dispatchers are.",
)
@click.option(
    "--frame-seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=_DEFAULT.frame_seconds,
    show_default=True,
    metavar="SECONDS",
    help="How long a frame runs, in the mean.",
)
@click.option(
    "--arrivals",
    type=click.FloatRange(min=0),
    default=_DEFAULT.arrivals,
    show_default=True,
    metavar="N",
    help="Frames that arrive per second.",
)
@click.option(
    "--kill-every",
    type=click.FloatRange(min=0, min_open=True),
    metavar="SECONDS",
    help="With --processes: kill -9 one of the dispatchers, that often in the mean.",
)
@click.option("--yes", is_flag=True, help="Also on a database that a Cuebot has migrated.")
@click.option(
    "--format",
    "style",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How to print the report: a table for people, JSON for programs.",
)
@dsn_option
def simulate_command(dsn: str | None, yes: bool, style: str, **settings: Any) -> None:
    """Run a simulated farm on a database: dispatchers book and release, and things happen.

    Frames arrive, run for a drawn time and end; hosts go down; jobs move between folders and
    departments; caps change. All bookings go through the dispatch path. At the end every managed
    show is rebuilt once, and hosts and totals are audited. Procs, frames and jobs of the farm are
    changed for good: use a copy, or `retally farm create`.

    Exit code 3 when a managed show is adrift after that, or a host has lost capacity or has more
    than it should; 5 when rows were left because others held them; 1 when there were errors or
    deadlocks. Drift of shows that are not managed is only told: on an OpenCue farm a job that
    moves while it is booked can leave some.

    \b
    Example:
      createdb farm && retally farm create --dsn dbname=farm --managed
      retally simulate --dsn dbname=farm --seconds 60 --processes --kill-every 3
    """
    simulation = _settings(settings)
    with connect(dsn) as conn:
        require_current(conn)
        need(
            yes or not _is_cuebots(conn),
            "a Cuebot has migrated this database, and a simulation changes its procs, frames and"
            " jobs for good: give --yes if it is a copy",
        )
    stop = threading.Event()
    with stop_on_signals(stop), _shown(simulation) as show:
        report = simulate(dsn, simulation, stop, show)
    if style == "json":
        click.echo(json.dumps(asdict(report) | {"exit_code": _exit(report)}, indent=2))
    else:
        console().print(_table(report))
    _tell(report)
    sys.exit(_exit(report))


def _settings(settings: dict[str, Any]) -> Simulation:
    try:
        return Simulation(**settings)
    except SimulationError as error:
        raise click.UsageError(f"{error}: {error.hint}") from error


def _is_cuebots(conn: psycopg.Connection) -> bool:
    row = conn.execute("SELECT to_regclass('public.flyway_schema_history') IS NOT NULL").fetchone()
    return row == (True,)


@contextlib.contextmanager
def _shown(simulation: Simulation) -> Iterator[Callable[[Counts, float], None]]:
    """What shows the progress on standard error: a live line, or a line now and then."""
    screen = Console(stderr=True, highlight=False)
    if screen.is_terminal:
        with Live(console=screen, auto_refresh=False, transient=True) as live:
            yield lambda counts, seconds: live.update(
                _line(simulation, counts, seconds), refresh=True
            )
        return
    due = [time.monotonic() + _TELL_EVERY]

    def tell(counts: Counts, seconds: float) -> None:
        if time.monotonic() >= due[0]:
            note(_line(simulation, counts, seconds))
            due[0] = time.monotonic() + _TELL_EVERY

    yield tell


def _line(simulation: Simulation, counts: Counts, seconds: float) -> str:
    end = f" of {simulation.seconds:.0f}" if simulation.seconds else ""
    parts = [
        f"{seconds:.0f}{end} s: {counts.booked:,} booked",
        f"{counts.released:,} released",
        f"{sum(counts.refused.values()):,} refused",
        counted(_events(counts), "event"),
    ]
    if simulation.kill_every:
        parts.append(counted(counts.kills, "kill"))
    errors = counts.deadlocks + sum(counts.errors.values())
    if errors:
        parts.append(counted(errors, "error"))
    return ", ".join(parts)


def _events(counts: Counts) -> int:
    """What happened besides arrivals, which are as many as bookings."""
    return sum(number for kind, number in counts.events.items() if kind != "frames arrived")


def _table(report: Report) -> Table:
    counts, audit = report.counts, report.audit
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("what")
    table.add_column("count", justify="right", no_wrap=True)
    rows: list[tuple[str, int]] = [
        ("booked", counts.booked),
        ("released", counts.released),
        ("gone before they were released", counts.gone),
        *((f"refused: {_words(name)}", number) for name, number in counts.refused.items()),
        ("memory changed", counts.memory_changed),
        *counts.events.items(),
        ("dispatchers killed", counts.kills),
        ("deadlocks", counts.deadlocks),
        *((f"errors: {_words(name)}", number) for name, number in counts.errors.items()),
        ("rows rebuilt by the tick at the end", audit.rows_rebuilt),
        ("rows adrift after it", audit.rows_adrift),
        ("rows left because busy", audit.rows_busy),
        ("rows adrift in shows not managed", audit.rows_adrift_unmanaged),
        ("idle amounts of hosts that are off", len(audit.hosts_off)),
        ("hosts with idle below zero", audit.hosts_negative),
        ("local shares that are off", audit.local_shares_off),
        ("frames with two procs", audit.frames_with_two_procs),
        ("procs without a host", audit.procs_without_host),
    ]
    for name, number in rows:
        table.add_row(name, f"{number:,}")
    return table


def _words(name: str) -> str:
    """HostFullError as "host full"."""
    words = "".join(f" {c.lower()}" if c.isupper() else c for c in name.removesuffix("Error"))
    return words.strip()


def _tell(report: Report) -> None:
    for kind, message in report.counts.samples.items():
        note(f"{_words(kind)}, for example: {message}")
    for host in report.audit.hosts_off:
        note(f"host {host.name}: {host.slot} idle is {host.idle:,}, should be {host.expected:,}")
    for failure in report.audit.failures:
        note(f"failed: {failure}")
    for problem in report.audit.problems:
        note(f"note: {problem}")
    per_second = report.counts.booked / report.seconds if report.seconds else 0
    note(
        f"{counted(report.counts.booked, 'booking')} in {report.seconds:.1f} s,"
        f" {per_second:,.0f} a second; {_verdict(report)}"
    )


def _verdict(report: Report) -> str:
    code = _exit(report)
    if code == Exit.BUSY:
        return "rows were left because others held them"
    if code == Exit.DRIFT:
        return f"{counted(report.audit.rows_adrift, 'row')} adrift, {report.audit.lost:,} lost"
    if code == Exit.ERROR:
        return "there were errors"
    if not report.counts.booked and not report.counts.refused:
        return "nothing to book: no frame waits, or no host has room"
    return "no drift in managed shows, nothing lost"


def _exit(report: Report) -> Exit:
    audit, counts = report.audit, report.counts
    if audit.lost:
        return Exit.DRIFT
    if audit.rows_busy:
        return Exit.BUSY
    if audit.rows_adrift:
        return Exit.DRIFT
    return Exit.ERROR if counts.deadlocks or counts.errors or audit.failures else Exit.FINE
