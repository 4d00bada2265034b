"""The worker's connections: bounded in time, cut when a server hangs, made anew when lost."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psycopg
import pytest
from small_farm import corrupt, stored
from structlog.testing import capture_logs
from tick_farm import EXACT, everything, make_due, new_database, shared_by_ticks, tick, wrong_show
from worker_process import PATIENCE, await_true
from worker_thread import events

from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.errors import DatabaseUnreachableError
from retally.sql.farm_build import create_schema
from retally.worker import Requests, Worker, WorkerSettings
from retally.worker import database as worker_database
from retally.worker.database import WorkerStoppingError
from retally.worker.metrics import Metrics
from retally.worker.ticks import Shared, TickRunner

pytestmark = pytest.mark.usefixtures("plain_logging")


def test_the_limits_hold_in_a_transaction_and_leave_nothing_in_the_session(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    def limits(conn: psycopg.Connection) -> list[str]:
        return [conn.execute(f"SHOW {name}").fetchone()[0] for name in names]  # type: ignore[index]

    with shared.database.transaction() as conn:
        assert limits(conn) == ["30s", "500ms", "10s"]
        backend = conn.info.backend_pid
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    with shared.database._pool.connection() as conn:
        assert conn.info.backend_pid == backend
        assert limits(conn) == limits(farm_db)


def test_a_role_that_defaults_to_serializable_can_run_a_worker(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")

    TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == EXACT


def test_stopping_undoes_a_transaction_that_runs_and_refuses_further_ones(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    begun = threading.Event()

    def long_one() -> None:
        with shared.database.transaction() as conn:
            conn.execute(
                "INSERT INTO retally.scope_flag (scope, asked, managed)"
                " VALUES ('undone', true, true)"
            )
            begun.set()
            conn.execute("SELECT pg_sleep(600)")

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(long_one)
        assert begun.wait(PATIENCE)
        shared.database.close()
        shared.database.cancel()
        with pytest.raises(WorkerStoppingError):
            running.result(PATIENCE)

    with pytest.raises(WorkerStoppingError), shared.database.transaction():
        pass
    assert farm_db.execute("SELECT count(*) FROM retally.scope_flag").fetchone() == (0,)


def test_a_server_that_keeps_no_time_out_is_cut_off(
    farm_db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_database, "_SLACK_SECONDS", 0.5)
    database = new_database(farm_db.info.dsn, connections=1, limit=0.2)
    database.open()
    frozen: list[int] = []

    def hang() -> None:
        with database.transaction() as conn:
            frozen.append(conn.info.backend_pid)
            os.kill(frozen[0], signal.SIGSTOP)
            conn.execute("SELECT 1")

    try:
        with ThreadPoolExecutor(1) as threads, capture_logs() as logs:
            hanging = threads.submit(hang)
            while not hanging.done():
                database.cut_overdue()
            with pytest.raises(DatabaseUnreachableError):
                hanging.result()
    finally:
        os.kill(frozen[0], signal.SIGCONT)
        database.close()
    assert events(logs, "connection cut")


def freeze_idle(conn: psycopg.Connection) -> list[int]:
    """Stop the worker's sessions while none of them is in a transaction: they hold no lock."""
    query = (
        "SELECT pid, state = 'idle' FROM pg_stat_activity"
        " WHERE application_name = 'retally' AND datname = current_database()"
    )
    for _ in range(10_000):
        pids = [row[0] for row in conn.execute(query)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        for pid in pids:
            await_true(partial(stopped, pid))
        if pids and all(idle for pid, idle in conn.execute(query) if pid in pids):
            return pids
        for pid in pids:
            os.kill(pid, signal.SIGCONT)
    raise AssertionError("the worker is never idle")


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


def test_a_worker_outlives_a_frozen_session_and_goes_on_with_another(
    farm_db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_database, "_SLACK_SECONDS", 0.5)
    work = wrong_show(farm_db)
    settings = WorkerSettings(
        totals=("subscription",), subscription_interval=0.5, statement_timeout=0.2, pool_size=1
    )

    def exact() -> bool:
        return stored(farm_db, work, "subscription")[:2] == (300, 2)

    frozen: list[int] = []
    requests = Requests()
    with capture_logs() as logs, ThreadPoolExecutor(1) as threads:
        running = threads.submit(Worker(farm_db.info.dsn, settings).run, requests)
        try:
            await_true(exact)
            frozen = freeze_idle(farm_db)
            await_true(lambda: len(events(logs, "connection cut")) > 0)
            corrupt(farm_db)
            await_true(exact)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            requests.stop.set()
        running.result(PATIENCE)


def test_a_server_restarted_between_two_passes_is_met_without_a_failure_and_counted() -> None:
    metrics = Metrics({})

    def counted(name: str) -> float | None:
        return metrics.registry.get_sample_value(f"retally_{name}")

    with EmbeddedServer.start(in_memory=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work = wrong_show(conn)
        with shared_by_ticks(server.dsn(), metrics) as shared, capture_logs() as logs:
            runner = TickRunner(tick(), shared)
            runner.run()
            opened = counted("pool_connections_opened_total")
            server.stop_server()
            server.start_server()
            with psycopg.connect(server.dsn(), autocommit=True) as conn:
                corrupt(conn)
                make_due(conn)
                runner.run()
                assert everything(conn, work) == EXACT
            lost = counted("pool_connections_lost_total")
            assert opened is not None
            assert lost is not None
            assert lost >= 1
            assert (counted("pool_connections_opened_total") or 0) > opened
    assert len(events(logs, "totals rebuilt")) == 2
    assert {entry["log_level"] for entry in logs} <= {"info", "debug"}
