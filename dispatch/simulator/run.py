"""A simulation from its beginning to its audit."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg.conninfo import make_conninfo

from retally.dispatch.simulator import farm
from retally.dispatch.simulator.audit import APPLICATION_NAME, Audit, audit, await_quiet, faults
from retally.dispatch.simulator.fleet import Fleet, Post, Processes, Threads
from retally.dispatch.simulator.tally import Counts, Tally
from retally.dispatch.simulator.world import World
from retally.sql.connect import connect
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Callable

    from retally.dispatch.simulator.settings import Simulation

_LOOK_EVERY = 0.1  # seconds


@dataclass(frozen=True)
class Report:
    """What a simulation did in ``seconds``, and what its audit found."""

    seconds: float
    counts: Counts
    audit: Audit


class Simulator:
    """The dispatchers and the farm around them, without an audit; a simulator runs once.

    ``dsn`` as for ``connect``. Raises DatabaseUnreachableError when there is no database at the
    start; one that is lost later is waited for, and counted.
    """

    def __init__(self, dsn: str | None, simulation: Simulation) -> None:
        with connect(dsn) as conn, translated():
            since = farm.server_time(conn)
        # all sessions bear one name, so that the audit can wait for the end of the last one
        self._dsn = make_conninfo(dsn or "", application_name=APPLICATION_NAME)
        self._simulation = simulation
        self._tally = Tally()
        self._world = World(self._dsn, simulation, self._tally)
        posts = [Post(self._dsn, simulation, n, since) for n in range(simulation.dispatchers)]
        self._fleet: Fleet = (Processes if simulation.processes else Threads)(posts, self._tally)

    @property
    def counts(self) -> Counts:
        """What has happened so far."""
        return self._tally.counts()

    def run(
        self, stop: threading.Event, on_look: Callable[[Counts, float], None] = lambda *_: None
    ) -> Counts:
        """Simulate until ``stop`` is set, or as long as asked for; then nothing runs any more.

        ``on_look`` is told every moment what has happened so far, and the seconds since the start.
        """
        end = threading.Event()
        started = time.monotonic()
        seconds = self._simulation.seconds
        until = float("inf") if seconds is None else started + seconds
        with contextlib.ExitStack() as undo:
            around = undo.enter_context(ThreadPoolExecutor(1, "retally-world"))
            world = around.submit(self._world.run, end)
            undo.callback(end.set)
            undo.callback(self._fleet.stop)
            self._fleet.start()
            while time.monotonic() < until and not world.done():
                self._fleet.mind()
                on_look(self.counts, time.monotonic() - started)
                if stop.wait(min(_LOOK_EVERY, max(0.0, until - time.monotonic()))):
                    break
        world.result()
        return self.counts


def simulate(
    dsn: str | None,
    simulation: Simulation,
    stop: threading.Event,
    on_look: Callable[[Counts, float], None] = lambda *_: None,
) -> Report:
    """Simulate, then audit the farm; it is changed for good. ``stop``, ``on_look`` as for ``run``.

    Only hosts that went down and caps that changed are put back. Raises NotInstalledError,
    DatabaseUnreachableError.
    """
    with connect(dsn) as conn:
        before = faults(conn)
    started = time.monotonic()
    counts = Simulator(dsn, simulation).run(stop, on_look)
    seconds = time.monotonic() - started
    with connect(dsn) as conn:
        await_quiet(conn)
        return Report(round(seconds, 3), counts, audit(conn, before))
