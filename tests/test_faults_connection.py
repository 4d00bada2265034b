"""Faults of the line in mid-pass: nothing hangs, totals are exact afterwards, and each is told."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest
from small_farm import corrupt
from tcp_proxy import CLAIM, ENDED, FIND, MEND, REBUILD, Proxy
from worker_process import (
    METRICS,
    await_exact,
    await_true,
    cores,
    faults,
    flagged_show,
    managed_show,
    value,
)
from worker_thread import events, in_process

from retally.procedures import TOTALS
from retally.worker import database as worker_database

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from small_farm import Work
    from worker_process import Start

_ONE_TICK = {"RETALLY_TOTALS": "subscription", "RETALLY_POOL_SIZE": "1"}


@pytest.mark.parametrize("sent", [True, False], ids=["before the answer", "before it arrives"])
@pytest.mark.parametrize(
    ("text", "within", "make_show"),
    [
        (CLAIM, "", managed_show),
        (REBUILD, "", managed_show),
        (FIND, "", flagged_show),
        (MEND, "", flagged_show),
        ("COMMIT", REBUILD, managed_show),
        ("COMMIT", MEND, flagged_show),
        ("COMMIT", CLAIM, managed_show),
    ],
)
def test_a_connection_that_is_cut_in_mid_statement_is_replaced(
    farm_db: psycopg.Connection,
    proxy: Proxy,
    start: Start,
    text: str,
    within: str,
    make_show: Callable[[psycopg.Connection], Work],
    sent: bool,
) -> None:
    work = make_show(farm_db)
    worker = start(proxy.dsn, **METRICS)
    url = worker.metrics_url()
    held = proxy.hold(text, within=within, sent=sent)
    corrupt(farm_db)
    held.await_caught()

    proxy.cut()

    worker.await_event("database lost, waiting for it")
    worker.await_event("database is back")
    await_exact(farm_db, work)
    assert faults(url, "database_lost") == 1
    assert value(url, "database_up") == 1
    assert worker.end() == 0
    assert not worker.events("failed")


def test_a_session_that_an_administrator_ends_is_replaced(
    farm_db: psycopg.Connection, proxy: Proxy, start: Start
) -> None:
    work = managed_show(farm_db)
    proxy.instead(REBUILD, ENDED)
    worker = start(proxy.dsn, **METRICS)
    url = worker.metrics_url()

    lost = worker.await_event("database lost, waiting for it")

    await_exact(farm_db, work)
    assert "administrator" in lost["error"]
    assert faults(url, "database_lost") == 1
    assert worker.end() == 0


def test_a_server_that_turns_everybody_away_for_a_while_is_waited_for(
    farm_db: psycopg.Connection, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_database, "_WAIT_SECONDS", 0.5)
    work = managed_show(farm_db)
    with in_process(proxy.dsn) as (log, url):
        await_exact(farm_db, work)

        with proxy.refusing():
            proxy.cut()
            await_true(lambda: bool(events(log, "database lost, waiting for it")))
            await_true(lambda: value(url(), "database_up") == 0)
            corrupt(farm_db)

        await_true(lambda: bool(events(log, "database is back")))
        await_exact(farm_db, work)
        assert faults(url(), "database_lost") == 1


def test_a_slow_server_makes_passes_late_and_totals_exact(
    farm_db: psycopg.Connection, proxy: Proxy, start: Start
) -> None:
    work = managed_show(farm_db)
    worker = start(proxy.dsn, **METRICS)
    url = worker.metrics_url()
    await_exact(farm_db, work)

    with proxy.slow(0.05):
        corrupt(farm_db)
        late = worker.await_event("passes take longer than the interval")
        await_exact(farm_db, work)

    assert late["seconds"] >= late["interval"]
    assert value(url, "passes_total", outcome="late") >= 1
    assert worker.end() == 0


def test_a_worker_whose_line_is_frozen_can_be_stopped(
    farm_db: psycopg.Connection, proxy: Proxy, start: Start
) -> None:
    managed_show(farm_db)
    worker = start(proxy.dsn, RETALLY_SHUTDOWN_GRACE="0.1", **_ONE_TICK)
    worker.await_event("totals rebuilt")

    with proxy.frozen():
        proxy.watch("").await_caught()  # it waits for the answer to whatever it was
        assert worker.end() == 0

    assert worker.log[-1]["event"] == "worker stopped"


def test_a_worker_outlives_a_frozen_line_and_is_exact_when_it_thaws(
    farm_db: psycopg.Connection, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = managed_show(farm_db)
    monkeypatch.setattr(worker_database, "_SLACK_SECONDS", 0.5)
    with in_process(proxy.dsn, statement_timeout=0.5) as (log, url):
        await_exact(farm_db, work)
        with proxy.frozen():
            await_true(lambda: bool(events(log, "connection cut")))
            corrupt(farm_db)

        await_exact(farm_db, work)
        assert faults(url(), "connection_cut") >= 1


def test_a_worker_that_is_killed_in_mid_pass_is_replaced_by_another(
    farm_db: psycopg.Connection, proxy: Proxy, start: Start
) -> None:
    work = managed_show(farm_db)
    held = proxy.hold("COMMIT", within=REBUILD, sent=False)
    killed = start(proxy.dsn)
    held.await_caught()
    other = start(farm_db.info.dsn)
    other.await_event("worker started")
    assert cores(farm_db, work) != [300] * len(TOTALS)

    killed.end(signal.SIGKILL)
    proxy.cut()  # it has held the statement back, and has not read on to the end

    await_exact(farm_db, work)
    assert other.end() == 0


def test_a_start_whose_line_is_frozen_can_be_stopped(
    farm_db: psycopg.Connection, proxy: Proxy, start: Start
) -> None:
    managed_show(farm_db)
    held = proxy.hold("retally.check_farm(", sent=False)
    worker = start(proxy.dsn)
    held.await_caught()
    with proxy.frozen():
        assert worker.end() == 0
    assert not worker.events("worker started")


def test_a_start_that_meets_a_lock_ends_with_an_error_and_does_not_hang(
    farm_db: psycopg.Connection, start: Start, connect: Callable[[], psycopg.Connection]
) -> None:
    managed_show(farm_db)
    holder = connect()
    with holder.transaction():
        holder.execute("LOCK TABLE retally.worker IN ACCESS EXCLUSIVE MODE")
        worker = start(farm_db.info.dsn)
        with pytest.raises(AssertionError, match="lock timeout"):  # it is no event of the log
            worker.exit_code()
