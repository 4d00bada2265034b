"""The ticks: which totals are looked at how often, and how a worker takes its share of the work."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retally.procedures import routines
from retally.sql.backoff import Backoff
from retally.sql.errors import DatabaseUnreachableError
from retally.sql.migrate import require_current
from retally.worker.database import WorkerStoppingError
from retally.worker.faults import gave_way
from retally.worker.grid import GridTrigger
from retally.worker.passes import Passes
from retally.worker.report import Report

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from retally.procedures import Claim, Show
    from retally.worker.database import Database
    from retally.worker.health import Health
    from retally.worker.metrics import Metrics
    from retally.worker.settings import Unmanaged, WorkerSettings


@dataclass(frozen=True)
class Tick:
    """One timed pass: its name, the seconds between two passes, and the totals that it serves."""

    name: str
    interval: float
    totals: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """What the ticks of one worker share.

    ``menders``: the threads that mend, ``width`` of them. ``unmanaged``: what becomes of unmanaged
    shows without a mode of their own. ``stop``: begin nothing new. ``journal_audit``: seconds
    between full passes over a journaled show. ``writing``: a lock per show, so that two ticks of
    one worker wait for each other, where the database would turn the second one away until its
    next interval.
    """

    database: Database
    menders: Executor
    width: int
    worker: str
    unmanaged: Unmanaged
    stop: threading.Event
    metrics: Metrics
    health: Health
    journal_audit: float = 600.0
    writing: dict[str, threading.Lock] = field(default_factory=dict)

    def turn(self, show_id: str) -> threading.Lock:
        """To be held by whoever writes the totals of this show."""
        return self.writing.setdefault(show_id, threading.Lock())


def planned(settings: WorkerSettings) -> tuple[Tick, ...]:
    """The ticks that these settings ask for; a tick whose totals are not asked for is left out."""
    subscription = tuple(total for total in settings.totals if total == "subscription")
    others = tuple(total for total in settings.totals if total != "subscription")
    ticks = (
        Tick("subscription", settings.subscription_interval, subscription),
        Tick("resource", settings.resource_interval, others),
    )
    return tuple(tick for tick in ticks if tick.totals)


class TickRunner:
    """Runs the passes of one tick, one after the other; tells ``grid`` when the next is due."""

    def __init__(self, tick: Tick, shared: Shared, grid: GridTrigger | None = None) -> None:
        self._tick = tick
        self._grid = grid or GridTrigger(tick.interval)
        self._shared = shared
        self._backoff = Backoff(tick.interval)
        self._report = Report(tick.name, tick.interval, shared.metrics)
        self._passes = Passes(tick, shared, self._report)

    def run(self) -> None:
        """One pass. Raises nothing: what fails is logged and tried again later."""
        self._shared.health.begun(self._tick.name)
        ok = False
        try:
            ok = not self._backoff.holds() and self._pass()
        except WorkerStoppingError:
            self._report.broken_off()
        except DatabaseUnreachableError:
            pass  # logged by the database, once until it is back
        except Exception as error:
            if gave_way(error):
                self._report.deferred(None, error)
            else:
                self._report.failed(None, error, self._backoff.failed())
        else:
            if ok:
                self._backoff.succeeded()
        finally:
            self._shared.health.ended(self._tick.name, ok)

    def _pass(self) -> bool:
        """Serve what is due now, and what came due meanwhile; False when stopped."""
        while not self._shared.stop.is_set():
            over_at = self._serve_slot()
            if time.monotonic() < over_at:
                return True
        return False

    def _serve_slot(self) -> float:
        """Take shares of what is due, and serve them, until nothing is left.

        Answers with when the next slot begins, by time.monotonic().
        """
        served, seconds, over_at = 0, 0.0, float("inf")
        self._report.begun()
        while not self._shared.stop.is_set():
            claim, shows = self._claim()
            over_at = time.monotonic() + claim.next_in
            self._grid.meet(claim.next_in)
            if shows:
                started = time.monotonic()
                self._passes.serve(shows, claim.failures)
                served, seconds = served + len(shows), seconds + time.monotonic() - started
            elif claim.left:
                # it is others' until it is late
                self._shared.stop.wait(claim.late_in)
            taken = not (shows or claim.late_in)  # what is left is being claimed at this moment
            if not claim.left or taken or time.monotonic() >= over_at:
                break
        if served:
            self._report.over(served, seconds)
        return over_at

    def _claim(self) -> tuple[Claim, list[tuple[Show, str]]]:
        """Take a share of what is due; each show with the action of its pass."""
        with self._shared.database.transaction() as conn:
            # somebody may have installed another version meanwhile, which needs another worker
            require_current(conn)
            served = {
                show.show_id: (show, action)
                for show in routines.shows(conn)
                if (action := self._action(show)) is not None
            }
            claim = routines.claim_due(
                conn, self._tick.name, self._tick.interval, list(served), self._shared.worker
            )
        self._shared.health.moved(self._tick.name)
        self._report.forget_others(served)
        claimed = len(claim.failures)
        self._shared.metrics.claimed(self._tick.name, claim.left + claimed, claimed)
        return claim, [served[show_id] for show_id in served if show_id in claim.failures]

    def _action(self, show: Show) -> str | None:
        if show.rebuilt:
            return "rebuilt"
        mode = show.mode or self._shared.unmanaged
        return {"off": None, "watch": "watched", "repair": "repaired"}[mode]
