"""Managed shows are rebuilt in one transaction: procs are read once, rows written as found."""

from __future__ import annotations

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from concurrency import await_blocked, run_in_background
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_farm import Rows, Work, corrupt, make_work, stored
from test_beside_bookings import TABLES, Dispatcher, drift
from test_exactness import all_stored, brute_force, random_farm, versions
from test_locks import give_time, lock, wrong_show

from retally.procedures import TOTALS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    Connect = Callable[[], psycopg.Connection]

FOUND = "ARRAY(SELECT a FROM retally.adrift(ARRAY[%s], retally.totals()) AS a)"


def wrong_shows(conn: psycopg.Connection) -> tuple[Work, Work]:
    """Two shows with one proc of 300 core units each, whose every total is wrong."""
    first, second = make_work(Rows(conn)), make_work(Rows(conn))
    for work in (first, second):
        Rows(conn).proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(conn)
    return first, second


def rebuild(conn: psycopg.Connection, shows: Sequence[str]) -> list[Any]:
    """Show, total, rows adrift, changed, deferred and failed of each pass."""
    query = """
        SELECT p.scope, p.total, p.rows_adrift, p.rows_changed, p.rows_deferred, p.rows_failed
        FROM retally.rebuild(%s, retally.totals(), FALSE) AS p
    """
    return conn.execute(query, (list(shows),)).fetchall()


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_all_shows_at_once_hold_the_brute_force_sums_and_a_second_time_writes_nothing(
    farm_db: psycopg.Connection, seed: int
) -> None:
    with farm_db.transaction(force_rollback=True):
        shows = random_farm(farm_db, seed)
        corrupt(farm_db)
        first = rebuild(farm_db, shows)
        sums = brute_force(farm_db)
        assert all_stored(farm_db) == {k: sums.get(k, (0, 0, 0, 0)) for k in all_stored(farm_db)}
        assert all(changed == adrift for _, _, adrift, changed, _, _ in first)
        before = versions(farm_db)
        assert {row[2:5] for row in rebuild(farm_db, shows)} == {(0, 0, 0)}
        assert versions(farm_db) == before


def test_shows_and_totals_come_in_the_order_of_the_booking_path(
    farm_db: psycopg.Connection,
) -> None:
    works = wrong_shows(farm_db)
    rows = rebuild(farm_db, [work.show for work in reversed(works)])
    assert [row[:2] for row in rows] == [
        (show, total) for show in sorted(work.show for work in works) for total in TOTALS
    ]


@pytest.mark.parametrize("busy", TOTALS)
def test_a_busy_row_is_left_and_reported_and_all_others_are_rebuilt(
    farm_db: psycopg.Connection, connect: Connect, busy: str
) -> None:
    first, second = wrong_shows(farm_db)
    lock(connect(), first, busy)
    left = {(row[0], row[1]): row[3:5] for row in rebuild(farm_db, [first.show, second.show])}
    assert left.pop((first.show, busy)) == (0, 1)
    assert set(left.values()) == {(1, 0)}
    assert stored(farm_db, first, busy)[0] == -7
    assert {row[0] for row in drift(farm_db, first)} == {busy}
    assert drift(farm_db, second) == []


def test_a_show_that_another_session_is_writing_is_left(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    first, second = wrong_shows(farm_db)
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, FALSE)", (first.show,))
    assert {row[0] for row in rebuild(farm_db, [first.show, second.show])} == {second.show}
    assert len({row[0] for row in drift(farm_db, first)}) == len(TOTALS)
    assert drift(farm_db, second) == []


@pytest.mark.parametrize("total", TOTALS)
def test_a_row_that_was_booked_on_since_it_was_found_is_left(
    farm_db: psycopg.Connection, connect: Connect, total: str
) -> None:
    work = wrong_show(farm_db)
    found = farm_db.execute(f"SELECT {FOUND}::text[]", (work.show,)).fetchone()
    assert found is not None
    other = connect()
    with other.transaction():
        Rows(other).proc(work.host, work.show, work.job, work.layer, cores=50)
        for statement in TABLES:
            other.execute(statement, {**vars(work), "cores": 50, "gpus": 0})
    left = farm_db.execute(
        "SELECT l.total, l.key FROM unnest("
        "retally.write_found(%s, %s::text[]::retally.comparison[])) AS l",
        (total, found[0]),
    ).fetchall()
    assert left == [(total, work.key(total))]
    assert stored(farm_db, work, total)[0] == 43
    rebuild(farm_db, [work.show])
    assert drift(farm_db, work) == []


