"""A run of the soak: the farm's traffic, the workers, their faults, and what has to hold."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
from soak_farm import SPOIL, Options
from soak_passes import Claim, PassCounter
from soak_workers import Life, Place

from retally.dispatch.simulator import Counts, Simulation, Simulator
from retally.procedures import TOTALS, routines

if TYPE_CHECKING:
    from concurrent.futures import Executor, Future
    from pathlib import Path

    from retally.sql.embedded import EmbeddedServer

_STEP = 0.1  # seconds between two looks
_SPOIL_EVERY = 0.5  # seconds between two wrong values
_MB = 1 << 20
_PATIENCE = 60.0
_START_SECONDS = 5.0  # from a worker's start to its first look at the database, at most


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
                conn.execute(draw.choice(SPOIL))
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
