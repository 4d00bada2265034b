"""The worker as a whole: its check before it starts, its schedule, and its orderly end."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING

import structlog
from apscheduler.executors.pool import ThreadPoolExecutor as TickThreads
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.interval import IntervalTrigger

from retally.procedures import routines
from retally.sql.connect import connect
from retally.sql.errors import translated
from retally.sql.migrate import require_current
from retally.worker.database import Database
from retally.worker.settings import WorkerSettings
from retally.worker.ticks import Shared, TickRunner, planned

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_WATCH_SECONDS = 1.0

_log = structlog.get_logger("retally.worker")


class Worker:
    """Keeps the totals of every managed show of one database true; any number may run.

    ``dsn`` as for ``connect``; ``name`` tells workers apart, host and process by default.
    """

    def __init__(
        self, dsn: str | None, settings: WorkerSettings | None = None, *, name: str | None = None
    ) -> None:
        self._dsn = dsn
        self._settings = settings or WorkerSettings()
        self._name = name or f"{socket.gethostname()}:{os.getpid()}"
        self._ticks = planned(self._settings)
        self._database = Database(
            dsn,
            # a thread that mends uses one, and so does each tick
            connections=self._settings.pool_size + len(self._ticks),
            statement_timeout=self._settings.statement_timeout,
        )

    def run(self, stop: threading.Event) -> None:
        """Work until ``stop`` is set; then end what is in hand, within ``shutdown_grace`` seconds.

        A worker object runs once. Raises DatabaseUnreachableError, NotInstalledError,
        FarmSchemaError and PermissionDeniedError for what is wrong at the start. Later on nothing
        ends it: a lost database is waited for, and whatever else fails is tried again after a
        pause that grows up to five minutes, a schema that was uninstalled included.
        """
        self._check()
        started = time.monotonic()
        with contextlib.ExitStack() as undo:
            self._database.open()
            undo.callback(self._database.close)
            width = self._settings.pool_size
            menders = undo.enter_context(ThreadPoolExecutor(width, "retally-mend"))
            shared = Shared(self._database, menders, width, self._name, stop)
            with self._scheduled(shared) as scheduler:
                while not stop.wait(_WATCH_SECONDS):
                    self._database.cut_overdue()
                    mind_the_clock(scheduler)
        _log.info("worker stopped", worker=self._name, seconds=round(time.monotonic() - started, 1))

    def _check(self) -> None:
        """Go through all that a tick does, with nothing to do; log what is served."""
        with connect(self._dsn) as conn:
            with translated():
                require_current(conn)
            with self._database.limited(conn):
                routines.check_farm(conn)
                shows = routines.shows(conn)
                for tick in self._ticks:
                    routines.claim_due(conn, tick.name, tick.interval, [], self._name)
                    routines.findings(conn, [], tick.totals)
            _log.info(
                "worker started",
                worker=self._name,
                version=version("retally"),
                database=conn.info.dbname,
                server=_server(conn),
                ticks={tick.name: tick.interval for tick in self._ticks},
                totals=list(self._settings.totals),
                shows=len(shows),
                shows_managed=sum(show.rebuilt for show in shows),
            )

    @contextlib.contextmanager
    def _scheduled(self, shared: Shared) -> Iterator[BackgroundScheduler]:
        scheduler = BackgroundScheduler(
            timezone=UTC,
            executors={"default": TickThreads(len(self._ticks))},
            # runs that were missed are made up for by one, however late
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        )
        for tick in self._ticks:
            scheduler.add_job(
                TickRunner(tick, shared).run,
                IntervalTrigger(seconds=tick.interval, timezone=UTC),
                id=tick.name,
                next_run_time=datetime.now(UTC),
            )
        scheduler.start()
        try:
            yield scheduler
        finally:
            shared.stop.set()  # also when an exception brings us here
            _log.info("worker stopping", worker=self._name)
            self._end(scheduler)

    def _end(self, scheduler: BackgroundScheduler) -> None:
        """Wait for the passes in hand; undo them when that takes too long."""
        self._database.close()
        limit = threading.Timer(self._settings.shutdown_grace, self._database.cancel)
        limit.start()
        try:
            scheduler.shutdown(wait=True)
        finally:
            limit.cancel()
            limit.join()


def mind_the_clock(scheduler: BackgroundScheduler) -> None:
    """Run a tick now that is planned too far ahead: the clock was set back since."""
    now = datetime.now(UTC)
    for job in scheduler.get_jobs():
        if job.next_run_time > now + 2 * job.trigger.interval:
            job.modify(next_run_time=now)


def _server(conn: psycopg.Connection) -> str:
    return conn.info.parameter_status("server_version") or ""
