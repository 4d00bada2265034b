"""Faults of the server in mid-pass: nothing hangs, totals are exact afterwards, each is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from small_farm import Work, corrupt
from tcp_proxy import CLAIM, FIND, MEND, REBUILD, Proxy, raises
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

from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    from worker_process import Start

    Connect = Callable[[], psycopg.Connection]

# each pause after a failure is a multiple of the interval
_OFTEN = {"RETALLY_SUBSCRIPTION_INTERVAL": "0.1", "RETALLY_RESOURCE_INTERVAL": "0.1"}
_DISK_FULL = raises("53100", "could not extend file: No space left on device")


def test_a_server_that_is_restarted_in_mid_pass_finds_exact_totals_afterwards(
    start: Start,
) -> None:
    with EmbeddedServer.start(in_memory=True) as server, Proxy(server.dsn()) as proxy:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work = managed_show(conn)
        written = proxy.hold("COMMIT", within=REBUILD, sent=False)
        worker = start(proxy.dsn, **METRICS)
        url = worker.metrics_url()
        written.await_caught()

        server.stop_server()
        worker.await_event("database lost, waiting for it")
        assert value(url, "database_up") == 0
        written.release()
        server.start_server()

        worker.await_event("database is back")
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            await_exact(conn, work)
        assert faults(url, "database_lost") == 1
        assert worker.end() == 0


@pytest.mark.parametrize(
    ("text", "within", "event", "make_show"),
    [
        (CLAIM, "", "failed", managed_show),
        (REBUILD, "", "rebuilding each show by itself", managed_show),
        ("COMMIT", REBUILD, "rebuilding each show by itself", managed_show),
        (FIND, "", "looking at each show by itself", flagged_show),
        (MEND, "", "failed", flagged_show),
        ("COMMIT", MEND, "failed", flagged_show),
    ],
)
def test_a_full_disk_is_reported_and_tried_again(
    farm_db: psycopg.Connection,
    proxy: Proxy,
    start: Start,
    text: str,
    within: str,
    event: str,
    make_show: Callable[[psycopg.Connection], Work],
) -> None:
    work = make_show(farm_db)
    worker = start(proxy.dsn, **METRICS)
    url = worker.metrics_url()
    full = proxy.instead(text, _DISK_FULL, within=within)
    corrupt(farm_db)

    told = worker.await_event(event)

    await_exact(farm_db, work)
    assert full.count == 1
    assert "No space left on device" in told.get("error", "") + told.get("reason", "")
    assert told.get("kind", "disk_full") == "disk_full"
    assert told.get("show", work.show) == work.show
    assert faults(url, "disk_full") == 1
    assert worker.end() == 0
    assert farm_db.execute("SELECT sum(failures) FROM retally.due").fetchone() == (0,)


def test_a_disk_that_stays_full_for_a_while_ends_nothing(
    farm_db: psycopg.Connection, proxy: Proxy, start: Start
) -> None:
    work = managed_show(farm_db)
    worker = start(proxy.dsn, **METRICS, **_OFTEN)
    url = worker.metrics_url()
    # nothing that writes can be committed, not even the note of the failure
    full = proxy.instead("COMMIT", _DISK_FULL, within="retally.", times=6)
    corrupt(farm_db)

    await_true(lambda: full.count == full.times)

    await_exact(farm_db, work)
    assert faults(url, "disk_full") == full.times
    assert worker.end() == 0


def test_a_lock_that_is_not_had_in_time_defers_the_pass(
    farm_db: psycopg.Connection, connect: Connect, start: Start
) -> None:
    work = managed_show(farm_db)
    worker = start(farm_db.info.dsn, **METRICS)
    url = worker.metrics_url()
    await_exact(farm_db, work)
    migration = connect()

    with migration.transaction():
        migration.execute("LOCK TABLE point IN ACCESS EXCLUSIVE MODE")
        migration.execute("UPDATE point SET int_cores = int_cores - 7")
        worker.await_event("deferred")

    await_exact(farm_db, work)
    assert faults(url, "lock_timeout") >= 1
    assert worker.end() == 0
    assert not worker.events("failed")


def test_a_statement_that_takes_too_long_is_ended_and_holds_up_no_other_show(
    farm_db: psycopg.Connection, start: Start
) -> None:
    work = managed_show(farm_db)
    slow = managed_show(farm_db)
    on_writing(farm_db, slow, "PERFORM pg_sleep(3600)")

    worker = start(farm_db.info.dsn, RETALLY_STATEMENT_TIMEOUT="1", **METRICS)
    url = worker.metrics_url()
    failure = worker.await_event("failed")

    await_exact(farm_db, work)
    assert (failure["show"], failure["kind"]) == (slow.show, "statement_timeout")
    assert faults(url, "statement_timeout") >= 1
    assert value(url, "show_failures_total", show=slow.show, kind="statement_timeout") >= 1
    farm_db.execute("DROP TRIGGER writing ON subscription")
    await_exact(farm_db, slow)
    assert worker.end() == 0


def test_a_show_that_fails_is_left_alone_by_all_workers_for_longer_and_longer(
    farm_db: psycopg.Connection, start: Start
) -> None:
    work = managed_show(farm_db)
    bad = managed_show(farm_db)
    on_writing(farm_db, bad, "RAISE 'too many cores' USING ERRCODE = 'io_error'")
    settings = METRICS | _OFTEN | {"RETALLY_TOTALS": "subscription"}
    workers = [start(farm_db.info.dsn, **settings) for _ in range(2)]
    urls = [worker.metrics_url() for worker in workers]

    await_true(lambda: due(farm_db, bad)[0] >= 4)
    assert "too many cores" in str(due(farm_db, bad)[1])
    assert cores(farm_db, work)[0] == 300
    assert cores(farm_db, bad)[0] == 0
    farm_db.execute("DROP TRIGGER writing ON subscription")
    await_true(lambda: cores(farm_db, bad)[0] == 300)

    await_true(lambda: due(farm_db, bad) == (0, None))
    counted = sum(value(url, "show_failures_total", show=bad.show) for url in urls)
    assert [worker.end() for worker in workers] == [0, 0]
    failures = sorted(
        (entry for worker in workers for entry in worker.events("failed")),
        key=lambda entry: entry["timestamp"],
    )
    assert {entry["show"] for entry in failures} == {bad.show}
    assert counted == len(failures)
    # one count for both workers: each pause is from the upper half of twice the one before
    for number, entry in enumerate(failures):
        longest = 0.1 * 2**number
        assert longest / 2 - 0.05 <= entry["retry_in_seconds"] <= longest + 0.05
    assert len({entry["retry_in_seconds"] / 2**n for n, entry in enumerate(failures)}) > 1


def due(conn: psycopg.Connection, work: Work) -> tuple[int, str | None]:
    query = "SELECT failures, error FROM retally.due WHERE scope = %s AND tick = 'subscription'"
    row = conn.execute(query, (work.show,)).fetchone()
    return row or (0, "")


def on_writing(conn: psycopg.Connection, work: Work, what: str) -> None:
    """The farm does this when the show's subscription is to hold over 250 core units."""
    conn.execute(
        "CREATE FUNCTION writing() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN {what}; RETURN NEW; END $$;"
        "CREATE TRIGGER writing BEFORE UPDATE ON subscription FOR EACH ROW"
        f" WHEN (NEW.pk_show = '{work.show}' AND NEW.int_cores > 250) EXECUTE FUNCTION writing()"
    )
