"""What a recompute does when rows of the totals are locked by others."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from concurrency import await_blocked, in_background, run_in_background
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.procedures import TOTALS, install

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[], psycopg.Connection]

LOCK = {
    "subscription": "SELECT FROM subscription WHERE pk_show = %s FOR UPDATE",
    "layer": "SELECT FROM layer_resource WHERE pk_layer = %s FOR UPDATE",
    "job": "SELECT FROM job_resource WHERE pk_job = %s FOR UPDATE",
    "folder": "SELECT FROM folder_resource WHERE pk_folder = %s FOR UPDATE",
    "point": "SELECT FROM point WHERE pk_dept = %s FOR UPDATE",
}


def lock(conn: psycopg.Connection, work: Work, total: str) -> None:
    """Lock the row of this total until the end of the session's transaction."""
    key = work.show if total == "subscription" else work.key(total)
    conn.execute("BEGIN")
    conn.execute(LOCK[total], (key,))


def await_locked(conn: psycopg.Connection, work: Work, total: str) -> None:
    """Return once somebody holds the row of this total."""
    key = work.show if total == "subscription" else work.key(total)
    while conn.execute(f"{LOCK[total]} SKIP LOCKED", (key,)).rowcount:
        pass


def wrong_show(conn: psycopg.Connection) -> Work:
    """A show with one proc of 300 core units, whose every total is wrong."""
    rows = Rows(conn)
    work = make_work(rows)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(conn)
    return work


def give_time(conn: psycopg.Connection, worker: psycopg.Connection) -> None:
    """Let this session wait for a minute, so that it is let go in time however slow the machine."""
    conn.execute("UPDATE retally.setting SET longest_wait = '1 min'")
    worker.execute("SET deadlock_timeout = '2 min'")


def cores(conn: psycopg.Connection, work: Work) -> dict[str, int]:
    return {total: stored(conn, work, total)[0] for total in TOTALS}


@pytest.mark.parametrize("busy", TOTALS)
def test_without_waiting_a_busy_row_is_left_and_reported_and_all_others_are_rebuilt(
    farm_db: psycopg.Connection, connect: Connect, busy: str
) -> None:
    work = wrong_show(farm_db)
    lock(connect(), work, busy)

    passes = {
        row[0]: row[1:]
        for row in farm_db.execute(
            "SELECT m.total, m.rows_changed, m.rows_deferred FROM retally.mend("
            " ARRAY(SELECT f FROM retally.findings(ARRAY[%s], retally.totals()) AS f), false"
            ") AS m",
            (work.show,),
        )
    }

    assert passes == {t: (0, 1) if t == busy else (1, 0) for t in TOTALS}
    assert cores(farm_db, work) == {t: -7 if t == busy else 300 for t in TOTALS}
    deferred = farm_db.execute("SELECT scope, total, key, passes FROM retally.deferred").fetchall()
    assert deferred == [(work.show, busy, work.key(busy), 1)]


@pytest.mark.parametrize("busy", TOTALS)
def test_a_row_that_stays_locked_is_given_up_and_never_shown_as_success(
    farm_db: psycopg.Connection, connect: Connect, busy: str
) -> None:
    work = wrong_show(farm_db)
    lock(connect(), work, busy)
    row = farm_db.execute("CALL retally.recompute_show(%s)", (work.show,)).fetchone()
    assert row is not None
    assert row[:4] == (5, 4, 1, 0)


@pytest.mark.parametrize("busy", TOTALS)
def test_a_waiting_recompute_takes_the_row_when_it_is_let_go(
    farm_db: psycopg.Connection, connect: Connect, busy: str
) -> None:
    work = wrong_show(farm_db)
    holder, worker = connect(), connect()
    lock(holder, work, busy)
    give_time(farm_db, worker)
    running = run_in_background(worker, f"CALL retally.recompute_{busy}(%s)", (work.show,))
    await_blocked(farm_db, worker)
    holder.execute("COMMIT")
    assert running.result(60)[0][:4] == (1, 1, 0, 0)
    assert cores(farm_db, work)[busy] == 300