def test_a_cap_that_was_changed_since_the_row_was_found_stays(
    farm_db: psycopg.Connection,
) -> None:
    work = wrong_show(farm_db)
    found = farm_db.execute(f"SELECT {FOUND}::text[]", (work.show,)).fetchone()
    assert found is not None
    farm_db.execute("UPDATE subscription SET int_burst = 123")
    farm_db.execute("UPDATE job_resource SET int_max_cores = 145, int_max_gpus = 1")
    for total in ("subscription", "job"):
        left = farm_db.execute(
            "SELECT cardinality(retally.write_found(%s, %s::text[]::retally.comparison[]))",
            (total, found[0]),
        ).fetchone()
        assert left == (0,)
        assert stored(farm_db, work, total)[0] == 300
    caps = "SELECT int_burst, int_max_cores, int_max_gpus FROM subscription, job_resource"
    assert farm_db.execute(caps).fetchall() == [(123, 145, 1)]


def test_beside_bookings_with_increments_all_is_exact_each_time(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    """Each booking changes procs and rows alike, so that what was made exact stays exact."""
    works = [make_work(Rows(farm_db)) for _ in range(3)]
    for work in works:
        farm_db.execute("CALL retally.set_managed(%s, TRUE)", (work.show,))
    stop = threading.Event()
    seen: Counter[str] = Counter()
    with ThreadPoolExecutor(len(works)) as pool:
        try:
            running = [
                pool.submit(Dispatcher(connect(), work, seed).run, stop)
                for seed, work in enumerate(works)
            ]
            until = time.monotonic() + 15
            while time.monotonic() < until and not any(future.done() for future in running):
                corrupt(farm_db)
                seen["together"] += sum(
                    row[3] for row in rebuild(farm_db, [work.show for work in works])
                )
                row = farm_db.execute("CALL retally.recompute_all()").fetchone()
                assert row is not None
                assert (row[1], *row[4:6]) == (0, 0, 0)
                assert [drift(farm_db, work) for work in works] == [[], [], []]
                seen["rounds"] += 1
        finally:
            stop.set()
        done = sum((future.result(60) for future in running), Counter[str]())
    assert [drift(farm_db, work) for work in works] == [[], [], []]
    assert seen["rounds"] >= 5
    assert seen["together"] > 0
    assert done["booked"] > 100


@pytest.mark.parametrize("busy", TOTALS)
def test_a_busy_row_of_a_managed_show_is_waited_for_in_the_shows_own_turn(
    farm_db: psycopg.Connection, connect: Connect, busy: str
) -> None:
    works = [make_work(Rows(farm_db)) for _ in range(2)]
    for work in works:
        farm_db.execute("CALL retally.set_managed(%s, TRUE)", (work.show,))
        Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(farm_db)
    holder, worker = connect(), connect()
    lock(holder, works[0], busy)
    give_time(farm_db, worker)
    running = run_in_background(worker, "CALL retally.recompute_all()")
    await_blocked(farm_db, worker)
    # the other show is committed by then, and this one but for the row
    assert [drift(farm_db, works[1]), {row[0] for row in drift(farm_db, works[0])}] == [[], {busy}]
    holder.execute("COMMIT")
    # shows, failed, rows adrift, changed, deferred, failed
    assert running.result(60)[0][:6] == (2, 0, 10, 10, 0, 0)
    assert drift(farm_db, works[0]) == []


def test_a_row_that_the_farm_refuses_is_left_to_be_named_and_all_others_are_rebuilt(
    farm_db: psycopg.Connection,
) -> None:
    first, second = wrong_shows(farm_db)
    farm_db.execute(
        "ALTER TABLE layer_resource ADD CONSTRAINT odd"
        f" CHECK (pk_layer <> '{first.layer}' OR int_cores < 0)"
    )
    left = {row[:2]: row[3:] for row in rebuild(farm_db, [first.show, second.show])}
    assert left.pop((first.show, "layer")) == (0, 1, 0)
    assert set(left.values()) == {(1, 0, 0)}
    for work in (first, second):
        farm_db.execute("CALL retally.set_managed(%s, TRUE)", (work.show,))
    row = farm_db.execute("CALL retally.recompute_all()").fetchone()
    assert row is not None
    assert row[:6] == (2, 0, 1, 0, 0, 1)
    assert "the farm refuses it" in row[8][0]
