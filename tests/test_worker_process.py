"""The worker as a process: real signals, a server that goes away, lines on stderr."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.procedures import TOTALS, install, routines
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[[], psycopg.Connection]

_PATIENCE = 60.0  # seconds, for what takes far below one
_PASSWORD = "correct-horse-battery-staple"

_PROGRAM = """
import sys
from retally.worker import Worker, WorkerSettings, configure_logging, requests_on_signals
settings = WorkerSettings()
configure_logging(settings.log_format, settings.log_level)
with requests_on_signals() as requests:
    Worker(sys.argv[1], settings, reread=WorkerSettings).run(requests)
"""

_QUICK = {
    "RETALLY_SUBSCRIPTION_INTERVAL": "0.2",
    "RETALLY_RESOURCE_INTERVAL": "0.3",
    "RETALLY_LOG_FORMAT": "json",
}


class WorkerProcess:
    """A worker in a process of its own, whose log is read as it comes."""

    def __init__(self, dsn: str, **settings: str) -> None:
        self.log: list[dict[str, Any]] = []
        self.text = ""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM, dsn],
            env=os.environ | _QUICK | settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        # reading cannot hang for ever: the pipe ends with the process
        self._limit = threading.Timer(_PATIENCE, self._process.kill)
        self._limit.start()

    def await_event(self, name: str) -> dict[str, Any]:
        """Read on to the next event of this name."""
        for entry in self._lines():
            if entry["event"] == name:
                return entry
        raise AssertionError(f"no event {name!r} in: {self.text}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and read on to the end; answers with the exit code."""
        self._process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Read on to the end."""
        for _ in self._lines():
            pass
        return self._process.wait(_PATIENCE)

    def close(self) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.text += line
            self.log.append(json.loads(line))
            yield self.log[-1]


@pytest.fixture
def start() -> Iterator[Callable[..., WorkerProcess]]:
    """Starts worker processes, and sees to it that none is left."""
    with contextlib.ExitStack() as undo:

        def started(dsn: str, **settings: str) -> WorkerProcess:
            process = WorkerProcess(dsn, **settings)
            undo.callback(process.close)
            return process

        yield started


def managed_show(conn: psycopg.Connection) -> Work:
    """A managed show with a proc of 300 core units that its totals do not know."""
    rows = Rows(conn)
    work = make_work(rows)
    routines.set_managed(conn, work.show, managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    return work


def cores(conn: psycopg.Connection, work: Work) -> list[int]:
    return [stored(conn, work, total)[0] for total in TOTALS]


def await_exact(conn: psycopg.Connection, work: Work) -> None:
    deadline = time.monotonic() + _PATIENCE
    while cores(conn, work) != [300] * len(TOTALS):
        assert time.monotonic() < deadline


def waits(conn: psycopg.Connection) -> bool:
    """Whether a session of this database waits for the lock of the trigger ``hold``."""
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT d.oid FROM pg_database AS d WHERE datname = current_database()))"
    )
    return conn.execute(waiting).fetchone() == (True,)


def await_waiter(conn: psycopg.Connection) -> None:
    while not waits(conn):
        pass


@pytest.fixture
def in_hand(farm_db: psycopg.Connection, connect: Connect) -> tuple[Work, psycopg.Connection]:
    """A show, the writing of which waits for as long as the connection's transaction is open."""
    work = managed_show(farm_db)
    # what a pass waits for is bounded by half of this
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '{2 * _PATIENCE}s'")
    farm_db.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;"
        "CREATE TRIGGER hold AFTER UPDATE ON subscription FOR EACH ROW EXECUTE FUNCTION hold()"
    )
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT pg_advisory_xact_lock(42)")
    return work, holder


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_pass_in_hand_end_and_the_exit_code_is_0(
    farm_db: psycopg.Connection,
    start: Callable[..., WorkerProcess],
    in_hand: tuple[Work, psycopg.Connection],
    number: signal.Signals,
) -> None:
    work, holder = in_hand
    worker = start(farm_db.info.dsn, RETALLY_TOTALS="subscription")
    await_waiter(farm_db)

    worker.send(number)
    worker.await_event("worker stopping")
    assert all(waits(farm_db) for _ in range(200)), "it is given time"
    holder.execute("ROLLBACK")

    assert worker.exit_code() == 0
    assert cores(farm_db, work)[0] == 300
    assert worker.log[-1]["event"] == "worker stopped"


