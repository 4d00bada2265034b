"""Undoing a repair: rows that still hold the repaired value get back what they held before."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, run_in_background
from psycopg.errors import LockNotAvailable
from repair_farm import KEYS, TABLES, make_works, refuse_row, repair, spoil, state, written
from small_farm import Rows, Work, booking, manage, stored

from retally.procedures import TOTALS, repairs
from retally.procedures.booking import book, release
from retally.sql.errors import (
    ManagedShowError,
    UnknownRunError,
    WrongIsolationError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    """The unmanaged show "comet": four rows of each total, 300 core units and 2 GPUs each."""
    return make_works(Rows(farm_db), "comet")


def repaired(conn: psycopg.Connection, works: list[Work]) -> int:
    """A repair of the first work's row in each total, which lacked 7 core units."""
    for total in TOTALS:
        spoil(conn, works[0], total)
    run = repair(conn, works[0].show).run
    assert run is not None
    return run


def test_an_undo_puts_back_every_slot_and_is_a_run_of_its_own(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "job", 5, "int_local_cores")
    spoil(farm_db, works[1], "point", -1, "int_gpus")
    for total in TOTALS:
        spoil(farm_db, works[0], total)
    wrong = state(farm_db, works)
    run = repair(farm_db, works[0].show).run
    assert run is not None
    done = repairs.undo(farm_db, run)
    assert (done.rows_restored, done.rows_kept, done.rows_deferred) == (6, 0, 0)
    assert state(farm_db, works) == wrong
    before = written(farm_db, run)
    assert written(farm_db, done.run) == {slot: (b, a) for slot, (a, b) in before.items()}
    row = farm_db.execute("SELECT cause, undoes FROM retally.run WHERE run = %s", (done.run,))
    assert row.fetchone() == (f"undo of run {run}", run)


def test_an_undo_can_be_undone(farm_db: psycopg.Connection, works: list[Work]) -> None:
    exact = state(farm_db, works)
    first = repairs.undo(farm_db, repaired(farm_db, works))
    assert first.run is not None
    assert repairs.undo(farm_db, first.run).rows_restored == 5
    assert state(farm_db, works) == exact


