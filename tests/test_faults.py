"""Faults in mid-pass, against the real server: nothing hangs, totals are exact afterwards.

Each fault appears in the log and in the metrics. The workers are processes with the real command.
"""

from __future__ import annotations

import contextlib
import signal
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import apscheduler.schedulers.base
import psycopg
import pytest
import test_worker_process
from prometheus_client.parser import text_string_to_metric_families
from small_farm import Work, corrupt
from structlog.testing import capture_logs
from tcp_proxy import ENDED, Proxy, raises
from test_worker_process import (
    WorkerProcess,
    await_exact,
    await_waiter,
    cores,
    in_hand,
    managed_show,
    start,
    waits,
)

import retally.worker.service
from retally.procedures import TOTALS, install
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema
from retally.worker import Requests, Worker, WorkerSettings
from retally.worker import database as worker_database

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Connect = Callable[[], psycopg.Connection]
    Start = Callable[..., WorkerProcess]

__all__ = ["in_hand", "start"]  # fixtures

_PATIENCE = 60.0  # seconds, for what takes far below one
_DISK_FULL = raises("53100", "could not extend file: No space left on device")
_METRICS = {"RETALLY_METRICS_PORT": "0"}

# What a pass sends, as far as it can be told apart.
_CLAIM = "retally.claim_due("
_FIND = "retally.findings("
_MEND = "retally.mend("


@pytest.fixture
def proxy(farm_db: psycopg.Connection) -> Iterator[Proxy]:
    with Proxy(farm_db.info.dsn) as running:
        yield running


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show with a proc of 300 core units that its totals do not know."""
    return managed_show(farm_db)


def value(url: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels."""
    with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
        text = answer.read().decode()
    assert f"# TYPE retally_{name} " in text, f"no metric {name}"
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    return sum(
        s.value
        for s in samples
        if s.name == f"retally_{name}" and labels.items() <= s.labels.items()
    )


def url_of(worker: WorkerProcess) -> str:
    return str(worker.await_event("metrics served")["url"])


def faults(url: str, kind: str) -> float:
    return value(url, "faults_total", kind=kind)


def await_true(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not claim():
        assert time.monotonic() < deadline


# -- the line and the server


@pytest.mark.parametrize("sent", [True, False], ids=["before the answer", "before it arrives"])
@pytest.mark.parametrize(
    ("text", "within"),
    [(_CLAIM, ""), (_FIND, ""), (_MEND, ""), ("COMMIT", _MEND), ("COMMIT", _CLAIM)],
)
def test_a_connection_that_is_cut_in_mid_statement_is_replaced(
    farm_db: psycopg.Connection,
    proxy: Proxy,
    work: Work,
    start: Start,
    text: str,
    within: str,
    sent: bool,
) -> None:
    worker = start(proxy.dsn, **_METRICS)
    url = url_of(worker)
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
    farm_db: psycopg.Connection, proxy: Proxy, work: Work, start: Start
) -> None:
    proxy.instead(_MEND, ENDED)
    worker = start(proxy.dsn, **_METRICS)
    url = url_of(worker)

    lost = worker.await_event("database lost, waiting for it")

    await_exact(farm_db, work)
    assert "administrator" in lost["error"]
    assert faults(url, "database_lost") == 1
    assert worker.end() == 0


def test_a_server_that_is_restarted_in_mid_pass_finds_exact_totals_afterwards(
    start: Start,
) -> None:
    with EmbeddedServer.start(in_memory=True) as server, Proxy(server.dsn()) as proxy:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work = managed_show(conn)
        written = proxy.hold("COMMIT", within=_MEND, sent=False)
        worker = start(proxy.dsn, **_METRICS)
        url = url_of(worker)
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


def test_a_server_that_turns_everybody_away_for_a_while_is_waited_for(
    farm_db: psycopg.Connection, proxy: Proxy, work: Work, start: Start
) -> None:
    worker = start(proxy.dsn, **_METRICS)
    url = url_of(worker)
    await_exact(farm_db, work)

    with proxy.refusing():
        proxy.cut()
        worker.await_event("database lost, waiting for it")
        assert value(url, "database_up") == 0
        corrupt(farm_db)

    worker.await_event("database is back")
    await_exact(farm_db, work)
    assert faults(url, "database_lost") == 1
    assert worker.end() == 0


def test_a_slow_server_makes_passes_late_and_totals_exact(
    farm_db: psycopg.Connection, proxy: Proxy, work: Work, start: Start
) -> None:
    worker = start(proxy.dsn, **_METRICS)
    url = url_of(worker)
    await_exact(farm_db, work)

    with proxy.slow(0.1):
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
    worker = start(proxy.dsn, RETALLY_SHUTDOWN_GRACE="0.1")
    worker.await_event("totals rebuilt")

    with proxy.frozen():
        proxy.watch("").await_caught()  # it waits for the answer to whatever it was
        assert worker.end() == 0

    assert worker.log[-1]["event"] == "worker stopped"


