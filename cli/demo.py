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
from retally.cli.traffic import book_and_release
from retally.procedures import TOTALS, install, routines
from retally.sql.connect import connect
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import FarmSize, create_farm
from retally.worker import Worker, WorkerSettings, configure_logging, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from rich.console import RenderableType

_SIZE = FarmSize(shows=4, hosts=60, jobs=60, finished_jobs=20, layers=4, procs=800)
_LOOK_EVERY = 0.25  # seconds between two looks at the farm
_CLIENTS = 3

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


@click.command()
@click.option(
    "--seconds",
    type=click.FloatRange(min=0, min_open=True),
    help="End by itself after this time.  [default: until Ctrl-C]",
)
@debug_option
def demo(seconds: float | None) -> None:
    """Watch it work on a PostgreSQL of its own: nothing else is needed, nothing is left behind.

    Starts an embedded server, makes a small farm, installs retally, and lets procs come and go by
    a path that writes no total. The worker finds the totals adrift and rebuilds them; for the last
    seconds the traffic rests, and the drift has to return to nothing.

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
                left = _play(conn, dsn, stop, seconds)
    note(f"{counted(left, 'row')} adrift at the end" if left else "no drift at the end")
    sys.exit(Exit.DRIFT if left else Exit.FINE)


def _prepare(conn: psycopg.Connection) -> None:
    create_farm(conn, _SIZE)
    install(conn)
    for show in routines.shows(conn):
        routines.set_managed(conn, show.show_id, managed=True)


def _play(conn: psycopg.Connection, dsn: str, stop: threading.Event, seconds: float | None) -> int:
    """Run worker and traffic until the end; answers with the rows adrift then."""
    settings = WorkerSettings.from_flags(
        subscription_interval=1.0, resource_interval=2.0, pool_size=2, totals=",".join(TOTALS)
    )
    rest, end = threading.Event(), threading.Event()
    until = None if seconds is None else time.monotonic() + seconds
    with ThreadPoolExecutor(_CLIENTS + 1) as threads:
        running = [threads.submit(Worker(dsn, settings).run, end)]
        running += [
            threads.submit(book_and_release, dsn, rest, pause=0.05, seed=n) for n in range(_CLIENTS)
        ]
        try:
            _watch(conn, stop, rest, until, settings.resource_interval)
        finally:
            rest.set()
            end.set()
        for thread in running:
            thread.result()
    return _adrift(_look(conn))


def _watch(
    conn: psycopg.Connection,
    stop: threading.Event,
    rest: threading.Event,
    until: float | None,
    interval: float,
) -> None:
    """Show what happens; before the end, let the traffic rest for a little over an interval."""
    with _shown() as show:
        while not stop.is_set() and (until is None or time.monotonic() < until):
            if until is not None and time.monotonic() > until - 1.5 * interval:
                rest.set()
            show(_look(conn), rest.is_set())
            stop.wait(_LOOK_EVERY)
        rest.set()
        # after the last booking the ticks have an interval to bring the drift to nothing, also
        # after Ctrl-C: it is what the demo is there to show
        until = time.monotonic() + 2 * interval
        while _adrift(_look(conn)) and time.monotonic() < until:
            show(_look(conn), True)
            time.sleep(_LOOK_EVERY)
        show(_look(conn), True)


@contextlib.contextmanager
def _shown() -> Iterator[Callable[[list[ShowNow], bool], None]]:
    """What shows a look: a live table on a terminal; elsewhere a line when something changed."""
    screen = console()
    if screen.is_terminal:
        # transient: Ctrl-C is echoed into it, and the last look is printed below instead
        latest: list[RenderableType] = []
        with Live(console=screen, auto_refresh=False, transient=True) as live:

            def draw(shows: list[ShowNow], resting: bool) -> None:
                latest[:] = [_table(shows, resting)]
                live.update(latest[0], refresh=True)

            yield draw
        for table in latest:
            screen.print(table)
        return
    last = [""]

    def tell(shows: list[ShowNow], resting: bool) -> None:
        line = _line(shows, resting)
        if line != last[0]:
            click.echo(line)
        last[0] = line

    yield tell


def _look(conn: psycopg.Connection) -> list[ShowNow]:
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


def _adrift(shows: list[ShowNow]) -> int:
    return sum(show.rows_adrift for show in shows)


def _line(shows: list[ShowNow], resting: bool) -> str:
    procs, units = sum(s.procs for s in shows), sum(s.units for s in shows)
    state = "resting" if resting else "booking"
    return (
        f"{state}: {procs:,} procs, {cores(units)} cores, {counted(_adrift(shows), 'row')} adrift"
        f" by {cores(sum(s.units_adrift for s in shows))} cores"
    )


def _table(shows: list[ShowNow], resting: bool) -> RenderableType:
    table = Table(title="procs rest" if resting else "procs come and go")
    table.add_column("show")
    for name in ("procs", "cores booked", "rows adrift", "cores adrift", "rows last written"):
        table.add_column(name, justify="right")
    for show in shows:
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
