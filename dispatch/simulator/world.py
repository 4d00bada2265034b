"""The farm around the dispatchers: what happens there, and when."""

from __future__ import annotations

import heapq
import itertools
import time
from typing import TYPE_CHECKING

from retally.dispatch.client import Dispatcher
from retally.dispatch.simulator import events, farm
from retally.dispatch.simulator.draws import draws
from retally.sql.connect import connect
from retally.sql.errors import DatabaseUnreachableError

if TYPE_CHECKING:
    import random
    import threading
    from collections.abc import Callable

    import psycopg

    from retally.dispatch.simulator.settings import Simulation
    from retally.dispatch.simulator.tally import Tally

    # answers with how often it has happened
    Happening = Callable[[psycopg.Connection], int]

_LIST_EVERY = 10.0  # seconds between two looks at which jobs, hosts and caps there are
_MOST_ARRIVE = 20  # frames at a time; half of that in the mean
_FOLDER_CAPS = (-1, 2_000, 20_000)  # core units, for a folder that has no cap
_MOST_UNITS = 2**31 - 1


class World:
    """Lets things happen at drawn times, on a connection of its own.

    Hosts that went down come up again and caps are what they were when ``run`` ends; frames that
    arrived and jobs that moved stay.
    """

    def __init__(self, dsn: str | None, simulation: Simulation, tally: Tally) -> None:
        self._dsn = dsn
        self._simulation = simulation
        self._tally = tally
        self._draw: random.Random = draws(simulation.seed, "world")
        self._dispatcher = Dispatcher(dsn, connections=1)
        self._listed_at = float("-inf")
        self._jobs: list[events.Job] = []
        self._hosts: list[str] = []
        self._caps: list[events.Cap] = []
        self._down: set[str] = set()
        self._former_caps: dict[events.Cap, int] = {}
        self._order = itertools.count()  # of two that are due at the same time
        self._due: list[tuple[float, int, str, Happening, float | None]] = []
        for kind, happening, mean in self._kinds():
            if mean is not None:
                self._plan(kind, happening, mean, again=True)

    def run(self, stop: threading.Event) -> None:
        """Let things happen until ``stop`` is set; then put back what can be."""
        with self._dispatcher:
            try:
                self._tally.keep_at(lambda: self._live(stop), stop)
            finally:
                self._put_back()

    def _kinds(self) -> list[tuple[str, Happening, float | None]]:
        """What may happen, and the mean time between two of it."""
        s = self._simulation
        arrivals = (_MOST_ARRIVE + 1) / 2 / s.arrivals if s.arrivals else None
        moves = 2 * s.moves_every if s.moves_every else None
        return [
            ("frames arrived", self._frames_arrive, arrivals),
            ("host down", self._host_down, s.hosts_down_every),
            ("job moved to another folder", self._move_folder, moves),
            ("job moved to another department", self._move_department, moves),
            ("cap changed", self._change_cap, s.caps_every),
        ]

    def _plan(self, kind: str, happening: Happening, mean: float, *, again: bool) -> None:
        at = time.monotonic() + self._draw.expovariate(1 / mean)
        entry = (at, next(self._order), kind, happening, mean if again else None)
        heapq.heappush(self._due, entry)

    def _live(self, stop: threading.Event) -> None:
        with connect(self._dsn) as conn:
            while not stop.is_set():
                with self._tally.noting():
                    self._list(conn)
                wait = self._due[0][0] - time.monotonic() if self._due else _LIST_EVERY
                if not stop.wait(max(0, min(wait, _LIST_EVERY))) and wait <= _LIST_EVERY:
                    self._happen(conn)

    def _happen(self, conn: psycopg.Connection) -> None:
        if not self._due:
            return
        _, _, kind, happening, mean = heapq.heappop(self._due)
        if mean is not None:
            self._plan(kind, happening, mean, again=True)
        with self._tally.noting():
            self._tally.add("events", int(happening(conn)), kind)

    def _list(self, conn: psycopg.Connection) -> None:
        if time.monotonic() < self._listed_at + _LIST_EVERY:
            return
        self._jobs = events.live_jobs(conn)
        self._hosts = farm.host_ids(conn)
        self._caps = events.caps(conn)
        self._listed_at = time.monotonic()

    def _frames_arrive(self, conn: psycopg.Connection) -> int:
        if not self._jobs:
            return 0
        layers = events.layers(conn, self._draw.choice(self._jobs).job)
        if not layers:
            return 0
        count = self._draw.randint(1, _MOST_ARRIVE)
        return events.frames_arrive(conn, self._draw.choice(layers), count)

    def _host_down(self, conn: psycopg.Connection) -> bool:
        """A host goes down: its procs are lost, their frames wait again."""
        if not self._hosts:
            return False
        host = self._draw.choice(self._hosts)
        if not events.host_state(conn, host, was="UP", to="DOWN"):
            return False
        self._down.add(host)
        self._plan(
            "host up",
            lambda later: self._host_up(later, host),
            self._simulation.down_seconds,
            again=False,
        )
        procs = events.procs_on(conn, host)
        released = self._dispatcher.release_many([proc for proc, _ in procs])
        self._tally.add("released", sum(released))
        self._tally.add("gone", len(released) - sum(released))
        for _, frame in procs:
            if frame:
                farm.requeue_frame(conn, frame)
        return True

    def _host_up(self, conn: psycopg.Connection, host: str) -> bool:
        up = events.host_state(conn, host, was="DOWN", to="UP")
        self._down.discard(host)
        return up

    def _move_folder(self, conn: psycopg.Connection) -> bool:
        if not self._jobs:
            return False
        job = self._draw.choice(self._jobs)
        folders = events.folders(conn, job.show)
        return bool(folders) and events.move_to_folder(conn, job, self._draw.choice(folders))

    def _move_department(self, conn: psycopg.Connection) -> bool:
        if not self._jobs:
            return False
        job = self._draw.choice(self._jobs)
        depts = events.departments(conn, job.show)
        return bool(depts) and events.move_to_department(conn, job, self._draw.choice(depts))

    def _change_cap(self, conn: psycopg.Connection) -> bool:
        """A cap goes up or down, also below what runs; always by what it was at first."""
        if not self._caps:
            return False
        cap = self._draw.choice(self._caps)
        now = events.cap_value(conn, cap)
        if now is None:
            return False
        former = self._former_caps.setdefault(cap, now)
        if former < 0:
            value = self._draw.choice(_FOLDER_CAPS)
        else:
            value = min(int(former * self._draw.uniform(0, 1.5)), _MOST_UNITS)
        return events.set_cap(conn, cap, value)

    def _put_back(self) -> None:
        try:
            with connect(self._dsn) as conn:
                for host in sorted(self._down):
                    with self._tally.noting():
                        events.host_state(conn, host, was="DOWN", to="UP")
                for cap, value in self._former_caps.items():
                    with self._tally.noting():
                        events.set_cap(conn, cap, value)
        except DatabaseUnreachableError as error:
            self._tally.note(error)
