"""What runs while the settings stay the same: the scheduler, its threads and its connections."""

from __future__ import annotations

import contextlib
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as TickThreads
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from retally.procedures import routines
from retally.sql.errors import RetallyError
from retally.worker import systemd
from retally.worker.database import Database
from retally.worker.grid import GridTrigger
from retally.worker.ticks import Shared, TickRunner, planned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from apscheduler.schedulers.base import BaseScheduler

    from retally.worker.health import Health
    from retally.worker.metrics import Metrics
    from retally.worker.settings import WorkerSettings

_PRUNE_SECONDS = 600
_PRUNE_FIRST = 60  # seconds after the start, so that workers that live short prune, too
_PRUNE_ROWS = 10_000  # in one transaction
_LOOK_SECONDS = 0.05  # how soon a second signal is heard while passes in hand end

_log = structlog.get_logger("retally.worker")


class Service:
    """The ticks at work, with settings that do not change meanwhile."""

    def __init__(
        self,
        dsn: str | None,
        settings: WorkerSettings,
        worker: str,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._metrics = metrics
        self._health = health
        self._ticks = planned(settings)
        self._stop = threading.Event()
        self._database = Database(
            dsn,
            # a thread that mends uses one, so does each tick, and what prunes
            connections=settings.pool_size + len(self._ticks) + 1,
            statement_timeout=settings.statement_timeout,
            metrics=metrics,
            health=health,
        )
        # runs that were missed are made up for by one, however late
        self._scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": TickThreads(len(self._ticks) + 1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )

    @contextlib.contextmanager
    def running(self, hurry: threading.Event) -> Iterator[None]:
        """Work during the block; then end what is in hand, or undo it once ``hurry`` is set."""
        with contextlib.ExitStack() as undo:
            self._database.open()
            undo.callback(self._database.close)
            width = self._settings.pool_size
            menders = undo.enter_context(ThreadPoolExecutor(width, "retally-mend"))
            shared = Shared(
                self._database,
                menders,
                width,
                self._worker,
                self._settings.unmanaged,
                self._stop,
                self._metrics,
                self._health,
                self._settings.journal_audit,
            )
            for tick in self._ticks:
                grid = GridTrigger(tick.interval)
                self._scheduler.add_job(
                    TickRunner(tick, shared, grid).run,
                    grid,
                    id=tick.name,
                    next_run_time=datetime.now(UTC),
                )
            self._scheduler.add_job(
                self._prune,
                IntervalTrigger(seconds=_PRUNE_SECONDS, jitter=60, timezone=UTC),
                next_run_time=datetime.now(UTC) + timedelta(seconds=_PRUNE_FIRST),
            )
            self._scheduler.start()
            try:
                yield
            finally:
                self._end(hurry)

    def look_after(self) -> None:
        """What has to be looked at now and then, by the thread that waits for requests."""
        self._database.cut_overdue()
        if mind_the_clock(self._scheduler):
            self._metrics.fault("clock_stepped")
            _log.warning("the clock was set back", worker=self._worker)

    def _prune(self) -> None:
        more = True
        try:
            while more and not self._stop.is_set():
                with self._database.transaction() as conn:
                    more = routines.prune(conn, _PRUNE_ROWS)
        except RetallyError as error:
            _log.warning("old rows not deleted", error=str(error), hint=error.hint)

    def _end(self, hurry: threading.Event) -> None:
        """Wait for the passes in hand; undo them when that takes too long."""
        self._stop.set()
        over = threading.Event()
        limit = threading.Thread(target=self._cancel_late, args=(hurry, over), daemon=True)
        limit.start()
        try:
            # a pass that is about to claim may do so: what it claims is due again by then
            self._scheduler.shutdown(wait=True)
            self._say_goodbye()
            self._database.close()
        finally:
            over.set()
            limit.join()

    def _say_goodbye(self) -> None:
        """The others share out this worker's shows at once; without it, after a few intervals."""
        if not self._database.lost:
            with contextlib.suppress(RetallyError), self._database.transaction() as conn:
                routines.forget_worker(conn, self._worker)

    def _cancel_late(self, hurry: threading.Event, over: threading.Event) -> None:
        until = time.monotonic() + self._settings.shutdown_grace
        while not over.wait(_LOOK_SECONDS):
            systemd.alive()  # a long grace must not look like a hanging worker
            if hurry.is_set() or time.monotonic() >= until:
                self._database.close()
                self._database.cancel()
                return


def mind_the_clock(scheduler: BaseScheduler) -> bool:
    """Run now what is planned too far ahead, as the clock was set back since; whether there was."""
    now = datetime.now(UTC)
    stepped = False
    for job in scheduler.get_jobs():
        if job.next_run_time > now + 2 * job.trigger.interval:
            job.modify(next_run_time=now)
            stepped = True
    return stepped