def test_a_pass_that_outlasts_the_grace_is_undone_and_the_exit_code_is_0(
    farm_db: psycopg.Connection,
    start: Callable[..., WorkerProcess],
    in_hand: tuple[Work, psycopg.Connection],
) -> None:
    work, _ = in_hand
    worker = start(farm_db.info.dsn, RETALLY_TOTALS="subscription", RETALLY_SHUTDOWN_GRACE="0.1")
    await_waiter(farm_db)

    assert worker.end() == 0

    assert cores(farm_db, work)[0] == 0
    assert worker.events("pass broken off")
    assert not worker.events("failed")


def test_a_second_signal_undoes_the_pass_in_hand_at_once(
    farm_db: psycopg.Connection,
    start: Callable[..., WorkerProcess],
    in_hand: tuple[Work, psycopg.Connection],
) -> None:
    work, _ = in_hand
    worker = start(farm_db.info.dsn, RETALLY_TOTALS="subscription", RETALLY_SHUTDOWN_GRACE="3600")
    await_waiter(farm_db)
    worker.send(signal.SIGTERM)
    worker.await_event("worker stopping")

    assert worker.end(signal.SIGINT) == 0

    assert cores(farm_db, work)[0] == 0
    assert worker.events("pass broken off")
    assert not worker.events("failed")


@pytest.mark.parametrize("end", ["stop_server", "crash"])
def test_a_lost_database_is_waited_for_and_said_once_when_lost_and_once_when_back(
    start: Callable[..., WorkerProcess], end: str
) -> None:
    with EmbeddedServer.start(in_memory=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work = managed_show(conn)
            conn.execute(f"ALTER ROLE postgres PASSWORD '{_PASSWORD}'")
        worker = start(make_conninfo(server.dsn(), password=_PASSWORD))
        worker.await_event("totals rebuilt")

        getattr(server, end)()
        lost = worker.await_event("database lost, waiting for it")
        server.start_server()
        worker.await_event("database is back")
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            corrupt(conn)
            await_exact(conn, work)
        assert worker.end() == 0

    assert lost["error"]
    assert lost["hint"]
    assert len(worker.events("database lost, waiting for it")) == 1
    assert len(worker.events("database is back")) == 1
    assert not worker.events("failed")
    assert _PASSWORD not in worker.text


def test_a_worker_can_be_stopped_while_its_database_is_away(
    start: Callable[..., WorkerProcess],
) -> None:
    with EmbeddedServer.start(in_memory=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
        worker = start(server.dsn())
        worker.await_event("worker started")
        server.stop_server()
        worker.await_event("database lost, waiting for it")

        assert worker.end() == 0


def test_a_schema_that_goes_away_is_reported_and_the_worker_goes_on_when_it_is_back(
    farm_db: psycopg.Connection, start: Callable[..., WorkerProcess]
) -> None:
    work = managed_show(farm_db)
    worker = start(farm_db.info.dsn)
    worker.await_event("totals rebuilt")

    farm_db.execute("ALTER SCHEMA retally RENAME TO away")
    failure = worker.await_event("failed")
    farm_db.execute("ALTER SCHEMA away RENAME TO retally")
    corrupt(farm_db)

    await_exact(farm_db, work)
    assert "retally" in failure["error"]
    assert failure["hint"]
    assert worker.end() == 0


def test_every_line_of_the_json_log_is_an_object_with_a_utc_time(
    farm_db: psycopg.Connection, start: Callable[..., WorkerProcess]
) -> None:
    managed_show(farm_db)
    worker = start(farm_db.info.dsn, RETALLY_LOG_LEVEL="debug")
    worker.await_event("totals rebuilt")
    worker.await_event("quiet")
    assert worker.end() == 0

    for entry in worker.log:  # parsed as they came
        assert entry["timestamp"].endswith("Z")
        assert entry["level"] in {"debug", "info", "warning", "error"}
    started = worker.log[0]
    assert started["event"] == "worker started"
    assert started["database"] == farm_db.info.dbname
    assert started["ticks"] == {"subscription": 0.2, "resource": 0.3}
    assert (started["shows"], started["shows_managed"]) == (1, 1)
