"""The ticks: which totals are looked at how often, and how a worker takes its share of the work."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retally.procedures import routines
from retally.sql.errors import DatabaseUnreachableError
from retally.worker.backoff import Backoff
from retally.worker.database import WorkerStoppingError
from retally.worker.faults import gave_way
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
    shows without a mode of their own. ``stop``: begin nothing new. ``writing``: a lock per show, so
    that two ticks of one worker wait for each other, where the database would turn the second one
    away until its next interval.
    """

    database: Database
    menders: Executor
    width: int
    worker: str
    unmanaged: Unmanaged
    stop: threading.Event
    metrics: Metrics
    health: Health
    writing: dict[str, threading.Lock] = field(default_factory=dict)


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
    """Runs the passes of one tick, one after the other."""

    def __init__(self, tick: Tick, shared: Shared) -> None:
        self._tick = tick
        self._shared = shared
        self._backoff = Backoff(tick.interval)
        self._report = Report(tick.name, tick.interval, shared.metrics)
        self._passes = Passes(tick, shared, self._report)

    def run(self) -> float | None:
        """One pass; answers with the seconds until the next one, None where only a guess is left.

        Raises nothing: what fails is logged and tried again later.
        """
        self._shared.health.begun(self._tick.name)
        ok = False
        try:
            next_in = None if self._backoff.holds() else self._pass()
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
            ok = next_in is not None
            if ok:
                self._backoff.succeeded()
            return next_in
        finally:
            self._shared.health.ended(self._tick.name, ok)
        return None

    def _pass(self) -> float | None:
        """Take shares of what is due, and serve them, until nothing is left or the slot is over."""
        started = time.monotonic()
        served = 0
        while not self._shared.stop.is_set():
            claim, shows = self._claim()
            over_at = time.monotonic() + claim.next_in
            if shows:
                served += len(shows)
                self._passes.serve(shows, claim.failures)
            left = over_at - time.monotonic()
            # what nobody has taken belongs to others until it is late, or is being claimed by them
            if left <= 0 or not claim.left or not (shows or claim.late_in):
                if served:
                    self._report.over(served, time.monotonic() - started)
                return max(left, 0.0)
            if not shows:
                self._shared.stop.wait(claim.late_in)
        return None

    def _claim(self) -> tuple[Claim, list[tuple[Show, str]]]:
        """Take a share of what is due; each show with the action of its pass."""
        with self._shared.database.transaction() as conn:
            served = {
                show.show_id: (show, action)
                for show in routines.shows(conn)
                if (action := self._action(show)) is not None
            }
            claim = routines.claim_due(
                conn, self._tick.name, self._tick.interval, list(served), self._shared.worker
            )
        self._shared.health.moved(self._tick.name)
        claimed = len(claim.failures)
        self._shared.metrics.claimed(self._tick.name, claim.left + claimed, claimed)
        return claim, [served[show_id] for show_id in served if show_id in claim.failures]

    def _action(self, show: Show) -> str | None:
        if show.rebuilt:
            return "rebuilt"
        mode = show.mode or self._shared.unmanaged
        return {"off": None, "watch": "watched", "repair": "repaired"}[mode]
