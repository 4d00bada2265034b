"""One cell: reset, warm up, run, look at what is left."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import TYPE_CHECKING

import psycopg

from retally.bench.dispatch.records import Cell
from retally.sql.connect import connect
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retally.bench.dispatch.clients import Crew, Log, Window
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


def measured(ground: Ground, crew: Crew, plan: Plan, spec: Spec, number: int) -> Cell:
    """Run the cell in round ``number``. Raises BenchError and the typed errors of the database."""
    ground.reset(spec)
    deadlocks = ground.deadlocks()
    recomputes = Recomputes(ground.dsn, ground.target.show)
    with contextlib.ExitStack() as beside:
        crew.ready(spec, ground.target, ground.frames_for(spec), f"{plan.seed} {number}")
        if spec.notify:
            beside.enter_context(_background(lambda stop: _listen(ground.dsn, stop)))
        if spec.recompute:
            beside.enter_context(_background(recomputes))
        window, logs = crew.run(plan.seconds, plan.ramp)
    took = _took(window, logs)
    errors = sum((log.errors for log in logs), recomputes.errors)
    return Cell(
        spec=spec,
        round=number,
        procs=sum(
            procs
            for log in logs
            for end, procs in zip(log.ends, log.procs, strict=True)
            if _inside(window, end)
        ),
        seconds=(window.end - window.start) / 1e9,
        p50_ms=_percentile(took, 0.50),
        p99_ms=_percentile(took, 0.99),
        deadlocks=ground.deadlocks() - deadlocks,
        errors=tuple(f"{state} times {count}" for state, count in sorted(errors.items())),
        recomputes=recomputes.calls,
        rows_adrift=ground.rows_adrift(spec),
        slots_adrift=ground.slots_adrift(),
    )


def _took(window: Window, logs: Sequence[Log]) -> list[int]:
    """How long the calls took that ended in the window, in ns, the shortest first."""
    return sorted(
        took
        for log in logs
        for end, took in zip(log.ends, log.took, strict=True)
        if _inside(window, end)
    )


def _inside(window: Window, end: int) -> bool:
    return window.start <= end < window.end


def _percentile(took: Sequence[int], share: float) -> float:
    """In ms, by the nearest rank; 0 when nothing ended in the window."""
    return took[min(int(len(took) * share), len(took) - 1)] / 1e6 if took else 0.0


@contextlib.contextmanager
def _background(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let ``work`` run in a thread until the block ends. Raises what it raised."""
    stop = threading.Event()
    failed: list[RetallyError] = []

    def run() -> None:
        try:
            work(stop)
        except RetallyError as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="retally-bench-beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]


def _listen(dsn: str, stop: threading.Event) -> None:
    """Take every acct_release, as a dispatcher does."""
    with connect(dsn) as conn:
        conn.execute("LISTEN acct_release")
        while not stop.is_set():
            for _ in conn.notifies(timeout=_LISTEN_SECONDS):
                if stop.is_set():
                    break