def test_a_second_undo_of_a_run_finds_nothing_left(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    repairs.undo(farm_db, run)
    again = repairs.undo(farm_db, run)
    assert (again.run, again.rows_restored, again.rows_kept) == (None, 0, 5)


@pytest.mark.parametrize("total", TOTALS)
def test_a_row_that_was_changed_since_is_kept(
    farm_db: psycopg.Connection, works: list[Work], total: str
) -> None:
    run = repaired(farm_db, works)
    # another slot of the row than the one that was repaired may change: it is kept as it is
    spoil(farm_db, works[0], total, 1, "int_gpus")
    done = repairs.undo(farm_db, run)
    assert (done.rows_restored, done.rows_kept) == (5, 0)
    assert stored(farm_db, works[0], total)[:2] == (293, 3)

    assert done.run is not None
    spoil(farm_db, works[0], total, 1)
    again = repairs.undo(farm_db, done.run)
    assert (again.rows_restored, again.rows_kept) == (4, 1)
    assert stored(farm_db, works[0], total)[:2] == (294, 3)


def test_a_booking_between_repair_and_undo_keeps_all_its_rows(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    proc = book(farm_db, booking(works[0]))
    assert repairs.undo(farm_db, run).rows_kept == 5
    assert stored(farm_db, works[0], "layer")[0] == 400
    release(farm_db, proc)
    assert repairs.undo(farm_db, run).rows_restored == 5


def test_a_booking_that_waits_while_an_undo_writes_adds_on_top(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    undoer, booker = connect(), connect()
    undoer.execute("BEGIN")
    undoer.execute("CALL retally.undo(%s)", (run,))
    running = run_in_background(
        booker,
        "SELECT retally.book_proc(%s, %s, %s, NULL, 100, 1000)",
        (works[0].host, works[0].job, works[0].layer),
    )
    await_blocked(farm_db, booker)
    undoer.execute("COMMIT")
    running.result(60)
    assert [stored(farm_db, works[0], total)[0] for total in TOTALS] == [393] * 5


@pytest.mark.parametrize("total", TOTALS)
def test_a_row_that_stays_locked_is_left_and_can_be_undone_later(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work], total: str
) -> None:
    run = repaired(farm_db, works)
    holder = connect()
    holder.execute("BEGIN")
    holder.execute(
        f"SELECT FROM {TABLES[total]} WHERE {KEYS[total]} = %s FOR UPDATE", (works[0].key(total),)
    )
    done = repairs.undo(farm_db, run)
    assert (done.rows_restored, done.rows_kept, done.rows_deferred) == (4, 0, 1)
    holder.execute("COMMIT")
    later = repairs.undo(farm_db, run)
    assert (later.rows_restored, later.rows_kept, later.rows_deferred) == (1, 4, 0)


def test_an_undo_puts_a_row_back_above_its_cap(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    for total in ("subscription", "job"):
        spoil(farm_db, works[0], total, 100)
    run = repair(farm_db, works[0].show).run
    assert run is not None
    farm_db.execute("UPDATE subscription SET int_burst = 350")
    farm_db.execute("UPDATE job_resource SET int_max_cores = 350, int_max_gpus = 5")
    assert repairs.undo(farm_db, run).rows_restored == 2
    assert stored(farm_db, works[0], "subscription")[0] == 400
    assert stored(farm_db, works[0], "job")[0] == 400
    caps = farm_db.execute("SELECT DISTINCT int_max_cores, int_max_gpus FROM job_resource")
    assert caps.fetchall() == [(350, 5)]


def test_rows_and_shows_that_are_gone_hold_up_nothing(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    farm_db.execute("DELETE FROM point WHERE pk_dept = %s", (works[0].dept,))
    farm_db.execute(
        "INSERT INTO retally.ledger (run, scope, total, key, slot, before, after)"
        " VALUES (%s, 'gone', 'layer', 'gone', 'cores', 1, 2)",
        (run,),
    )
    listed = repairs.restorable(farm_db, run)
    assert {(e.show_id, e.total, e.now, e.restorable) for e in listed if not e.restorable} == {
        (works[0].show, "point", None, False),
        ("gone", "layer", None, False),
    }
    done = repairs.undo(farm_db, run)
    assert (done.rows_restored, done.rows_kept) == (4, 2)


def test_a_show_that_is_held_is_named_and_the_others_are_undone(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    rows = Rows(farm_db)
    first, second = make_works(rows, "a"), make_works(rows, "b")
    run = None
    for works in (first, second):
        spoil(farm_db, works[0], "layer")
        run = repair(farm_db, works[0].show, run=run).run
    assert run is not None
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, false)", (first[0].show,))
    done = repairs.undo(farm_db, run)
    assert done.shows_busy == (first[0].show,)
    assert done.rows_restored == 1
    assert stored(farm_db, second[0], "layer")[0] == 293
    holder.execute("COMMIT")
    later = repairs.undo(farm_db, run)
    assert (later.rows_restored, later.rows_kept, later.shows_busy) == (1, 1, ())


def by_its_own_flag(conn: psycopg.Connection, work: Work) -> None:
    manage(conn, work, True)


def by_the_flag_of_the_farm(conn: psycopg.Connection, work: Work) -> None:
    conn.execute("UPDATE retally.setting SET follow_farm_flag = TRUE")
    conn.execute("UPDATE show SET b_scheduler_managed = TRUE WHERE pk_show = %s", (work.show,))


@pytest.mark.parametrize(
    ("flag", "hint"),
    [
        (by_its_own_flag, "retally managed --show a off"),
        (by_the_flag_of_the_farm, "b_scheduler_managed"),
    ],
)
def test_a_show_that_is_managed_by_now_is_not_put_back_but_the_others_are(
    farm_db: psycopg.Connection, flag: Callable[[psycopg.Connection, Work], None], hint: str
) -> None:
    rows = Rows(farm_db)
    first, second = make_works(rows, "a"), make_works(rows, "b")
    run = None
    for works in (first, second):
        spoil(farm_db, works[0], "layer")
        run = repair(farm_db, works[0].show, run=run).run
    assert run is not None
    flag(farm_db, first[0])

    assert [(e.show, e.restorable) for e in repairs.restorable(farm_db, run)] == [
        ("a", False),
        ("b", True),
    ]
    exact = state(farm_db, first + second)
    with pytest.raises(ManagedShowError, match='show "a" is managed'), translated():
        farm_db.execute("CALL retally.undo(%s)", (run,))
    assert state(farm_db, first + second) == exact

    done = repairs.undo(farm_db, run)
    [refusal] = done.refusals
    assert 'show "a" is managed' in str(refusal)
    assert hint in refusal.hint
    assert done.rows_restored == 1
    assert stored(farm_db, first[0], "layer")[0] == 300
    assert stored(farm_db, second[0], "layer")[0] == 293


def test_an_undo_names_the_row_that_a_trigger_of_the_farm_does_not_take_back(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    refuse_row(farm_db, works[0])
    done = repairs.undo(farm_db, run)
    assert (done.rows_restored, done.rows_kept) == (4, 0)
    assert done.problems == (
        f"layer {works[0].job}/{works[0].layer}: the farm does not take back what it held:"
        " not this row",
    )


def test_an_undo_waits_for_the_ledger_no_longer_than_a_pass_may_and_then_changes_nothing(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    exact = state(farm_db, works)
    holder = connect()
    with holder.transaction():
        holder.execute("LOCK TABLE retally.run IN SHARE MODE")
        with pytest.raises(LockNotAvailable):
            farm_db.execute("CALL retally.undo(%s)", (run,))
    assert state(farm_db, works) == exact
    assert repairs.undo(farm_db, run).rows_restored == 5


def test_a_row_repaired_twice_in_one_run_keeps_what_was_booked_in_between(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer", -7)
    run = repair(farm_db, works[0].show).run
    assert run is not None
    book(farm_db, booking(works[0]))
    spoil(farm_db, works[0], "layer", -9)
    assert repair(farm_db, works[0].show, run=run).run == run
    assert written(farm_db, run) == {("layer", works[0].layer, "cores"): (384, 400)}
    first = repairs.undo(farm_db, run)
    assert stored(farm_db, works[0], "layer")[0] == 400 - 7 - 9
    assert first.run is not None
    repairs.undo(farm_db, first.run)
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []


def test_a_run_that_is_not_in_the_ledger_is_an_error(farm_db: psycopg.Connection) -> None:
    for run in (7, 10**30):
        with pytest.raises(UnknownRunError, match=str(run)):
            repairs.undo(farm_db, run)
    with pytest.raises(UnknownRunError), translated():
        farm_db.execute("CALL retally.undo(NULL)")


def test_an_undo_at_another_isolation_level_is_refused(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    run = repaired(farm_db, works)
    farm_db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    with pytest.raises(WrongIsolationError), translated():
        farm_db.execute("CALL retally.undo(%s)", (run,))
    farm_db.execute("ROLLBACK")