def test_a_recompute_with_a_lock_in_hand_takes_a_busy_row_when_it_is_let_go(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    holder, worker = connect(), connect()
    lock(holder, work, "job")
    give_time(farm_db, worker)
    running = run_in_background(worker, "CALL retally.recompute_show(%s)", (work.show,))
    await_locked(farm_db, work, "subscription")
    holder.execute("COMMIT")
    assert running.result(60)[0][:4] == (5, 5, 0, 0)
    assert set(cores(farm_db, work).values()) == {300}


def test_what_commits_while_a_recompute_waits_for_the_row_is_in_its_sum(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    booking, worker = connect(), connect()
    booking.execute("BEGIN")
    Rows(booking).proc(work.host, work.show, work.job, work.layer, cores=100)
    booking.execute(
        "UPDATE subscription SET int_cores = int_cores + 100 WHERE pk_show = %s", (work.show,)
    )
    give_time(farm_db, worker)
    running = run_in_background(worker, "CALL retally.recompute_subscription(%s)", (work.show,))
    await_blocked(farm_db, worker)
    booking.execute("COMMIT")
    running.result(60)
    assert stored(farm_db, work, "subscription")[0] == 400


def test_a_row_deferred_a_few_passes_running_is_waited_for(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    holder, worker = connect(), connect()
    tick = (
        "SELECT sum(m.rows_deferred), sum(m.rows_changed) FROM retally.mend("
        " ARRAY(SELECT f FROM retally.findings(ARRAY[%s], ARRAY['subscription']) AS f), false) AS m"
    )
    lock(holder, work, "subscription")
    for _ in range(3):
        assert worker.execute(tick, (work.show,)).fetchone() == (1, 0)
    give_time(farm_db, worker)
    running = run_in_background(worker, tick, (work.show,))
    await_blocked(farm_db, worker)
    holder.execute("COMMIT")
    assert running.result(60) == [(0, 1)]
    assert farm_db.execute("SELECT FROM retally.deferred").fetchall() == []


def test_a_busy_row_is_waited_for_with_empty_hands_so_that_there_is_no_cycle(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    rows = Rows(farm_db)
    work = make_work(rows)
    layers = sorted([work.layer, rows.layer(work.job)])
    for layer in layers:
        rows.proc(work.host, work.show, work.job, layer, cores=100)
    writer, worker = connect(), connect()
    give_time(farm_db, worker)
    update = "UPDATE layer_resource SET int_max_rss = 1 WHERE pk_layer = %s"
    writer.execute("BEGIN")
    writer.execute(update, (layers[1],))
    running = run_in_background(worker, "CALL retally.recompute_layer(%s)", (work.show,))
    await_blocked(farm_db, worker)
    # the first row was free and is adrift, but nobody who waits holds it
    writer.execute("SET lock_timeout = '1ms'")
    writer.execute(update, (layers[0],))
    writer.execute("COMMIT")
    assert running.result(60)[0][:3] == (2, 2, 0)


def test_who_holds_a_lock_stands_in_no_queue_so_that_a_booking_is_never_blocked_for_long(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    writer, worker = connect(), connect()
    lock(writer, work, "layer")
    running = run_in_background(worker, "CALL retally.recompute_show(%s)", (work.show,))
    # now it holds the subscription's row and looks for the layer's: a cycle if it queued for it
    await_locked(farm_db, work, "subscription")
    writer.execute("UPDATE subscription SET int_size = 1 WHERE pk_show = %s", (work.show,))
    writer.execute("COMMIT")
    assert running.result(60)[0][:3] == (5, 4, 1)
    row = farm_db.execute("CALL retally.recompute_show(%s)", (work.show,)).fetchone()
    assert row is not None
    assert row[:3] == (1, 1, 0)


def test_a_transaction_that_has_written_before_stands_in_no_queue(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    writer, worker = connect(), connect()
    with worker.transaction():
        worker.execute("CALL retally.recompute_folder(%s)", (work.show,))
        lock(writer, work, "subscription")
        running = run_in_background(worker, "CALL retally.recompute_subscription(%s)", (work.show,))
        # asks for the folder's row, which the recompute holds: a cycle if that stood in a queue
        blocked = run_in_background(
            writer,
            "UPDATE folder_resource SET int_min_cores = 1 WHERE pk_folder = %s",
            (work.folder,),
        )
        assert running.result(60)[0][:3] == (1, 0, 1)
    blocked.result(60)
    writer.execute("COMMIT")


def test_rows_that_are_stuck_cost_a_pass_one_wait_together(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    rows = Rows(farm_db)
    work = make_work(rows)
    layers = [work.layer, *(rows.layer(work.job) for _ in range(19))]
    for layer in layers:
        rows.proc(work.host, work.show, work.job, layer)
    farm_db.execute("UPDATE retally.setting SET longest_wait = '100 ms'")
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM layer_resource WHERE pk_job = %s FOR UPDATE", (work.job,))
    # one after the other they would take 20 times as long, and the statement be ended
    farm_db.execute("SET statement_timeout = '1500 ms'")
    row = farm_db.execute("CALL retally.recompute_show(%s)", (work.show,)).fetchone()
    assert row is not None
    assert row[:3] == (24, 4, 20)


def test_a_key_with_several_rows_is_held_when_all_of_them_are(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    farm_db.execute(
        "INSERT INTO folder_resource (pk_folder_resource, pk_folder, int_cores)"
        " VALUES ('second', %s, 9)",
        (work.folder,),
    )
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM folder_resource WHERE pk_folder_resource = 'second' FOR UPDATE")
    row = farm_db.execute("CALL retally.recompute_folder(%s, false)", (work.show,)).fetchone()
    assert row is not None
    assert row[:3] == (2, 0, 1)
    holder.execute("COMMIT")
    row = farm_db.execute("CALL retally.recompute_folder(%s, false)", (work.show,)).fetchone()
    assert row is not None
    assert row[:3] == (2, 2, 0)
    both = farm_db.execute("SELECT int_cores FROM folder_resource").fetchall()
    assert both == [(300,), (300,)]


def test_the_caller_keeps_its_lock_timeout(farm_db: psycopg.Connection, connect: Connect) -> None:
    work = wrong_show(farm_db)
    holder = connect()
    lock(holder, work, "point")
    farm_db.execute("SET lock_timeout = '40ms'")
    with farm_db.transaction():
        row = farm_db.execute("CALL retally.recompute_show(%s)", (work.show,)).fetchone()
        assert row is not None
        assert row[2] == 1
        assert farm_db.execute("SHOW lock_timeout").fetchone() == ("40ms",)
        before = farm_db.execute("SELECT retally.set_lock_timeout('1 hour')").fetchone()
        assert before == ("40ms",)
        assert farm_db.execute("SHOW lock_timeout").fetchone() == ("40ms",)
        farm_db.execute("SELECT retally.set_lock_timeout('7 ms')")
        assert farm_db.execute("SHOW lock_timeout").fetchone() == ("7ms",)


def test_a_pass_waits_half_a_second_and_never_beyond_half_a_deadlock_timeout(
    farm_db: psycopg.Connection,
) -> None:
    budget = "SELECT extract(EPOCH FROM retally.lock_budget())::float8"
    for timeout, longest, expected in (
        ("1s", "500ms", 0.5),
        ("200ms", "500ms", 0.1),
        ("1min", "500ms", 0.5),
        ("1min", "2s", 2.0),
    ):
        farm_db.execute(f"SET deadlock_timeout = '{timeout}'")
        farm_db.execute(f"UPDATE retally.setting SET longest_wait = '{longest}'")
        assert farm_db.execute(budget).fetchone() == (expected,)


def test_a_row_is_waited_for_no_longer_than_the_limit(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    wait = "SELECT retally.wait_for_row(%s, 'layer', %s, %s::interval)"
    lock(connect(), work, "layer")
    assert farm_db.execute(wait, (work.show, work.layer, "-1s")).fetchone() == (False,)
    assert farm_db.execute(wait, (work.show, work.layer, "20ms")).fetchone() == (False,)
    assert farm_db.execute(wait, (work.show, "no such layer", "1s")).fetchone() == (True,)


def test_one_writer_per_show(farm_db: psycopg.Connection, connect: Connect) -> None:
    mine, other = wrong_show(farm_db), wrong_show(farm_db)
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, false)", (mine.show,))
    for wait in (True, False):
        with pytest.raises(psycopg.Error, match=mine.show) as caught:
            farm_db.execute("CALL retally.recompute_show(%s, %s)", (mine.show, wait))
        assert caught.value.sqlstate == "RT005"
    row = farm_db.execute("CALL retally.recompute_show(%s)", (other.show,)).fetchone()
    assert row is not None
    assert row[:3] == (5, 5, 0)


def test_of_two_recomputes_of_a_show_at_once_the_second_waits_and_finds_nothing_left(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    first, second = connect(), connect()
    give_time(farm_db, second)
    first.execute("BEGIN")
    first.execute("CALL retally.recompute_show(%s)", (work.show,))
    running = run_in_background(second, "CALL retally.recompute_show(%s)", (work.show,))
    await_blocked(farm_db, second)
    first.execute("COMMIT")
    assert running.result(60)[0][:4] == (0, 0, 0, 0)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_isolation_level_that_hides_new_bookings_is_refused(
    farm_db: psycopg.Connection, level: str
) -> None:
    work = wrong_show(farm_db)
    farm_db.execute(f"BEGIN ISOLATION LEVEL {level}")
    with pytest.raises(psycopg.Error, match="isolation level") as caught:
        farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    farm_db.execute("ROLLBACK")
    assert caught.value.sqlstate == "RT003"


def test_a_flip_that_meets_a_busy_row_changes_nothing(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    lock(connect(), work, "folder")
    with pytest.raises(psycopg.Error) as caught:
        farm_db.execute("CALL retally.set_managed(%s, true)", (work.show,))
    assert caught.value.sqlstate == "RT006"
    assert set(cores(farm_db, work).values()) == {-7}
    assert farm_db.execute("SELECT FROM retally.scope_flag").fetchall() == []


def test_two_installs_at_once_wait_for_each_other(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    first, second = connect(), connect()
    with first.transaction():
        install(first)
        running = in_background(lambda: install(second))
        await_blocked(farm_db, second)
    assert running.result(60).migrations == ()
