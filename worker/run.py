"""The worker as a whole: its check before it starts, what it does until it is told otherwise."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from importlib.metadata import version
from secrets import token_hex
from typing import TYPE_CHECKING

import structlog

from retally.procedures import routines
from retally.sql.connect import connect
from retally.sql.errors import RetallyError
from retally.sql.migrate import require_current
from retally.worker import systemd
from retally.worker.database import broken_off, limited
from retally.worker.health import Health
from retally.worker.http import serve
from retally.worker.log import configure_logging
from retally.worker.metrics import Metrics
from retally.worker.service import Service
from retally.worker.settings import WorkerSettings
from retally.worker.ticks import planned

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterator

    import psycopg

    from retally.worker.signals import Requests

_WATCH_SECONDS = 1.0
_SLACK_SECONDS = 10.0  # for ending, beyond the grace that passes in hand have
# What is set up once: a worker that reads these anew says that it needs a restart.
_FIXED = ("dsn", "metrics_port", "metrics_host")

_log = structlog.get_logger("retally.worker")


class Worker:
    """Keeps the totals of one database true; any number may run.

    ``dsn`` as for ``connect``. ``name`` tells workers apart: host, process and a random part by
    default. ``reread``: reads the settings again when asked to; it may raise SettingError.
    """

    def __init__(
        self,
        dsn: str | None,
        settings: WorkerSettings | None = None,
        *,
        name: str | None = None,
        reread: Callable[[], WorkerSettings] | None = None,
    ) -> None:
        self._dsn = dsn
        self._settings = settings or WorkerSettings()
        # containers may share a host's name and all be process 1
        self._name = name or f"{socket.gethostname()}:{os.getpid()}:{token_hex(2)}"
        self._reread = reread
        intervals = _intervals(self._settings)
        self._metrics = Metrics(intervals)
        self._health = Health(intervals, step=_step(self._settings))

    def run(self, requests: Requests) -> None:
        """Work until asked to stop; then end what is in hand, within ``shutdown_grace`` seconds.

        Raises DatabaseUnreachableError, NotInstalledError, FarmSchemaError, PermissionDeniedError
        and MetricsAddressError for what is wrong at the start. Later on nothing ends it: a lost
        database is waited for, and whatever else fails is tried again after a pause that grows up
        to five minutes, a schema that was uninstalled included.
        """
        started = time.monotonic()
        with self._told():
            try:
                self._check(requests.stop)
            except RetallyError:
                if not requests.stop.is_set():
                    raise  # else it was broken off
            while not requests.stop.is_set():
                self._serve(requests)
        _log.info("worker stopped", worker=self._name, seconds=round(time.monotonic() - started, 1))

    def _check(self, stop: threading.Event) -> None:
        """Go through all that a tick does, with nothing to do; log what is served."""
        limit = self._settings.statement_timeout
        with connect(self._dsn) as conn, broken_off(conn, stop, 2 * limit + _SLACK_SECONDS):
            with limited(conn, limit):
                require_current(conn)
                routines.check_farm(conn)
                shows = routines.shows(conn)
                for tick in planned(self._settings):
                    routines.claim_due(conn, tick.name, tick.interval, [], self._name)
                    found = routines.findings(conn, [], tick.totals)
                    routines.note_findings(
                        conn, found, action="watched", tick=tick.name, worker=self._name, seconds=0
                    )
            _log.info(
                "worker started",
                worker=self._name,
                version=version("retally"),
                database=conn.info.dbname,
                server=_server(conn),
                ticks=_intervals(self._settings),
                totals=list(self._settings.totals),
                unmanaged=self._settings.unmanaged,
                shows=len(shows),
                shows_managed=sum(show.rebuilt for show in shows),
            )

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        """Answers on /metrics, /healthz and /readyz, where a port is asked for."""
        port, host = self._settings.metrics_port, self._settings.metrics_host
        if port is None:
            yield
            return
        with serve(self._metrics, self._health, host, port) as address:
            _log.info("metrics served", url=f"{address.url}/metrics")
            yield

    def _serve(self, requests: Requests) -> None:
        """Work with the present settings until asked to stop, or until there are others."""
        service = Service(self._dsn, self._settings, self._name, self._metrics, self._health)
        with service.running(requests.hurry):
            systemd.ready(f"worker {self._name}")
            while not requests.stop.wait(_WATCH_SECONDS):
                service.look_after()
                if self._health.alive().ok:
                    systemd.alive()
                if requests.reload.is_set():
                    requests.reload.clear()
                    if self._read_again():
                        return
            _log.info("worker stopping", worker=self._name)
            systemd.stopping(self._settings.shutdown_grace + _SLACK_SECONDS)

    def _read_again(self) -> bool:
        """Read the settings again; whether there are others now."""
        if self._reread is None:
            return False
        systemd.reloading()
        try:
            settings = self._reread()
        except RetallyError as error:
            self._metrics.reloaded(False)
            _log.error("settings not read again", error=str(error), hint=error.hint)
            systemd.ready(f"worker {self._name}, with its former settings")
            return False
        self._metrics.reloaded(True)
        changed = _changed(self._settings, settings)
        needs_restart = [name for name in changed if name in _FIXED]
        _log.info("settings read again", changed=changed, needs_restart=needs_restart)
        fixed = {name: getattr(self._settings, name) for name in _FIXED}
        self._settings = settings.model_copy(update=fixed)
        configure_logging(settings.log_format, settings.log_level)
        self._metrics.set_intervals(_intervals(settings))
        self._health.set_intervals(_intervals(settings), _step(settings))
        if len(changed) > len(needs_restart):
            return True
        systemd.ready(f"worker {self._name}")
        return False


def _intervals(settings: WorkerSettings) -> dict[str, float]:
    return {tick.name: tick.interval for tick in planned(settings)}


def _step(settings: WorkerSettings) -> float:
    """Seconds that a worker which is well may spend on one show: two waits for a transaction."""
    return max(300.0, 4 * settings.statement_timeout)


def _changed(before: WorkerSettings, after: WorkerSettings) -> list[str]:
    names = type(before).model_fields
    return [name for name in names if getattr(before, name) != getattr(after, name)]


def _server(conn: psycopg.Connection) -> str:
    return conn.info.parameter_status("server_version") or ""
