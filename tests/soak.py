"""Workers on a farm with traffic, for as long as asked: some are killed, the server restarts.

A program: ``python tests/soak.py --seconds 600 --workers 3 --kill-every 20 --restart-server 2``;
``--rest`` measures a worker that has nothing to do. It prints a table, and ends with 1 when a claim
does not hold.

How passes are counted. Due times lie on a grid, the multiples of a tick's interval. Between two
moments in the middle of the grid a show is due once for each grid point in between; retally.pass
counts its passes. Where the database was away (from its stop to the first pass after its start) a
pass may be lost or made up for, so ``ratio`` is the distance from both ends of that range.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
from bouncer import Bouncer, bouncer, free_port, program
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table

from retally.dispatch.simulator import Counts, Simulation, Simulator
from retally.procedures import TOTALS, install, routines
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import FarmSize, create_farm
from retally.sql.scratch import ScratchDir, bases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor, Future

_STEP = 0.1  # seconds between two looks
_RSS_EVERY = 1.0
_SPOIL_EVERY = 0.5  # seconds between two wrong values
_MB = 1 << 20
_REST_WARM_UP = 20.0  # seconds; the start, and what autovacuum finds in a new farm
_PATIENCE = 60.0
_START_SECONDS = 5.0  # from a worker's start to its first look at the database, at most

#: Makes one row wrong, as a lost update would.
_SPOIL = (
    "UPDATE subscription SET int_cores = int_cores - 7 WHERE pk_subscription ="
    " (SELECT pk_subscription FROM subscription ORDER BY random() LIMIT 1)",
    "UPDATE layer_resource SET int_cores = int_cores - 7 WHERE pk_layer ="
    " (SELECT pk_layer FROM layer ORDER BY random() LIMIT 1)",
    "UPDATE job_resource SET int_gpus = int_gpus - 1 WHERE pk_job ="
    " (SELECT pk_job FROM job ORDER BY random() LIMIT 1)",
    "UPDATE folder_resource SET int_cores = int_cores - 7 WHERE pk_folder ="
    " (SELECT pk_folder FROM folder ORDER BY random() LIMIT 1)",
    "UPDATE point SET int_cores = int_cores - 7 WHERE pk_point ="
    " (SELECT pk_point FROM point ORDER BY random() LIMIT 1)",
)


@dataclass(frozen=True)
class Options:
    """What to do; times are in seconds."""

    seconds: float = 60.0
    workers: int = 3
    kill_every: float = 20.0
    restart_server: int = 0
    pgbouncer: bool = False
    rest: bool = False
    seed: int = 1
    shows: int = 20
    procs: int = 5000
    arrivals: float = 40.0
    dispatchers: int = 2
    subscription_interval: float = 3.0
    resource_interval: float = 10.0
    grace: float = 2.0
    on_disk: bool = False

    @property
    def intervals(self) -> dict[str, float]:
        return {"subscription": self.subscription_interval, "resource": self.resource_interval}


@dataclass(frozen=True)
class Claim:
    """What has to hold, whether it does, and what was seen."""

    name: str
    holds: bool
    seen: str


@dataclass
class Life:
    """One worker process from its start to its end; ``rss``: bytes, by seconds since the start."""

    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)
    rss: list[tuple[float, int]] = field(default_factory=list)

    def sample(self) -> None:
        age = time.monotonic() - self.started_at
        if not self.rss or age >= self.rss[-1][0] + _RSS_EVERY:
            self.rss.append((age, _rss(self.process.pid)))

    def growth(self, warm_up: float) -> int | None:
        """Bytes from the end of the warm-up to the last sample; None for a life too short."""
        warm = [size for age, size in self.rss if age >= warm_up]
        return warm[-1] - warm[0] if len(warm) > 1 else None


class Place:
    """The place of one worker: whoever is killed there is followed by another."""

    def __init__(self, index: int, dsn: str, options: Options, home: Path) -> None:
        self.log_file = home / f"worker{index}.log"
        self.metrics_port = free_port()
        self.lives: list[Life] = []
        self.ended_by_themselves: list[tuple[Life, int]] = []
        self._start_at = 0.0
        self._environment = os.environ | {
            "RETALLY_DSN": dsn,
            "RETALLY_LOG_FORMAT": "json",
            "RETALLY_METRICS_PORT": str(self.metrics_port),
            "RETALLY_SUBSCRIPTION_INTERVAL": str(options.subscription_interval),
            "RETALLY_RESOURCE_INTERVAL": str(options.resource_interval),
        }
        self.start()

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "retally.cli", "worker"]
            self.lives.append(
                Life(subprocess.Popen(command, env=self._environment, stdout=log, stderr=log))
            )

    def mind(self) -> None:
        """Take a sample; see to it that a worker runs."""
        code = self.life.process.poll()
        if code is None:
            self.life.sample()
        elif not self._start_at:
            self.ended_by_themselves.append((self.life, code))
            self._start_at = time.monotonic() + 1.0  # as a service manager does
        elif time.monotonic() >= self._start_at:
            self._start_at = 0.0
            self.start()

    def kill(self) -> None:
        """SIGKILL, and another one in its place."""
        self._start_at = 0.0
        self.life.process.kill()
        self.life.process.wait()
        self.start()

    def end(self) -> int:
        """SIGTERM; answers with the exit code."""
        self.life.process.send_signal(signal.SIGTERM)
        try:
            return self.life.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.life.process.kill()
            return self.life.process.wait()

    def events(self) -> Counter[str]:
        """How often each event stands in the log; a line that is no JSON by its text."""
        counts: Counter[str] = Counter()
        for line in self.log_file.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a kill cuts the last line of that worker short
                counts[line[:200]] += 1
            else:
                counts[f"{entry['level']}: {entry['event']}"] += 1
        return counts

    def await_metrics(self) -> None:
        """Return once it serves, so that it has had the time to hear signals."""
        deadline = time.monotonic() + _PATIENCE
        while not self.metrics() and time.monotonic() < deadline:
            self.mind()
            time.sleep(_STEP)

    def metrics(self) -> str:
        """What /metrics answers; empty where nothing does."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
        return ""


