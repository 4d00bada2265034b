"""What a pass of a tick cannot do: it is told, it stops nothing else, and it is tried again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from small_farm import Rows
from structlog.testing import capture_logs
from tick_farm import EMPTY, EXACT, everything, fail_for, make_due, tick, wrong_show
from worker_thread import events

from retally.procedures import routines
from retally.sql.errors import ShowBusyError
from retally.worker.ticks import Shared, TickRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from tick_farm import NewShared

    Connect = Callable[[], psycopg.Connection]

pytestmark = pytest.mark.usefixtures("plain_logging")


def test_a_show_that_fails_stops_no_other_one_and_is_named_with_its_error(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    first, failing, last = (wrong_show(farm_db) for _ in range(3))
    fail_for(farm_db, failing)

    with capture_logs() as logs:
        TickRunner(tick(), shared).run()

    assert everything(farm_db, first) == everything(farm_db, last) == EXACT
    assert everything(farm_db, failing) == EMPTY
    [failure] = events(logs, "failed")
    assert failure["show"] == failing.show
    assert "the disk is on fire" in failure["error"]
    assert failure["hint"] == "Call them."


def test_a_show_that_failed_is_left_alone_by_all_workers_until_its_pause_is_over(
    farm_db: psycopg.Connection, new_shared: NewShared
) -> None:
    failing = wrong_show(farm_db)
    fail_for(farm_db, failing)
    runners = [TickRunner(tick(interval=0.1), new_shared()) for _ in range(2)]
    kept = "SELECT failures, error, extract(EPOCH FROM every)::float FROM retally.due"
    pauses = []

    with capture_logs() as logs:
        for failures in range(1, 6):
            make_due(farm_db)
            for runner in runners:
                runner.run()
            # only the first one came to it
            counted, error, pause = farm_db.execute(kept).fetchall()[0]
            assert (counted, len(events(logs, "failed"))) == (failures, failures)
            assert "the disk is on fire" in error
            pauses.append(pause)
            farm_db.execute(
                "UPDATE retally.due SET due_at = clock_timestamp() + '1 hour', every = '1 hour'"
            )
        farm_db.execute("DROP TRIGGER refuse ON subscription")
        runners[0].run()
        assert everything(farm_db, failing) == EMPTY
        make_due(farm_db)
        runners[0].run()

    assert everything(farm_db, failing) == EXACT
    assert farm_db.execute(kept).fetchall() == [(0, None, 0.1)]
    for failures, pause in enumerate(pauses):
        assert 0.05 * 2**failures <= pause <= 0.1 * 2**failures


def test_data_of_one_show_that_cannot_be_summed_stops_no_other_show(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    first, bad, last = (wrong_show(farm_db) for _ in range(3))
    farm_db.execute("ALTER TABLE proc RENAME TO real_proc")
    farm_db.execute(
        "CREATE VIEW proc AS SELECT r.pk_proc, r.pk_host, r.pk_show, r.pk_job, r.pk_layer,"
        " r.int_gpus_reserved, r.b_local, r.int_cores_reserved"
        f" / CASE WHEN r.pk_show = '{bad.show}' THEN 0 ELSE 1 END AS int_cores_reserved"
        " FROM real_proc AS r"
    )

    with capture_logs() as logs:
        TickRunner(tick(), shared).run()

    assert everything(farm_db, first) == everything(farm_db, last) == EXACT
    assert everything(farm_db, bad) == EMPTY
    assert [(e["show"], e["error"]) for e in events(logs, "failed")] == [
        (bad.show, "division by zero (SQLSTATE 22012)")
    ]


def test_a_show_that_somebody_else_rebuilds_is_deferred_and_taken_by_the_next_pass(
    farm_db: psycopg.Connection, shared: Shared, connect: Connect
) -> None:
    held, free = wrong_show(farm_db), wrong_show(farm_db)
    runner = TickRunner(tick(), shared)
    other = connect()

    with capture_logs() as logs, other.transaction():
        other.execute("SELECT retally.hold_scope(%s, FALSE)", (held.show,))
        runner.run()

    assert everything(farm_db, held) == EMPTY
    assert everything(farm_db, free) == EXACT
    assert [e["show"] for e in events(logs, "deferred")] == [held.show]
    assert not events(logs, "failed")

    make_due(farm_db)
    runner.run()
    assert everything(farm_db, held) == EXACT


def test_a_show_that_another_worker_was_just_writing_is_served_in_the_same_pass(
    farm_db: psycopg.Connection,
    shared: Shared,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    work = wrong_show(farm_db)
    other = connect()
    other.execute("BEGIN")
    other.execute("SELECT retally.hold_scope(%s, FALSE)", (work.show,))
    mend = routines.mend

    def mend_and_let_go(*args: Any, **kwargs: Any) -> Any:
        try:
            return mend(*args, **kwargs)
        except ShowBusyError:
            other.execute("COMMIT")
            raise

    monkeypatch.setattr(routines, "mend", mend_and_let_go)
    with capture_logs() as logs:
        TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == EXACT
    assert not events(logs, "deferred")


def test_a_row_that_a_booking_holds_is_left_and_reported_as_deferred(
    farm_db: psycopg.Connection, shared: Shared, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    booking = connect()

    with capture_logs() as logs, booking.transaction():
        booking.execute("SELECT FROM point WHERE pk_show = %s FOR UPDATE", (work.show,))
        TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == [*EXACT[:-1], (0, 0)]
    [entry] = events(logs, "totals rebuilt")
    assert (entry["rows_adrift"], entry["rows_changed"], entry["rows_deferred"]) == (5, 4, 1)
    assert (entry["core_units"], entry["gpus"]) == (5 * 300, 5 * 2)


def test_a_table_that_a_migration_holds_defers_the_pass_instead_of_failing_it(
    farm_db: psycopg.Connection, shared: Shared, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    runner = TickRunner(tick(), shared)
    migration = connect()

    with capture_logs() as logs, migration.transaction():
        migration.execute("LOCK TABLE point IN ACCESS EXCLUSIVE MODE")
        runner.run()

    assert [(e["tick"], e.get("show")) for e in events(logs, "deferred")] == [("resource", None)]
    assert not events(logs, "failed")
    make_due(farm_db)
    runner.run()
    assert everything(farm_db, work) == EXACT


def test_a_problem_is_told_once_until_it_changes(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    farm_db.execute("DELETE FROM subscription WHERE pk_show = %s", (work.show,))
    runner = TickRunner(tick(), shared)

    def problems_of_a_pass() -> list[str]:
        make_due(farm_db)
        with capture_logs() as logs:
            runner.run()
        return [entry["problem"] for entry in events(logs, "problem")]

    [problem] = problems_of_a_pass()
    assert "subscription" in problem
    assert "300 core units" in problem
    assert problems_of_a_pass() == []
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=50)
    [changed] = problems_of_a_pass()
    assert "350 core units" in changed
