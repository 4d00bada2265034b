"""The worker's connections: each transaction bounded in time, and ended from outside at need."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING

import psycopg
import structlog
from psycopg_pool import ConnectionPool, PoolTimeout

from retally.sql.connect import connect, pool
from retally.sql.errors import DatabaseUnreachableError, RetallyError, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retally.worker.health import Health
    from retally.worker.metrics import Metrics

_WAIT_SECONDS = 5.0  # for a connection; after that, a tick gives up until its next time
_IDLE_SECONDS = 10.0  # between two statements, where the worker itself spends next to nothing
_CANCEL_SECONDS = 2.0  # for a cancelled transaction to be over
_LOOK_SECONDS = 0.05  # how soon a wish to stop is noticed
_SLACK_SECONDS = 10.0  # what a transaction may take beyond its statements

# Set anew in each transaction: a transaction pooler gives each one another session, and refuses
# settings that are sent when connecting. The lock time-out is the routines' own: too short for
# the server to look for a deadlock meanwhile, so no booking is ever chosen as its victim.
_LIMITS = """
SELECT
    set_config('statement_timeout', %s, TRUE),
    set_config('idle_in_transaction_session_timeout', %s, TRUE),
    set_config(
        'lock_timeout', round(1000 * extract(EPOCH FROM retally.lock_budget()))::text, TRUE
    )
"""

_log = structlog.get_logger("retally.worker")


class WorkerStoppingError(RetallyError):
    """The transaction was undone, or not begun, because the worker stops."""


class Database:
    """A pool of connections to one database; tells once when it is lost and once when it is back.

    ``connections``: how many threads will use it at a time. ``statement_timeout``: seconds.
    """

    def __init__(
        self,
        dsn: str | None,
        *,
        connections: int,
        statement_timeout: float,
        metrics: Metrics,
        health: Health,
    ) -> None:
        self._dsn = dsn
        self._metrics = metrics
        self._health = health
        self._pool = pool(dsn, max_size=connections, timeout=_WAIT_SECONDS, check=self._check)
        self._statement_timeout = statement_timeout
        # two statements at most stand in one transaction
        self._allowance = 2 * statement_timeout + _SLACK_SECONDS
        self._in_use: dict[psycopg.Connection, float] = {}
        self._changed = threading.Condition()
        self._closed = False
        self._lost_at: float | None = None
        self._back_at = float("-inf")

    @property
    def lost(self) -> bool:
        """Whether the latest attempt to reach it failed."""
        with self._changed:
            return self._lost_at is not None

    def open(self) -> None:
        """Begin to hand out connections."""
        self._pool.open()
        self._metrics.watch_pool(self._pool.get_stats)

    def close(self) -> None:
        """Begin no further transaction; those that run go on."""
        with self._changed:
            self._closed = True
        self._pool.close(timeout=_CANCEL_SECONDS)

    @contextlib.contextmanager
    def transaction(self) -> Iterator[psycopg.Connection]:
        """A transaction of at most two statements beside its limits, committed at the end.

        Raises the typed errors; WorkerStoppingError once ``close`` was called.
        """
        begun = float("inf")  # that there is no connection to be had is news
        try:
            with translated(), self._pool.connection() as conn:
                begun = time.monotonic()
                with self._watched(conn), limited(conn, self._statement_timeout):
                    self._found()
                    yield conn
        except RetallyError as error:
            if self._closed:
                raise WorkerStoppingError("the worker stops") from error
            if isinstance(error, DatabaseUnreachableError):
                self._lost(error, begun)
            raise

    def cancel(self) -> None:
        """Undo the transactions that run after ``close``; returns in a few seconds.

        The connection of one that goes on nevertheless is cut.
        """
        with self._changed:
            running = list(self._in_use)
        # all at once: of a server that is frozen none of them gets an answer
        cancelling = [threading.Thread(target=_cancel, args=(conn,)) for conn in running]
        for thread in cancelling:
            thread.start()
        for thread in cancelling:
            thread.join()
        with self._changed:
            self._changed.wait_for(lambda: not self._in_use, _CANCEL_SECONDS)
            for conn in self._in_use:
                _cut(conn)

    def cut_overdue(self) -> None:
        """Cut the connections whose transaction has outlived every limit that the server keeps.

        The server is frozen then, or the machine behind it: its own time-outs do not work.
        """
        with self._changed:
            overdue = [conn for conn, end in self._in_use.items() if end < time.monotonic()]
            for conn in overdue:
                self._metrics.fault("connection_cut")
                _log.warning("connection cut", reason="the server does not keep its time-outs")
                _cut(conn)

    def _check(self, conn: psycopg.Connection) -> None:
        if self._closed:
            return
        with self._watched(conn):
            try:
                ConnectionPool.check_connection(conn)
            except psycopg.Error as error:
                # the others are as old: all go, or each would cost a failed check and a pause
                self._pool.drain()
                self._metrics.fault("connection_lost")
                _log.info(
                    "connections lost since the latest pass", reason=" ".join(str(error).split())
                )
                raise

    @contextlib.contextmanager
    def _watched(self, conn: psycopg.Connection) -> Iterator[None]:
        with self._changed:
            if self._closed:
                raise WorkerStoppingError("the worker stops")
            self._in_use[conn] = time.monotonic() + self._allowance
        try:
            yield
        finally:
            with self._changed:
                del self._in_use[conn]
                self._changed.notify_all()

    def _lost(self, error: DatabaseUnreachableError, begun: float) -> None:
        with self._changed:
            # one that began before the database was back has been lost along with the others
            first = self._lost_at is None and begun >= self._back_at
            if first:
                self._lost_at = time.monotonic()
        if first:
            self._metrics.fault("database_lost")
            self._tell(up=False)
            reason = self._reason(error)
            _log.error("database lost, waiting for it", error=str(reason), hint=reason.hint)

    def _reason(self, error: DatabaseUnreachableError) -> DatabaseUnreachableError:
        """The pool only says that it has no connection; a connection of one's own says why."""
        if isinstance(error.__cause__, PoolTimeout):
            try:
                connect(self._dsn).close()
            except DatabaseUnreachableError as reason:
                return reason
            except RetallyError:
                return error  # it answers, and refuses something else
        return error

    def _found(self) -> None:
        with self._changed:
            lost_at, self._lost_at = self._lost_at, None
            if lost_at is not None:
                self._back_at = time.monotonic()
        self._tell(up=True)
        if lost_at is not None:
            _log.info("database is back", seconds=round(time.monotonic() - lost_at, 1))

    def _tell(self, *, up: bool) -> None:
        self._metrics.database_up(up)
        self._health.database(up)