@dataclass
class Count:
    """The passes of one tick over each show, by total, at a moment in the middle of the grid."""

    point: int
    passes: dict[tuple[str, str], int]


class PassCounter:
    """Counts the passes of one tick in a window, and the grid points at which nothing ran."""

    def __init__(self, tick: str, interval: float) -> None:
        self.tick = tick
        self.interval = interval
        self.first: Count | None = None
        self.last: Count | None = None
        self.away: set[int] = set()

    def in_the_middle(self) -> bool:
        return 0.4 <= time.time() / self.interval % 1 <= 0.6

    def look(self, conn: psycopg.Connection) -> Count:
        query = "SELECT scope, total, passes FROM retally.pass WHERE tick = %s"
        rows = conn.execute(query, (self.tick,)).fetchall()
        return Count(int(time.time() // self.interval), {(r[0], r[1]): r[2] for r in rows})

    def was_away(self, since: float, until: float) -> None:
        """The database was away; Unix times."""
        first, last = int(since // self.interval) + 1, int(until // self.interval)
        self.away |= set(range(first, last + 1))

    @property
    def due(self) -> int:
        assert self.first
        assert self.last
        return self.last.point - self.first.point

    @property
    def lost(self) -> int:
        assert self.first
        assert self.last
        return len([p for p in self.away if self.first.point < p <= self.last.point])

    def counts(self) -> list[int]:
        """Passes over each total of each show in the window."""
        assert self.first
        assert self.last
        return [n - self.first.passes.get(key, 0) for key, n in self.last.passes.items()]

    def ratio(self, passes: int) -> float:
        """1 for as many as were due, with or without those lost while the database was away."""
        if passes < self.due - self.lost:
            return passes / max(1, self.due - self.lost)
        return max(1.0, passes / max(1, self.due))

    def claim(self) -> Claim:
        name = f"passes per show and {self.interval:g} s ({self.tick}): 1 ± 5 %"
        counts = self.counts() if self.first and self.last else []
        if not counts or not self.due:
            return Claim(name, False, "no pass was counted")
        ratios = sorted(self.ratio(n) for n in counts)
        mean = sum(ratios) / len(ratios)
        seen = (
            f"{mean:.3f} in the mean, {ratios[0]:.3f} to {ratios[-1]:.3f}; {self.due} due,"
            f" {self.lost} of them while the database was away; {min(counts)} to {max(counts)} seen"
        )
        return Claim(name, ratios[0] >= 0.95 and ratios[-1] <= 1.05, seen)


class Soak:
    """A run: the farm, its traffic, the workers and their faults."""

    def __init__(self, options: Options, server: EmbeddedServer, dsn: str, home: Path) -> None:
        self._options = options
        self._server = server
        self._dsn = dsn
        self._direct = server.dsn("farm")
        self._draw = random.Random(options.seed)
        self._places = [Place(n, dsn, options, home) for n in range(options.workers)]
        self._counters = [PassCounter(*item) for item in options.intervals.items()]
        self._kills = 0
        self._restarts = 0
        self._spoilt = 0
        self._stopped_at: list[float] = []

    def run(self) -> list[Claim]:
        """The claims, when all is over."""
        stop = threading.Event()
        simulation = Simulation(
            dispatchers=self._options.dispatchers,
            arrivals=self._options.arrivals,
            seed=self._options.seed,
        )
        with ThreadPoolExecutor(3) as threads:
            try:
                traffic = threads.submit(Simulator(self._dsn, simulation).run, stop)
                spoiling = threads.submit(self._spoil, stop)
                restarts = self._work(threads)
                for restart in restarts:
                    restart.result()
                self._finish_counting()
            finally:
                stop.set()
        spoiling.result()
        return [*self._claims(traffic.result()), *self._end()]

    def _work(self, threads: Executor) -> list[Future[None]]:
        """Until the time is over; nothing is killed or restarted in the last interval.

        Answers with what still waits for the first passes after a restart.
        """
        begun = []
        started = time.monotonic()
        options = self._options
        last_fault = options.seconds - max(options.intervals.values())
        kills = _times(options.kill_every, last_fault)
        gap = options.seconds / (options.restart_server + 1)
        restarts = _times(gap, last_fault + gap)[: options.restart_server]
        while (now := time.monotonic() - started) < options.seconds:
            for place in self._places:
                place.mind()
            self._begin_counting(now)
            if kills and now >= kills[0]:
                kills.pop(0)
                self._kill()
            if restarts and now >= restarts[0]:
                restarts.pop(0)
                # here, since a server ends with the thread that has started it
                begun.append(threads.submit(self._note_away, self._restart()))
            time.sleep(_STEP)
        return begun

    def _kill(self) -> None:
        """Not the first one: its memory is looked at over the whole time."""
        if self._places[1:]:
            self._draw.choice(self._places[1:]).kill()
            self._kills += 1

    def _restart(self) -> float:
        """Stop the server and start it; answers with the Unix time of the stop."""
        since = time.time()
        self._stopped_at.append(time.monotonic())
        self._server.stop_server()
        self._server.start_server()
        return since

    def _note_away(self, since: float) -> None:
        for counter in self._counters:
            counter.was_away(since, self._first_pass_after(counter.tick))
        self._restarts += 1

    def _first_pass_after(self, tick: str) -> float:
        """When the first pass since the start of the server was over."""
        query = (
            "SELECT extract(EPOCH FROM max(p.finished_at)) FROM retally.pass AS p"
            " WHERE p.tick = %s AND p.finished_at > pg_postmaster_start_time()"
        )
        with psycopg.connect(self._direct, autocommit=True) as conn:
            deadline = time.monotonic() + _PATIENCE
            while time.monotonic() < deadline:
                row = conn.execute(query, (tick,)).fetchone()
                if row and row[0] is not None:
                    return float(row[0])
                time.sleep(_STEP)
        raise AssertionError(f"no pass of {tick} since the server was restarted")

    def _begin_counting(self, now: float) -> None:
        """Once every worker runs and every show has been served."""
        if len(self._stopped_at) > self._restarts:
            return  # the database may be away
        for counter in self._counters:
            warm = now >= min(30.0, 2 * counter.interval + 2)
            if warm and counter.first is None and counter.in_the_middle():
                with psycopg.connect(self._direct, autocommit=True) as conn:
                    counter.first = counter.look(conn)

    def _finish_counting(self) -> None:
        for counter in self._counters:
            while not counter.in_the_middle():
                time.sleep(_STEP / 5)
            with psycopg.connect(self._direct, autocommit=True) as conn:
                counter.last = counter.look(conn)

    def _spoil(self, stop: threading.Event) -> None:
        """Make a row wrong now and then; while the database is away there is none."""
        draw = random.Random(self._options.seed)
        while not stop.wait(_SPOIL_EVERY):
            with (
                contextlib.suppress(psycopg.OperationalError),
                psycopg.connect(self._direct, autocommit=True) as conn,
            ):
                conn.execute("SET lock_timeout = '1s'")
                conn.execute(draw.choice(_SPOIL))
                self._spoilt += 1

    def _claims(self, counts: Counts) -> list[Claim]:
        options = self._options
        limit = max(options.intervals.values()) + options.grace
        seconds, rows, hosts = self._await_exact(limit)
        lives = [life for place in self._places for life in place.lives]
        growths = [g for life in lives if (g := _growth(life, options)) is not None]
        ended, unstarted = self._ended()
        self._places[0].await_metrics()
        served = self._places[0].metrics()
        bookings = f"{counts.booked:,} booked, {counts.released:,} released"
        return [
            Claim("traffic, for information", True, f"{bookings}, {self._spoilt} rows spoilt"),
            Claim("booking errors, for information", True, _told(counts)),
            Claim(
                "faults",
                True,
                f"{self._kills} workers killed, {self._restarts} restarts of the server",
            ),
            Claim(
                f"no drift {limit:g} s after the end",
                not rows and not hosts,
                f"{rows} rows, {hosts} hosts after {seconds:.1f} s",
            ),
            *(counter.claim() for counter in self._counters),
            Claim("bookings end in no deadlock", not counts.deadlocks, f"{counts.deadlocks}"),
            Claim(
                "no worker ends by itself, but for one that starts without a database",
                not ended,
                f"exit codes {ended or 'none'}; without a database {unstarted or 'none'}",
            ),
            Claim(
                "no worker's memory grows by more than 10 MB",
                bool(growths) and max(growths) <= 10 * _MB,
                f"{max(growths, default=0) / _MB:.1f} MB at most, of {len(growths)} that lived on",
            ),
            Claim("metrics are served", "retally_" in served, f"{len(served):,} bytes"),
        ]

    def _ended(self) -> tuple[list[int], list[int]]:
        """Exit codes of workers that ran, and of those that found no database at their start."""
        ended: list[int] = []
        unstarted: list[int] = []
        for life, code in (each for place in self._places for each in place.ended_by_themselves):
            since = [life.started_at - stopped_at for stopped_at in self._stopped_at]
            starting = any(-_START_SECONDS <= age <= _PATIENCE for age in since)
            (unstarted if starting else ended).append(code)
        return ended, unstarted

    def _await_exact(self, limit: float) -> tuple[float, int, int]:
        """After how many seconds there was no drift; else rows and hosts adrift at the limit."""
        started = time.monotonic()
        with psycopg.connect(self._direct, autocommit=True) as conn:
            ids = [show.show_id for show in routines.shows(conn)]
            while True:
                rows = len(routines.drift(conn, ids, TOTALS))
                seconds = time.monotonic() - started
                if not rows or seconds > limit:
                    return seconds, rows, len(routines.host_drift(conn))
                time.sleep(_STEP)

    def _end(self) -> list[Claim]:
        for place in self._places:
            place.await_metrics()
        codes = [place.end() for place in self._places]
        events = sum((place.events() for place in self._places), Counter[str]())
        told = ", ".join(f"{name} {n}" for name, n in events.most_common())
        return [
            Claim("workers that are stopped end with 0", not any(codes), f"exit codes {codes}"),
            Claim("log events, for information", True, told),
        ]

    def close(self) -> None:
        """Leave no process."""
        for place in self._places:
            place.life.process.kill()
            place.life.process.wait()


def _growth(life: Life, options: Options) -> int | None:
    return life.growth(min(60.0, options.seconds / 4))


def _told(counts: Counts) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.errors.items()) or "none"


def _times(gap: float, end: float) -> list[float]:
    """The multiples of ``gap`` before ``end``."""
    return [n * gap for n in range(1, int(end / gap) + 1) if n * gap < end]


def _rss(pid: int) -> int:
    """Resident memory, bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> tuple[int, list[float]]:
    """The parent, and the CPU seconds: own user and system, and of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:15]]


