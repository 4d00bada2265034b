"""One cell: reset, warm up, run, look at what is left."""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING

import psycopg

from retally.bench.beside import beside
from retally.bench.dispatch.clients import Task
from retally.bench.dispatch.records import Cell
from retally.bench.logs import latencies, percentile, procs_within, spelled
from retally.sql.connect import connect

if TYPE_CHECKING:
    import threading

    from retally.bench.crew import Crew
    from retally.bench.dispatch.ground import Ground
    from retally.bench.dispatch.records import Plan, Spec

_LISTEN_SECONDS = 0.1


class Recomputes:
    """Recomputes the show again and again: how many calls ended, and what they met."""

    def __init__(self, dsn: str, show: str) -> None:
        self._dsn = dsn
        self._show = show
        self.calls = 0
        self.errors: Counter[str] = Counter()

    def __call__(self, stop: threading.Event) -> None:
        """Go on until ``stop`` is set."""
        with connect(self._dsn) as conn:
            while not stop.is_set():
                try:
                    conn.execute("CALL retally.recompute_show(%s)", (self._show,))
                    self.calls += 1
                except psycopg.Error as error:
                    self.errors[f"recompute {error.sqlstate}"] += 1


def measured(ground: Ground, crew: Crew[Task], plan: Plan, spec: Spec, number: int) -> Cell:
    """Run the cell in round ``number``. Raises BenchError and the typed errors of the database."""
    ground.reset(spec)
    deadlocks = ground.deadlocks()
    recomputes = Recomputes(ground.dsn, ground.target.show)
    with contextlib.ExitStack() as stack:
        crew.ready(_tasks(ground, crew, spec, f"{plan.seed} {number}"))
        if spec.notify:
            stack.enter_context(beside(lambda stop: _listen(ground.dsn, stop)))
        if spec.recompute:
            stack.enter_context(beside(recomputes))
        window, logs = crew.run(plan.seconds, plan.ramp)
    took = latencies(window, logs)
    errors = sum((log.errors for log in logs), recomputes.errors)
    return Cell(
        spec=spec,
        round=number,
        procs=procs_within(window, logs),
        seconds=window.seconds,
        p50_ms=percentile(took, 0.50),
        p99_ms=percentile(took, 0.99),
        deadlocks=ground.deadlocks() - deadlocks,
        errors=spelled(errors),
        recomputes=recomputes.calls,
        rows_adrift=ground.rows_adrift(spec),
        slots_adrift=ground.slots_adrift(),
    )


def _tasks(ground: Ground, crew: Crew[Task], spec: Spec, seed: str) -> list[Task]:
    frames = ground.frames_for(spec)
    return [
        Task(spec=spec, target=ground.target, numbers=numbers, frames=frames, seed=seed)
        for numbers in crew.dealt(spec.clients)
    ]


def _listen(dsn: str, stop: threading.Event) -> None:
    """Take every acct_release, as a dispatcher does."""
    with connect(dsn) as conn:
        conn.execute("LISTEN acct_release")
        while not stop.is_set():
            for _ in conn.notifies(timeout=_LISTEN_SECONDS):
                if stop.is_set():
                    break
