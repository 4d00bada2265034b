"""``retally demo``."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
from rich.live import Live
from rich.table import Table

from retally.cli.errors import Exit
from retally.cli.options import debug_option
from retally.cli.output import console, cores, counted, note
from retally.dispatch.simulator import Counts, Simulation, Simulator
from retally.procedures import TOTALS, install, routines
from retally.sql.connect import connect
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import FarmSize, create_farm
from retally.worker import (
    Requests,
    Worker,
    WorkerSettings,
    configure_logging,
    stop_on_signals,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from rich.console import RenderableType

_SIZE = FarmSize(shows=4, hosts=60, jobs=60, finished_jobs=20, layers=4, procs=800)
_LOOK_EVERY = 0.25  # seconds between two looks at the farm
# about as many frames arrive as end, so that the farm stays as full as it is
_SIMULATION = Simulation(
    dispatchers=3,
    arrivals=60.0,
    frame_seconds=12.0,
    hosts_down_every=4.0,
    down_seconds=3.0,
    moves_every=2.0,
    caps_every=2.0,
)

_BOOKED = """
SELECT p.pk_show::text, count(*), coalesce(sum(p.int_cores_reserved), 0)::bigint
FROM public.proc AS p
GROUP BY p.pk_show
"""


@dataclass(frozen=True)
class ShowNow:
    """A show at one look: what is booked and what is adrift; amounts in core units."""

    name: str
    procs: int
    units: int
    rows_adrift: int
    units_adrift: int
    rows_written: int


@dataclass(frozen=True)
class Look:
    """All shows at one look, what the simulator has done so far, and whether it rests by now."""

    shows: list[ShowNow]
    counts: Counts
    resting: bool

    @property
    def rows_adrift(self) -> int:
        """Of all shows."""
        return sum(show.rows_adrift for show in self.shows)


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End by itself after this time.  [default: until Ctrl-C]",
)
@debug_option
def demo(seconds: float | None) -> None:
    """Watch it work on a PostgreSQL of its own: nothing else is needed, nothing is left behind.

    Starts an embedded server, makes a small farm, installs retally, and simulates three dispatchers
    on it, whose bookings write no total: frames arrive and end, hosts go down, jobs move, caps
    change. The worker finds the totals adrift and rebuilds them; for the last seconds the
    dispatchers rest, and the drift has to return to nothing.

    \b
    Example:
      retally demo --seconds 20
    """
    configure_logging(level="warning")
    for name in [name for name in os.environ if name.startswith("PG")]:
        del os.environ[name]  # they speak of another server
    stop = threading.Event()
    with stop_on_signals(stop):
        note("starting an embedded PostgreSQL …")
        with EmbeddedServer.start(in_memory=True) as server:
            dsn = server.dsn()
            with connect(dsn) as conn:
                _prepare(conn)
                note(f"PostgreSQL {server.version}, {_SIZE.procs} procs in {_SIZE.shows} shows")
                last = _play(conn, dsn, stop, seconds)
    for kind, message in last.counts.samples.items():
        note(f"{kind}, for example: {message}")
    left = last.rows_adrift
    note(f"{counted(left, 'row')} adrift at the end" if left else "no drift at the end")
    failed = last.counts.errors or last.counts.deadlocks
    sys.exit(Exit.DRIFT if left else Exit.ERROR if failed else Exit.FINE)


def _prepare(conn: psycopg.Connection) -> None:
    create_farm(conn, _SIZE)
    install(conn)
    for show in routines.shows(conn):
        routines.set_managed(conn, show.show_id, managed=True)


def _play(conn: psycopg.Connection, dsn: str, stop: threading.Event, seconds: float | None) -> Look:
    """Run worker and simulator until the end; answers with the last look."""
    settings = WorkerSettings(
        subscription_interval=1.0, resource_interval=2.0, pool_size=2, totals=TOTALS
    )
    rest, requests = threading.Event(), Requests()
    until = None if seconds is None else time.monotonic() + seconds
    simulator = Simulator(dsn, _SIMULATION)

    def look() -> Look:
        return Look(_shows(conn), simulator.counts, rest.is_set())

    with ThreadPoolExecutor(2) as threads:
        simulated = threads.submit(simulator.run, rest)
        rebuilt = threads.submit(Worker(dsn, settings).run, requests)
        try:
            with _shown() as show:
                _watch(look, show, stop, rest, until, settings.resource_interval)
                # what the dispatchers had in hand is done now; the ticks have an interval to
                # bring the drift to nothing, also after Ctrl-C: the demo is there to show it
                simulated.result()
                _await_exact(look, show, 2 * settings.resource_interval)
        finally:
            rest.set()
            requests.stop.set()
        rebuilt.result()
    return look()


def _watch(
    look: Callable[[], Look],
    show: Callable[[Look], None],
    stop: threading.Event,
    rest: threading.Event,
    until: float | None,
    interval: float,
) -> None:
    """Show what happens; before the end, let the dispatchers rest for a little over an interval."""
    while not stop.is_set() and (until is None or time.monotonic() < until):
        if until is not None and time.monotonic() > until - 1.5 * interval:
            rest.set()
        show(look())
        stop.wait(_LOOK_EVERY)
    rest.set()


def _await_exact(look: Callable[[], Look], show: Callable[[Look], None], seconds: float) -> None:
    until = time.monotonic() + seconds
    while (now := look()).rows_adrift and time.monotonic() < until:
        show(now)
        time.sleep(_LOOK_EVERY)
    show(now)


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[Look], None]]:
    """What shows a look: a live table on a terminal; elsewhere a line when something changed."""
    screen = console()
    if screen.is_terminal:
        # transient: Ctrl-C is echoed into it, and the last look is printed below instead
        latest: list[RenderableType] = []
        with Live(console=screen, auto_refresh=False, transient=True) as live:

            def draw(now: Look) -> None:
                latest[:] = [_table(now)]
                live.update(latest[0], refresh=True)

            yield draw
        for table in latest:
            screen.print(table)
        return
    last = [""]

    def tell(now: Look) -> None:
        line = _line(now)
        if line != last[0]:
            click.echo(line)
        last[0] = line

    yield tell


def _shows(conn: psycopg.Connection) -> list[ShowNow]:
    shows = routines.shows(conn)
    booked = {show: (procs, units) for show, procs, units in conn.execute(_BOOKED)}
    found = routines.findings(conn, [show.show_id for show in shows], TOTALS)
    passes = routines.last_passes(conn)
    return [
        ShowNow(
            show.name,
            *booked.get(show.show_id, (0, 0)),
            rows_adrift=sum(f.rows_adrift for f in found if f.show_id == show.show_id),
            units_adrift=sum(f.core_units for f in found if f.show_id == show.show_id),
            rows_written=sum(p.rows_changed for p in passes if p.show_id == show.show_id),
        )
        for show in shows
    ]


def _line(now: Look) -> str:
    procs, units = sum(s.procs for s in now.shows), sum(s.units for s in now.shows)
    state = "resting" if now.resting else "booking"
    return (
        f"{state}: {procs:,} procs, {cores(units)} cores, {counted(now.rows_adrift, 'row')} adrift"
        f" by {cores(sum(s.units_adrift for s in now.shows))} cores"
    )


def _table(now: Look) -> RenderableType:
    table = Table(
        title="procs rest" if now.resting else "procs come and go", caption=_done(now.counts)
    )
    table.add_column("show")
    for name in ("procs", "cores booked", "rows adrift", "cores adrift", "rows last written"):
        table.add_column(name, justify="right")
    for show in now.shows:
        table.add_row(
            show.name,
            f"{show.procs:,}",
            cores(show.units),
            f"{show.rows_adrift:,}",
            cores(show.units_adrift),
            f"{show.rows_written:,}",
            style="yellow" if show.rows_adrift else "green",
        )
    return table


def _done(counts: Counts) -> str:
    happened = counts.events
    moved = sum(number for kind, number in happened.items() if kind.startswith("job moved"))
    return (
        f"{counts.booked:,} booked, {counts.released:,} released,"
        f" {sum(counts.refused.values()):,} refused\n"
        f"{counted(happened.get('host down', 0), 'host')} went down,"
        f" {counted(moved, 'job')} moved, {counted(happened.get('cap changed', 0), 'cap')} changed"
    )
