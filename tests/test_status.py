"""What ``retally status`` tells of passes, shows that fail, and workers."""

from __future__ import annotations

import csv
import io
import json
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner, Result
from small_farm import Rows, Work, corrupt, make_work, manage

from retally.cli import main
from retally.procedures import TOTALS, install, repairs, routines
from retally.sql.embedded import EmbeddedServer
from retally.sql.errors import RepairRefusedError
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    Retally = Callable[..., Result]


def runner_for(dsn: str) -> Retally:
    return lambda *args: CliRunner().invoke(main, args, env={"RETALLY_DSN": dsn})


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``."""
    return runner_for(farm_db.info.dsn)


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """An unmanaged show with one proc of 300 core units, whose every total is wrong."""
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(farm_db)
    return work


def serve(conn: psycopg.Connection, work: Work, tick: str = "subscription") -> None:
    """What the tick of a worker does to a show that is only watched."""
    totals = TOTALS[:1] if tick == "subscription" else TOTALS[1:]
    routines.claim_due(conn, tick, 10, [work.show], "host1:4711")
    found = routines.findings(conn, [work.show], totals)
    routines.note_findings(
        conn, found, action="watched", tick=tick, worker="host1:4711", seconds=0.5
    )


def fail(conn: psycopg.Connection, work: Work, error: str = "on fire", times: int = 1) -> None:
    for _ in range(times):
        routines.note_failure(conn, "subscription", work.show, 60, error)


def rows_of(retally: Retally, *args: str) -> list[dict[str, Any]]:
    result = retally("status", *args, "--format", "json")
    assert result.exit_code == 0
    return list(json.loads(result.stdout))


def spelled(value: Any) -> str:
    """As CSV has it."""
    if value is None or isinstance(value, str):
        return value or ""
    return json.dumps(value)


def test_what_is_adrift_is_told_by_the_latest_pass_and_not_by_summing_procs(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    (row,) = rows_of(retally)
    assert (row["rows_left_adrift"], row["core_units_left_adrift"]) == (1, 307)
    serve(farm_db, work, "resource")
    (row,) = rows_of(retally)
    assert (row["rows_left_adrift"], row["rows_adrift"], row["gpus_left_adrift"]) == (5, 5, 7)
    retally("recompute", "--show", "comet", "--force")
    (row,) = rows_of(retally)
    assert (row["rows_left_adrift"], row["rows_changed"], row["tick"]) == (0, 5, "by hand")


@pytest.mark.usefixtures("work")
def test_a_show_without_passes_has_no_amounts(retally: Retally) -> None:
    (row,) = rows_of(retally)
    assert {row[name] for name in ("last_pass", "rows_left_adrift", "rows_adrift", "worker")} == {
        None
    }
    assert "none are kept" in retally("status").stdout


def test_each_tick_has_its_last_pass_and_its_worker(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work, "resource")
    farm_db.execute("UPDATE retally.pass SET finished_at = finished_at - interval '3 min'")
    serve(farm_db, work)
    (row,) = rows_of(retally)
    assert row["worker"] == "host1:4711"
    assert row["tick"] == "subscription"
    assert row["last_pass"] == row["subscription_pass"]
    between = datetime.fromisoformat(row["last_pass"]) - datetime.fromisoformat(
        row["resource_pass"]
    )
    assert between >= timedelta(minutes=3)
    told = retally("status").stdout
    assert "s, 3 min" in told
    assert (
        "ticks       subscription every 10 s, resource every 10 s; under last pass in this order\n"
        in told
    )


@pytest.mark.parametrize("mode", ["off", "watch", "repair", None])
def test_the_mode_of_an_unmanaged_show_is_told(
    farm_db: psycopg.Connection, retally: Retally, work: Work, mode: str | None
) -> None:
    routines.set_mode(farm_db, work.show, mode)
    assert rows_of(retally)[0]["mode"] == (mode or "default")
    manage(farm_db, work, True)
    assert rows_of(retally)[0]["mode"] == "rebuild"


def test_a_failing_show_is_told_with_its_error_and_when_it_is_tried_again(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    fail(farm_db, work, "on fire\nand more", times=3)
    (row,) = rows_of(retally)
    assert (row["failures"], row["failing_tick"], row["error"]) == (
        3,
        "subscription",
        "on fire\nand more",
    )
    assert row["retry_at"] > row["last_pass"]
    told = retally("status").stdout
    assert "failing     comet: subscription failed 3 times: on fire and more; again in" in told
    routines.note_recovery(farm_db, "subscription", [work.show])
    assert "failing" not in retally("status").stdout


def test_a_refused_repair_is_told_with_what_it_saw(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    found = routines.findings(farm_db, [work.show], TOTALS)
    with pytest.raises(RepairRefusedError) as refused:
        repairs.repair(farm_db, found, wait=False, tick="t", worker="me", asked_by="tick t")
    fail(farm_db, work, str(refused.value))
    assert "is refused" in retally("status").stdout


def test_a_show_that_is_off_does_not_fail(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    fail(farm_db, work)
    routines.set_mode(farm_db, work.show, "off")
    assert rows_of(retally)[0]["failures"] == 0


def test_of_many_failing_shows_some_are_told_and_the_others_counted(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    for _ in range(13):
        work = make_work(Rows(farm_db))
        serve(farm_db, work)
        fail(farm_db, work)
    told = retally("status").stdout
    assert told.count("on fire") == 10
    assert "… and 3 more" in told
    assert sum(row["failures"] for row in rows_of(retally)) == 13


def test_shows_that_are_due_are_counted(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    manage(farm_db, work, True)
    serve(farm_db, work)
    assert rows_of(retally)[0]["due"] is False
    farm_db.execute("UPDATE retally.due SET due_at = clock_timestamp()")
    assert rows_of(retally)[0]["due"] is True
    assert "due         1 show now" in retally("status").stdout


def test_workers_are_told_with_their_shares_and_one_that_died_as_gone(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    routines.claim_due(farm_db, "subscription", 10, [], "host2:1")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = seen_at - interval '40 s' WHERE worker = 'host2:1'"
    )
    told = retally("status").stdout
    assert "workers     host1:4711: subscription 0 s ago, 1 show\n" in told
    assert "gone        host2:1, 40 s ago\n" in told
    found = rows_of(retally, "--workers")
    assert [(row["worker"], row["alive"], row["shows"], row["every_seconds"]) for row in found] == [
        ("host1:4711", True, 1, 10.0),
        ("host2:1", False, 0, 10.0),
    ]


def test_many_workers_that_are_gone_are_one_line(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    for number in range(20):
        routines.claim_due(farm_db, "subscription", 10, [], f"host2:{number}")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = seen_at - interval '40 s'"
        " - split_part(worker, ':', 2)::integer * interval '1 s' WHERE worker LIKE 'host2:%%'"
    )
    told = retally("status").stdout
    assert "gone        20 workers, the last one host2:0, 40 s ago\n" in told
    assert told.count("host2") == 1


def test_a_worker_whose_tick_is_late_is_told_as_overdue_before_it_is_gone(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    serve(farm_db, work, "resource")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = seen_at - interval '14 s' WHERE tick = 'subscription'"
    )
    told = retally("status").stdout
    assert "subscription 14 s ago (overdue: every 10 s), 1 show" in told
    assert "resource 0 s ago, 1 show" in told
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = seen_at - interval '40 s' WHERE tick = 'subscription'"
    )
    assert "subscription gone since 54 s" in retally("status").stdout


def test_the_table_of_workers_speaks_of_intervals_and_ages(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    farm_db.execute("UPDATE retally.worker SET seen_at = seen_at - interval '14 s'")
    lines = retally("status", "--workers").stdout.splitlines()
    assert lines[-2].split() == ["worker", "tick", "every", "last", "seen", "alive", "shows"]
    assert lines[-1].split() == [
        "host1:4711", "subscription", "10", "s", "14", "s", "ago", "yes", "1",
    ]  # fmt: skip


def adrift(retally: Retally) -> tuple[Any, ...]:
    (row,) = rows_of(retally)
    return (row["rows_left_adrift"], row["core_units_left_adrift"], row["rows_adrift"])


def test_a_show_that_is_off_has_no_amounts(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    assert adrift(retally) == (1, 307, 1)
    routines.set_mode(farm_db, work.show, "off")
    assert adrift(retally) == (None, None, None)
    assert rows_of(retally)[0]["last_pass"] is not None
    (line,) = [each for each in retally("status").stdout.splitlines() if "comet" in each]
    assert line.split()[-4:] == ["-"] * 4
    manage(farm_db, work, True)  # rebuilt, whatever its mode
    assert adrift(retally)[0] is not None


@pytest.mark.parametrize(
    ("every", "minutes", "known"), [(10, 4, True), (10, 6, False), (60, 9, True), (60, 11, False)]
)
def test_a_result_is_no_news_of_the_present_after_five_minutes_or_ten_intervals(
    farm_db: psycopg.Connection,
    retally: Retally,
    work: Work,
    every: int,
    minutes: int,
    known: bool,
) -> None:
    serve(farm_db, work)
    fail(farm_db, work)
    age = timedelta(minutes=minutes)
    farm_db.execute("UPDATE retally.pass SET finished_at = finished_at - %s", (age,))
    farm_db.execute(
        "UPDATE retally.due SET due_at = clock_timestamp() - %s, every = %s",
        (age, timedelta(seconds=every)),
    )
    assert (adrift(retally)[0] is not None) == known
    assert bool(rows_of(retally)[0]["failures"]) == known
    routines.set_mode(farm_db, work.show, "watch")  # now somebody has to serve it
    assert rows_of(retally)[0]["failures"] == 1


def test_csv_has_the_columns_of_json(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    serve(farm_db, work)
    for options in ([], ["--workers"]):
        as_json = rows_of(retally, *options)
        text = retally("status", *options, "--format", "csv").stdout
        as_csv = list(csv.DictReader(io.StringIO(text)))
        assert as_csv == [{name: spelled(value) for name, value in row.items()} for row in as_json]


def test_the_table_fits_a_terminal_of_100_columns(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    manage(farm_db, work, True)
    for tick in ("subscription", "resource"):
        serve(farm_db, work, tick)
    farm_db.execute("UPDATE show SET b_scheduler_managed = TRUE")
    assert max(map(len, retally("status").stdout.splitlines())) <= 100


def test_a_crash_of_the_server_and_a_replica_are_told_in_words() -> None:
    with EmbeddedServer.start(in_memory=True) as own:
        retally = runner_for(own.dsn())
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work = make_work(Rows(conn), "comet")
            serve(conn, work)
            conn.execute("CHECKPOINT")  # this server does not wait for its disk
        assert "none are kept" not in retally("status").stdout
        own.crash()
        own.start_server()
        assert "its server has crashed since" in retally("status").stdout
        own.stop_server()
        (own.data_dir / "standby.signal").touch()
        own.start_server()
        for command in (["status"], ["watch", "--once"]):
            result = retally(*command)
            assert result.exit_code == 0, result.output
            assert "not on a replica" in result.stdout
        (row,) = rows_of(retally)
        assert row["last_pass"] is None
        assert rows_of(retally, "--workers") == []
