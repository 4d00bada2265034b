"""One of the dispatchers: ends what is over, books what waits, and remembers nothing."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from retally.dispatch.client import Dispatcher
from retally.dispatch.simulator import farm
from retally.dispatch.simulator.choice import choose
from retally.dispatch.simulator.draws import bucket, draws, run_seconds
from retally.sql.connect import connect

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Sequence

    import psycopg

    from retally.dispatch.simulator.settings import Simulation
    from retally.dispatch.simulator.tally import Tally
    from retally.procedures import Booking

_LIST_EVERY = 2.0  # seconds between two looks at which hosts and jobs there are
# What a round looks at: enough to find work in, little beside a big farm.
_HOSTS_A_LOOK = 32
_JOBS_A_LOOK = 8
_FRAMES_OF_A_JOB = 8
_ENDS_A_ROUND = 40
_BATCH = 24  # bookings
_SINGLE = 6
_LOCAL_SHARE = 0.2  # share of the rounds that look for local work


class SimulatedDispatcher:
    """Dispatcher ``index`` of ``simulation.dispatchers``.

    All of them compete for all hosts and frames; each ends the procs on its own part of the hosts,
    whoever booked them. ``since``: the server's time when the simulation began.
    """

    def __init__(
        self, dsn: str | None, simulation: Simulation, index: int, since: float, tally: Tally
    ) -> None:
        self._dsn = dsn
        self._simulation = simulation
        self._index = index
        self._since = since
        self._tally = tally
        self._draw: random.Random = draws(simulation.seed, index)
        self._dispatcher = Dispatcher(dsn, connections=1)
        self._listed_at = float("-inf")
        self._hosts: list[str] = []
        self._own_hosts: list[str] = []
        self._jobs: list[str] = []
        self._subscribed: frozenset[tuple[str, str]] = frozenset()

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; a lost database is waited for."""
        with self._dispatcher:
            self._tally.keep_at(lambda: self._work(stop), stop)

    def _work(self, stop: threading.Event) -> None:
        with connect(self._dsn) as conn:
            while not stop.is_set():
                worked = False
                with self._tally.noting():
                    self._list(conn)
                with self._tally.noting():
                    worked = self._end(conn)
                with self._tally.noting():
                    worked = self._book(conn) or worked
                if not worked:
                    stop.wait(self._simulation.pause)

    def _list(self, conn: psycopg.Connection) -> None:
        if time.monotonic() < self._listed_at + _LIST_EVERY:
            return
        self._hosts = farm.host_ids(conn)
        parts = self._simulation.dispatchers
        self._own_hosts = [host for host in self._hosts if bucket(host, parts) == self._index]
        self._jobs = farm.jobs_waiting(conn)
        self._subscribed = farm.subscribed(conn)
        self._listed_at = time.monotonic()

    def _end(self, conn: psycopg.Connection) -> bool:
        """End what has run its time on some of the own hosts; whether there was any."""
        look = self._own_hosts[:_HOSTS_A_LOOK]
        self._own_hosts = self._own_hosts[_HOSTS_A_LOOK:] + look
        found = farm.running(conn, look, self._since)
        seed, mean = self._simulation.seed, self._simulation.frame_seconds
        over = [proc for proc in found if proc.age > run_seconds(seed, proc.proc, mean)]
        self._end_these(conn, over[:_ENDS_A_ROUND])
        gone = {proc.proc for proc in over}
        self._change_memory(conn, [proc for proc in found if proc.proc not in gone])
        return bool(over)

    def _end_these(self, conn: psycopg.Connection, over: Sequence[farm.Running]) -> None:
        # The frame first: if we are killed in between, the proc is still there, and over.
        for proc in over:
            if proc.frame:
                farm.end_frame(conn, proc.frame)
        ids = [proc.proc for proc in over]
        if self._draw.random() < self._simulation.batch_share:
            released = self._dispatcher.release_many(ids)
        else:
            released = [self._dispatcher.release(proc) for proc in ids]
        self._tally.add("released", sum(released))
        self._tally.add("gone", len(released) - sum(released))

    def _change_memory(self, conn: psycopg.Connection, procs: Sequence[farm.Running]) -> None:
        """Now and then a proc turns out to need more memory, or less."""
        if self._draw.random() >= self._simulation.memory_share:
            return
        # what is local would have to change its job's share as well
        shared = [proc for proc in procs if not proc.local and proc.mem_kb]
        if not shared:
            return
        proc = self._draw.choice(shared)
        memory = max(1, int(proc.mem_kb * self._draw.uniform(0.5, 1.6)))
        if farm.change_memory(conn, proc.proc, memory):
            self._tally.add("memory_changed")

    def _book(self, conn: psycopg.Connection) -> bool:
        """Book some of the waiting frames, in one batch or one by one; whether there were any."""
        draw = self._draw
        in_batch = draw.random() < self._simulation.batch_share
        jobs = draw.sample(self._jobs, min(_JOBS_A_LOOK, len(self._jobs)))
        elsewhere = self._dispatcher.elsewhere()
        frames = [
            frame
            for frame in farm.waiting(conn, jobs, _FRAMES_OF_A_JOB)
            if frame.show not in elsewhere
        ]
        draw.shuffle(frames)
        del frames[_BATCH if in_batch else _SINGLE :]
        if not frames:
            return False
        hosts = draw.sample(self._hosts, min(_HOSTS_A_LOOK, len(self._hosts)))
        shares = farm.shares(conn, jobs) if draw.random() < _LOCAL_SHARE else []
        bookings = choose(draw, frames, farm.spots(conn, hosts), self._subscribed, shares)
        if in_batch:
            self._book_batch(conn, bookings)
        else:
            for booking in bookings:
                with self._tally.noting():
                    self._booked(conn, self._dispatcher.book(booking))
        return bool(bookings)

    def _book_batch(self, conn: psycopg.Connection, bookings: Sequence[Booking]) -> None:
        for answer in self._dispatcher.book_many(bookings):
            if answer.error:
                self._tally.note(answer.error)
            if answer.proc:
                self._booked(conn, answer.proc)

    def _booked(self, conn: psycopg.Connection, proc: str) -> None:
        self._tally.add("booked")
        farm.start_frame(conn, proc)