def test_a_worker_outlives_a_frozen_line_and_is_exact_when_it_thaws(
    farm_db: psycopg.Connection, proxy: Proxy, work: Work, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_database, "_SLACK_SECONDS", 0.5)
    with in_process(proxy.dsn, statement_timeout=0.5) as (log, url):
        await_exact(farm_db, work)
        with proxy.frozen():
            await_true(lambda: bool(events(log, "connection cut")))
            corrupt(farm_db)

        await_exact(farm_db, work)
        assert faults(url(), "connection_cut") >= 1


# -- what the server refuses


@pytest.mark.parametrize(
    ("text", "within", "event"),
    [
        (_CLAIM, "", "failed"),
        (_FIND, "", "looking at each show by itself"),
        (_MEND, "", "failed"),
        ("COMMIT", _MEND, "failed"),
    ],
)
def test_a_full_disk_is_reported_and_tried_again(
    farm_db: psycopg.Connection,
    proxy: Proxy,
    work: Work,
    start: Start,
    text: str,
    within: str,
    event: str,
) -> None:
    worker = start(proxy.dsn, **_METRICS)
    url = url_of(worker)
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
    farm_db: psycopg.Connection, proxy: Proxy, work: Work, start: Start
) -> None:
    worker = start(proxy.dsn, **_METRICS)
    url = url_of(worker)
    # nothing that writes can be committed, not even the note of the failure
    full = proxy.instead("COMMIT", _DISK_FULL, within="retally.", times=6)
    corrupt(farm_db)

    await_true(lambda: full.count == full.times)

    await_exact(farm_db, work)
    assert faults(url, "disk_full") == full.times
    assert worker.end() == 0


def test_a_lock_that_is_not_had_in_time_defers_the_pass(
    farm_db: psycopg.Connection, connect: Connect, work: Work, start: Start
) -> None:
    worker = start(farm_db.info.dsn, **_METRICS)
    url = url_of(worker)
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
    farm_db: psycopg.Connection, work: Work, start: Start
) -> None:
    slow = managed_show(farm_db)
    on_writing(farm_db, slow, "PERFORM pg_sleep(3600)")

    worker = start(farm_db.info.dsn, RETALLY_STATEMENT_TIMEOUT="1", **_METRICS)
    url = url_of(worker)
    failure = worker.await_event("failed")

    await_exact(farm_db, work)
    assert (failure["show"], failure["kind"]) == (slow.show, "statement_timeout")
    assert faults(url, "statement_timeout") >= 1
    assert value(url, "show_failures_total", show=slow.show, kind="statement_timeout") >= 1
    farm_db.execute("DROP TRIGGER writing ON subscription")
    await_exact(farm_db, slow)
    assert worker.end() == 0


def test_a_show_that_fails_is_left_alone_by_all_workers_for_longer_and_longer(
    farm_db: psycopg.Connection, work: Work, start: Start
) -> None:
    bad = managed_show(farm_db)
    on_writing(farm_db, bad, "RAISE 'too many cores' USING ERRCODE = 'check_violation'")
    workers = [start(farm_db.info.dsn, RETALLY_TOTALS="subscription", **_METRICS) for _ in range(2)]
    urls = [url_of(worker) for worker in workers]

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
        longest = 0.2 * 2**number
        assert longest / 2 - 0.1 <= entry["retry_in_seconds"] <= longest + 0.1
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


# -- clocks


@pytest.mark.parametrize("away", ["-100 years", "100 years"])
def test_due_times_from_a_server_whose_clock_was_wrong_stop_nothing(
    farm_db: psycopg.Connection, work: Work, start: Start, away: str
) -> None:
    worker = start(farm_db.info.dsn, **_METRICS)
    await_exact(farm_db, work)

    farm_db.execute("UPDATE retally.due SET due_at = due_at + %s::interval", (away,))
    farm_db.execute("UPDATE retally.worker SET seen_at = seen_at + %s::interval", (away,))
    farm_db.execute("UPDATE retally.pass SET history_at = history_at + %s::interval", (away,))
    corrupt(farm_db)

    await_exact(farm_db, work)
    assert worker.end() == 0
    query = "SELECT count(*) FROM retally.due WHERE abs(extract(EPOCH FROM due_at - now())) > 60"
    assert farm_db.execute(query).fetchone() == (0,)


@pytest.mark.parametrize("step", [timedelta(hours=-1), timedelta(hours=1)])
def test_a_worker_whose_clock_is_set_goes_on(
    farm_db: psycopg.Connection,
    work: Work,
    monkeypatch: pytest.MonkeyPatch,
    step: timedelta,
) -> None:
    offset = [timedelta()]

    class Clock(datetime):
        @classmethod
        def now(cls, tz: Any = UTC) -> Any:
            return datetime.now(tz) + offset[0]

    monkeypatch.setattr(retally.worker.service, "datetime", Clock)
    monkeypatch.setattr(apscheduler.schedulers.base, "datetime", Clock)
    with in_process(farm_db.info.dsn) as (log, url):
        await_exact(farm_db, work)
        offset[0] = step
        corrupt(farm_db)

        await_exact(farm_db, work)
        if step < timedelta():
            await_true(lambda: bool(events(log, "the clock was set back")))
            assert faults(url(), "clock_stepped") >= 1


