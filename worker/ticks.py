"""The ticks: which totals are looked at how often, and what one pass of a tick does."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from psycopg.errors import LockNotAvailable

from retally.procedures import routines
from retally.sql.errors import (
    DatabaseError,
    DatabaseUnreachableError,
    RetallyError,
    ShowBusyError,
)
from retally.worker.backoff import Backoff
from retally.worker.database import WorkerStoppingError
from retally.worker.report import Report
from retally.worker.spread import spread

if TYPE_CHECKING:
    from collections.abc import Sequence
    from concurrent.futures import Executor

    from retally.procedures import Finding, Pass, Show
    from retally.worker.database import Database
    from retally.worker.settings import WorkerSettings

_WHOLE_PASS = ""  # the backoff's key for it; a show's is its id


@dataclass(frozen=True)
class Tick:
    """One timed pass: its name, the seconds between two passes, and the totals that it serves."""

    name: str
    interval: float
    totals: tuple[str, ...]


@dataclass(frozen=True)
class Shared:
    """What the ticks of one worker share.

    ``menders``: the threads that mend, ``width`` of them. ``stop``: begin nothing new.
    ``writing``: a lock per show, so that two ticks of one worker wait for each other, where the
    database would turn the second one away until its next interval.
    """

    database: Database
    menders: Executor
    width: int
    worker: str
    stop: threading.Event
    writing: dict[str, threading.Lock] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """What became of one show in a pass; ``seconds`` with the wait for its lock."""

    show: Show
    seconds: float
    passes: Sequence[Pass] = ()
    error: Exception | None = None


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
        self._report = Report(tick.name, tick.interval)

    def run(self) -> None:
        """One pass. Raises nothing: what fails is logged and tried again later."""
        if self._shared.stop.is_set() or self._backoff.holds(_WHOLE_PASS):
            return
        try:
            self._pass()
        except WorkerStoppingError:
            self._report.broken_off()
        except DatabaseUnreachableError:
            return  # logged by the database, once until it is back
        except Exception as error:
            self._give_up(None, error)
        else:
            self._backoff.succeeded(_WHOLE_PASS)

    def _pass(self) -> None:
        started = time.monotonic()
        shows = self._claim()
        if not shows:
            return
        found = self._find(shows)
        # what is claimed but not begun when the worker stops is due again after one interval
        begun = takewhile(lambda _: not self._shared.stop.is_set(), shows)
        tasks = (partial(self._mend, show, found.get(show.show_id)) for show in begun)
        for outcome in spread(self._shared.menders, self._shared.width, tasks):
            self._settle(outcome)
        self._report.over(len(shows), time.monotonic() - started)

    def _claim(self) -> list[Show]:
        """The shows that are due and now ours: managed ones, as only these are written."""
        with self._shared.database.transaction() as conn:
            served = {
                show.show_id: show
                for show in routines.shows(conn)
                if show.rebuilt and not self._backoff.holds(show.show_id)
            }
            claimed = routines.claim_due(
                conn, self._tick.name, self._tick.interval, list(served), self._shared.worker
            )
        return [served[show_id] for show_id in served if show_id in set(claimed)]

    def _find(self, shows: Sequence[Show]) -> dict[str, list[Finding]]:
        """What is adrift by show, found in one statement; empty where that one statement fails.

        Each show is then looked at by itself, so that bad data of one does not stop the others.
        """
        by_show: dict[str, list[Finding]] = {show.show_id: [] for show in shows}
        try:
            with self._shared.database.transaction() as conn:
                for finding in routines.findings(conn, list(by_show), self._tick.totals):
                    by_show[finding.show_id].append(finding)
        except DatabaseError as error:
            if _gave_way(error):
                raise
            self._report.looked_singly(error)
            return {}
        return by_show

    def _mend(self, show: Show, found: list[Finding] | None) -> Outcome:
        started = time.monotonic()
        try:
            with (
                self._shared.writing.setdefault(show.show_id, threading.Lock()),
                self._shared.database.transaction() as conn,
            ):
                if found is None:
                    found = routines.findings(conn, [show.show_id], self._tick.totals)
                passes = routines.mend(conn, found, wait=False)
        except Exception as error:
            return Outcome(show, time.monotonic() - started, error=error)
        return Outcome(show, time.monotonic() - started, passes)

    def _settle(self, outcome: Outcome) -> None:
        error = outcome.error
        if isinstance(error, (WorkerStoppingError, DatabaseUnreachableError)):
            raise error
        if error is not None:
            self._give_up(outcome.show, error)
            return
        self._backoff.succeeded(outcome.show.show_id)
        self._report.rebuilt(outcome.show, outcome.passes, outcome.seconds)

    def _give_up(self, show: Show | None, error: Exception) -> None:
        """Leave the show, or with None the whole pass, for later."""
        if isinstance(error, RetallyError) and _gave_way(error):
            self._report.deferred(show, error)
            return
        pause = self._backoff.failed(_WHOLE_PASS if show is None else show.show_id)
        self._report.failed(show, error, pause)


def _gave_way(error: RetallyError) -> bool:
    """Whether somebody else merely holds what was needed."""
    return isinstance(error, ShowBusyError) or isinstance(error.__cause__, LockNotAvailable)