@contextlib.contextmanager
def limited(conn: psycopg.Connection, statement_timeout: float) -> Iterator[None]:
    """A transaction on ``conn`` with the time limits of a worker. Raises the typed errors."""
    limits = (_milliseconds(statement_timeout), _milliseconds(_IDLE_SECONDS))
    with translated(), conn.transaction():
        conn.execute(_LIMITS, limits)
        yield


@contextlib.contextmanager
def broken_off(conn: psycopg.Connection, stop: threading.Event, seconds: float) -> Iterator[None]:
    """In the block, what runs on ``conn`` is undone when ``stop`` is set, or after ``seconds``."""
    over = threading.Event()

    def watch() -> None:
        until = time.monotonic() + seconds
        while not over.wait(_LOOK_SECONDS):
            if stop.is_set() or time.monotonic() >= until:
                _cancel(conn)
                if not over.wait(_CANCEL_SECONDS):
                    _cut(conn)
                return

    watcher = threading.Thread(target=watch, name="retally-watch", daemon=True)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _cancel(conn: psycopg.Connection) -> None:
    with contextlib.suppress(psycopg.Error):
        conn.cancel_safe(timeout=_CANCEL_SECONDS)


def _cut(conn: psycopg.Connection) -> None:
    """Shut the socket down, from whichever thread: who waits for an answer gets an error."""
    with (
        contextlib.suppress(OSError, psycopg.Error),
        socket.socket(fileno=os.dup(conn.fileno())) as duplicate,
    ):
        duplicate.shutdown(socket.SHUT_RDWR)


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(1000 * seconds)))
