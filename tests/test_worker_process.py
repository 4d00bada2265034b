"""The worker as a process: real signals, a server that goes away, lines on stderr."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from small_farm import Work, corrupt
from worker_process import await_exact, await_waiter, cores, managed_show, waits

from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from worker_process import Start

_PASSWORD = "correct-horse-battery-staple"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_pass_in_hand_end_and_the_exit_code_is_0(
    farm_db: psycopg.Connection,
    start: Start,
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
    start: Start,
    in_hand: tuple[Work, psycopg.Connection],
) -> None:
    work, _ = in_hand
    worker = start(farm_db.info.dsn, RETALLY_TOTALS="subscription", RETALLY_SHUTDOWN_GRACE="0.1")
    await_waiter(farm_db)

    assert worker.end() == 0

    assert cores(farm_db, work)[0] == 0
    assert worker.events("pass broken off")
    assert not worker.events("failed")


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (signal.SIGTERM, signal.SIGINT),
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGINT, signal.SIGTERM),
    ],
)
def test_a_second_signal_undoes_the_pass_in_hand_at_once(
    farm_db: psycopg.Connection,
    start: Start,
    in_hand: tuple[Work, psycopg.Connection],
    first: signal.Signals,
    second: signal.Signals,
) -> None:
    work, _ = in_hand
    worker = start(farm_db.info.dsn, RETALLY_TOTALS="subscription", RETALLY_SHUTDOWN_GRACE="86400")
    await_waiter(farm_db)

    worker.send(first)
    worker.await_event("worker stopping")
    assert worker.end(second) == 0

    assert cores(farm_db, work)[0] == 0
    assert worker.events("pass broken off")
    assert not worker.events("failed")


@pytest.mark.parametrize("end", ["stop_server", "crash"])
def test_a_lost_database_is_waited_for_and_said_once_when_lost_and_once_when_back(
    start: Start, end: str
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
    start: Start,
) -> None:
    with EmbeddedServer.start(in_memory=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            managed_show(conn)
        worker = start(server.dsn(), RETALLY_SHUTDOWN_GRACE="0.5")
        worker.await_event("totals rebuilt")
        server.stop_server()
        worker.await_event("database lost, waiting for it")

        assert worker.end() == 0


def test_a_schema_that_goes_away_is_reported_and_the_worker_goes_on_when_it_is_back(
    farm_db: psycopg.Connection, start: Start
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
    farm_db: psycopg.Connection, start: Start
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