# -- signals


@pytest.mark.parametrize(
    "numbers", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGTERM)]
)
def test_a_second_signal_undoes_the_pass_in_hand_at_once(
    farm_db: psycopg.Connection,
    start: Start,
    in_hand: tuple[Work, psycopg.Connection],
    numbers: tuple[signal.Signals, signal.Signals],
) -> None:
    work, _ = in_hand
    worker = start(farm_db.info.dsn, RETALLY_TOTALS="subscription", RETALLY_SHUTDOWN_GRACE="86400")
    await_waiter(farm_db)

    worker.send(numbers[0])
    worker.await_event("worker stopping")
    assert worker.end(numbers[1]) == 0

    assert cores(farm_db, work)[0] == 0
    assert worker.events("pass broken off")
    assert not worker.events("failed")


def test_a_worker_that_is_killed_in_mid_pass_is_replaced_by_another(
    farm_db: psycopg.Connection, proxy: Proxy, work: Work, start: Start
) -> None:
    held = proxy.hold("COMMIT", within=_MEND, sent=False)
    killed = start(proxy.dsn)
    held.await_caught()
    other = start(farm_db.info.dsn)
    other.await_event("worker started")
    assert cores(farm_db, work) != [300] * len(TOTALS)

    killed.end(signal.SIGKILL)
    proxy.cut()  # it has held the statement back, and has not read on to the end

    await_exact(farm_db, work)
    assert other.end() == 0


class Command(WorkerProcess):
    """The real command, which reads a file."""

    def __init__(self, dsn: str, **settings: str) -> None:
        program = "import sys; from retally.cli import main; main(['worker', '--dsn', sys.argv[1]])"
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(test_worker_process, "_PROGRAM", program)
            super().__init__(dsn, **settings)


@pytest.fixture
def start_command() -> Iterator[Start]:
    with contextlib.ExitStack() as undo:

        def started(dsn: str, **settings: str) -> WorkerProcess:
            process = Command(dsn, **settings)
            undo.callback(process.close)
            return process

        yield started


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return tmp_path / "retally.toml"


def test_a_hang_up_takes_new_settings_over_and_the_pass_in_hand_ends(
    farm_db: psycopg.Connection,
    start_command: Start,
    in_hand: tuple[Work, psycopg.Connection],
    config: Path,
) -> None:
    work, holder = in_hand
    config.write_text('totals = ["subscription"]\n')
    worker = start_command(farm_db.info.dsn, RETALLY_CONFIG=str(config), **_METRICS)
    url = url_of(worker)
    await_waiter(farm_db)

    config.write_text("pool_size = 3\n")
    worker.send(signal.SIGHUP)
    read = worker.await_event("settings read again")
    assert waits(farm_db)
    holder.execute("ROLLBACK")

    await_exact(farm_db, work)
    assert set(read["changed"]) == {"totals", "pool_size"}
    assert value(url, "reloads_total", outcome="ok") == 1
    assert value(url, "tick_interval_seconds", tick="resource") == 0.3
    assert worker.end() == 0
    assert not worker.events("failed")


def test_settings_that_cannot_be_read_leave_the_former_ones_in_force(
    farm_db: psycopg.Connection, work: Work, start_command: Start, config: Path
) -> None:
    config.write_text('totals = ["subscription"]\n')
    worker = start_command(farm_db.info.dsn, RETALLY_CONFIG=str(config), **_METRICS)
    url = url_of(worker)

    config.write_text("pool_size = 'many'\n")
    worker.send(signal.SIGHUP)
    failure = worker.await_event("settings not read again")
    corrupt(farm_db)

    await_true(lambda: cores(farm_db, work)[0] == 300)
    assert cores(farm_db, work)[1:] == [-7] * 4
    assert "pool_size" in failure["error"]
    assert value(url, "last_reload_successful") == 0
    assert worker.end() == 0


# -- a worker in this process


def events(log: list[Any], name: str) -> list[Any]:
    return [entry for entry in log if entry["event"] == name]


@contextlib.contextmanager
def in_process(dsn: str, **settings: Any) -> Iterator[tuple[list[Any], Callable[[], str]]]:
    """A worker in a thread; its log as it grows, and where its metrics are."""
    requests = Requests()
    quick = {"subscription_interval": 0.2, "resource_interval": 0.3, "metrics_port": 0}
    worker = Worker(dsn, WorkerSettings(**(quick | settings)))
    with capture_logs() as log, ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run, requests)

        def url() -> str:
            await_true(lambda: bool(events(log, "metrics served")))
            return str(events(log, "metrics served")[0]["url"])

        try:
            yield log, url
        finally:
            requests.stop.set()
            running.result(_PATIENCE)