def cpu_seconds(pid: int) -> float:
    """Of a process, its children, and those that it had and has waited for."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent, spent = _stat(int(path.name))
            if int(path.name) == pid:
                total += sum(spent)
            elif parent == pid:
                total += sum(spent[:2])
    return total


def rest(options: Options, server: EmbeddedServer, dsn: str, home: Path) -> list[Claim]:
    """What one worker and the database use while nothing happens, in shares of one core."""
    place = Place(0, dsn, options, home)
    assert server.pid is not None
    try:
        time.sleep(min(_REST_WARM_UP, options.seconds))
        pids = {"the worker": (place.life.process.pid, 5.0), "the database": (server.pid, 10.0)}
        before = {pid: cpu_seconds(pid) for pid, _ in pids.values()}
        with psycopg.connect(server.dsn("farm"), autocommit=True) as conn:
            passes = _passes(conn)
            started = time.monotonic()
            time.sleep(options.seconds)
            seconds = time.monotonic() - started
            claims = []
            for name, (pid, bar) in pids.items():
                share = 100 * (cpu_seconds(pid) - before[pid]) / seconds
                text = f"{share:.2f} % over {seconds:.0f} s"
                claims.append(Claim(f"at rest, {name} uses under {bar:g} %", share < bar, text))
            passes = _passes(conn) - passes
        claims.append(Claim("the shows were served meanwhile", passes > 0, f"{passes:,} passes"))
        claims.append(Claim("the worker ends with 0", place.end() == 0, f"{place.events()}"))
        return claims
    finally:
        place.life.process.kill()
        place.life.process.wait()


def _passes(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT coalesce(sum(passes), 0) FROM retally.pass").fetchone()
    return int(row[0]) if row else 0


def build_farm(options: Options, dsn: str) -> None:
    """Every show managed, every total exact."""
    size = FarmSize(
        shows=options.shows,
        procs=options.procs,
        hosts=max(10, options.procs // 40),
        jobs=max(options.shows, options.procs // 50),
        seed=options.seed,
    )
    with psycopg.connect(dsn, autocommit=True) as conn:
        create_farm(conn, size)
        install(conn)
        for show in routines.shows(conn):
            routines.set_managed(conn, show.show_id, managed=True)
        conn.execute("ANALYZE")


def soak(options: Options) -> list[Claim]:
    """Set everything up, run, and leave nothing behind."""
    with contextlib.ExitStack() as undo:
        home = ScratchDir.make(bases()[0], 0o700)
        undo.callback(home.remove)
        server = undo.enter_context(EmbeddedServer.start(in_memory=not options.on_disk))
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE farm")
        build_farm(options, server.dsn("farm"))
        dsn = server.dsn("farm")
        if options.pgbouncer:
            pooler: Bouncer = undo.enter_context(bouncer(server, pool_size=6))
            dsn = pooler.dsn("farm")
        if options.rest:
            return rest(options, server, dsn, home.path)
        run = Soak(options, server, make_conninfo(dsn, connect_timeout=5), home.path)
        undo.callback(run.close)
        return run.run()


def parse(arguments: Sequence[str]) -> Options:
    """The command line; ``--rest`` has another farm by default."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    resting = "--rest" in arguments
    for name, default in vars(Options()).items():
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            parser.add_argument(flag, action="store_true")
        else:
            other = {"shows": 200, "procs": 20_000}.get(name, default) if resting else default
            parser.add_argument(flag, type=type(default), default=other, help=f"[{other}]")
    options = Options(**vars(parser.parse_args(arguments)))
    if options.pgbouncer and program() is None:
        parser.error("there is no pgbouncer on the PATH")
    return options


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 when a claim does not hold."""
    claims = soak(parse(arguments))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("claim", "holds", "seen"):
        table.add_column(column)
    for claim in claims:
        table.add_row(claim.name, "yes" if claim.holds else "NO", claim.seen)
    Console(highlight=False, width=160 if not sys.stdout.isatty() else None).print(table)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
