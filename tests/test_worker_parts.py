"""The worker's parts by themselves: ticks, log, pauses, its check before it starts."""

from __future__ import annotations

import io
import json
import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from psycopg.conninfo import make_conninfo

from retally.procedures import TOTALS, uninstall
from retally.sql.backoff import LONGEST, Backoff
from retally.sql.connect import connect
from retally.sql.errors import (
    DatabaseUnreachableError,
    FarmSchemaError,
    NotInstalledError,
    PermissionDeniedError,
)
from retally.worker import Requests, Worker, WorkerSettings, configure_logging
from retally.worker.service import mind_the_clock
from retally.worker.spread import spread
from retally.worker.ticks import planned

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_PATIENCE = 60.0  # seconds, for what takes far below one


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    """A stream for the log; the log is as it was before, afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield io.StringIO()
    root.handlers = handlers
    root.setLevel(level)
    structlog.reset_defaults()


@pytest.mark.parametrize(
    ("totals", "ticks"),
    [
        (TOTALS, {"subscription": ("subscription",), "resource": TOTALS[1:]}),
        (("subscription",), {"subscription": ("subscription",)}),
        (("point", "layer"), {"resource": ("layer", "point")}),
    ],
)
def test_a_tick_without_totals_is_left_out(
    totals: tuple[str, ...], ticks: dict[str, tuple[str, ...]]
) -> None:
    assert {t.name: t.totals for t in planned(WorkerSettings(totals=totals))} == ticks


def test_pauses_double_up_to_the_longest_and_a_success_ends_them() -> None:
    backoff = Backoff(3.0)

    pauses = [backoff.failed() for _ in range(2000)]

    for failures, pause in enumerate(pauses):
        longest = min(3.0 * 2.0 ** min(failures, 20), LONGEST)
        assert longest / 2 <= pause <= longest
    assert len(set(pauses)) > 1000, "they are drawn"
    assert backoff.holds()
    backoff.succeeded()
    assert not backoff.holds()
    assert backoff.failed() <= 3.0


def test_no_more_tasks_than_the_width_are_in_the_pool_at_once() -> None:
    inside = threading.Semaphore(2)

    def task(number: int) -> int:
        assert inside.acquire(blocking=False), "a third one"
        inside.release()
        return number

    with ThreadPoolExecutor(8) as pool:
        assert sorted(spread(pool, 2, (partial(task, n) for n in range(50)))) == list(range(50))


def test_who_stops_early_gets_no_further_task_and_the_running_ones_are_waited_for() -> None:
    release, ended = threading.Event(), []

    def long_one() -> str:
        assert release.wait(_PATIENCE)
        ended.append("long")
        return "long"

    tasks: list[Any] = [lambda: "short", long_one, lambda: ended.append("never")]
    with ThreadPoolExecutor(2) as pool:
        results = spread(pool, 2, tasks)
        assert next(results) == "short"
        release.set()
        results.close()  # type: ignore[attr-defined]
        assert ended == ["long"]


def test_a_tick_that_a_changed_clock_has_put_far_off_runs_at_once() -> None:
    ran = threading.Event()
    scheduler = BackgroundScheduler(timezone=UTC)
    job = scheduler.add_job(ran.set, "interval", seconds=60)
    scheduler.start()
    try:
        job.modify(next_run_time=datetime.now(UTC) + timedelta(hours=1))
        assert mind_the_clock(scheduler)
        assert ran.wait(_PATIENCE)
    finally:
        scheduler.shutdown()


def test_the_log_in_json_holds_other_libraries_events_and_tracebacks_too(log: io.StringIO) -> None:
    configure_logging("json", "info", log)
    configure_logging("json", "info", log)  # twice is as good as once
    try:
        password = "hidden"  # noqa: F841 - a local variable: tracebacks leave them out
        raise RuntimeError("boom")
    except RuntimeError as error:
        structlog.get_logger().error("failed", show="show1", exc_info=error)
    logging.getLogger("somebody").warning("told %s", "plainly")
    structlog.get_logger().debug("quiet")

    ours, theirs = [json.loads(line) for line in log.getvalue().splitlines()]
    assert (ours["event"], ours["show"], ours["level"]) == ("failed", "show1", "error")
    assert "RuntimeError: boom" in ours["exception"]
    assert "hidden" not in ours["exception"]
    assert (theirs["event"], theirs["level"]) == ("told plainly", "warning")


def test_the_log_for_people_is_one_line_an_event_with_its_fields_in_order(log: io.StringIO) -> None:
    configure_logging("text", "info", log)

    structlog.get_logger().info("totals rebuilt", tick="resource", show="show1", rows_adrift=3)

    [line] = log.getvalue().splitlines()
    assert line.index("totals rebuilt") < line.index("tick=resource") < line.index("rows_adrift=3")


def refused(dsn: str) -> Worker:
    """A worker whose start has to fail."""
    requests = Requests()
    limit = threading.Timer(_PATIENCE, requests.stop.set)  # it would go on for ever otherwise
    limit.start()
    try:
        Worker(dsn).run(requests)
    finally:
        limit.cancel()
    raise AssertionError("it started")


def test_a_database_without_retally_ends_the_worker_at_its_start(
    farm_db: psycopg.Connection,
) -> None:
    uninstall(farm_db)
    with pytest.raises(NotInstalledError):
        refused(farm_db.info.dsn)


def test_a_database_whose_farm_has_gone_ends_the_worker_at_its_start(
    farm_db: psycopg.Connection,
) -> None:
    farm_db.execute("ALTER TABLE proc RENAME TO gone")
    with pytest.raises(FarmSchemaError, match=r"proc\.pk_proc"):
        refused(farm_db.info.dsn)


@pytest.mark.parametrize(
    "granted",
    [
        "SELECT 1",
        "GRANT USAGE ON SCHEMA retally TO reader;"
        " GRANT SELECT ON ALL TABLES IN SCHEMA public, retally TO reader",
    ],
    ids=["nothing", "reading"],
)
def test_a_role_that_may_not_write_ends_the_worker_at_its_start(
    farm_db: psycopg.Connection, granted: str
) -> None:
    farm_db.execute("CREATE ROLE reader LOGIN")
    try:
        farm_db.execute(granted)
        with pytest.raises(PermissionDeniedError) as denied:
            refused(make_conninfo(farm_db.info.dsn, user="reader"))
        assert denied.value.hint
    finally:
        farm_db.execute("DROP OWNED BY reader; DROP ROLE reader")


def test_a_database_that_is_not_there_ends_the_worker_at_its_start(
    farm_db: psycopg.Connection,
) -> None:
    with pytest.raises(DatabaseUnreachableError, match="nowhere"):
        refused(make_conninfo(farm_db.info.dsn, dbname="nowhere"))


@pytest.mark.parametrize("dsn", ["postgresql://u:se%cret@h/db", "host=h se_cret", "hots=se_cret"])
def test_a_dsn_that_cannot_be_read_is_refused_without_being_quoted(dsn: str) -> None:
    with pytest.raises(DatabaseUnreachableError) as refused_dsn:
        connect(dsn)
    assert "cret" not in f"{refused_dsn.value} {refused_dsn.value.hint}"
    assert refused_dsn.value.__suppress_context__
