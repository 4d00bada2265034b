"""Keeping what passes found is cheap, and passes that keep at the same time get along."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from concurrency import await_blocked, run_in_background
from kept_passes import count, watch, wrong_show
from small_farm import Rows, make_work

from retally.procedures import TOTALS, routines
from retally.procedures.records import BY_HAND

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


def test_keeping_a_quiet_pass_writes_next_to_no_wal(farm_db: psycopg.Connection) -> None:
    shows = [make_work(Rows(farm_db)).show for _ in range(20)]
    watch(farm_db, shows)
    found = [each.token for each in routines.findings(farm_db, shows, TOTALS)]
    row = farm_db.execute(
        "EXPLAIN (ANALYZE, WAL, FORMAT JSON)"
        " SELECT retally.note_findings(%s::text[]::retally.finding[], 'watched', 't', 'me', 0.1)",
        (found,),
    ).fetchone()
    assert row is not None
    # 100 rows that were logged would be some 20,000; a page of the catalog may be tidied meanwhile
    assert row[0][0]["Plan"]["WAL Bytes"] < 1000
    assert {each.passes for each in routines.last_passes(farm_db)} == {2}


def test_the_rows_of_the_latest_passes_are_updated_in_place(farm_db: psycopg.Connection) -> None:
    shows = [make_work(Rows(farm_db)).show for _ in range(20)]
    for _ in range(50):
        watch(farm_db, shows)
    # 100 rows of some 200 bytes, half of each page left free: as small after 50 passes
    (size,) = farm_db.execute("SELECT pg_relation_size('retally.pass')").fetchone() or (0,)
    assert size <= 40 * 8192


def test_passes_over_the_same_shows_do_not_meet_in_a_deadlock(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    shows = [wrong_show(farm_db).show for _ in range(10)]
    together = threading.Barrier(3)

    def keep(conn: psycopg.Connection, order: list[str], mend: bool) -> None:
        for _ in range(15):
            together.wait(60)
            found = routines.findings(conn, order, TOTALS)
            if mend:
                routines.mend(conn, found, wait=True, tick="t", worker="other")
            else:
                routines.note_findings(
                    conn, found, action="watched", tick="t", worker="me", seconds=0
                )

    tasks = [(shows, False), (shows[::-1], False), (shows, True)]
    with ThreadPoolExecutor(3) as threads:
        done = [threads.submit(keep, connect(), order, mend) for order, mend in tasks]
        for each in done:
            each.result(60)
    assert {each.passes for each in routines.last_passes(farm_db)} == {45}


def test_passes_are_kept_in_the_order_of_the_totals_whatever_order_they_come_in(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    totals = ("subscription", "job")
    watch(farm_db, [work.show], totals)
    holder, waiter = connect(), connect()
    holder.autocommit = False
    watch(holder, [work.show], totals[:1])
    found = [each.token for each in routines.findings(farm_db, [work.show], totals)]
    waiting = run_in_background(
        waiter,
        "SELECT retally.note_findings(%s::text[]::retally.finding[], 'watched', 't', 'me', 0)",
        (found[::-1],),
    )
    await_blocked(farm_db, waiter)
    # whoever waits for the first one has not the second one: no two can wait for each other
    free = farm_db.execute("SELECT total FROM retally.pass FOR UPDATE SKIP LOCKED").fetchall()
    assert free == [("job",)]
    holder.commit()
    waiting.result(60)


def test_what_another_pass_is_about_to_defer_is_not_waited_for(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    defer = "SELECT retally.note_deferred(%s, 'job', '{key}')"
    farm_db.execute(defer, (work.show,))
    other = connect()
    other.autocommit = False
    other.execute(defer, (work.show,))
    farm_db.execute("SET lock_timeout = '1 ms'")

    watch(farm_db, [work.show])

    other.commit()
    assert count(farm_db, "deferred") == 1
    watch(farm_db, [work.show])
    assert count(farm_db, "deferred") == 0


def test_a_pass_by_hand_and_one_by_a_tick_do_not_wait_for_each_other(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    other = connect()
    other.autocommit = False
    found = routines.findings(other, [work.show], TOTALS)
    routines.note_findings(other, found, action="watched", tick=BY_HAND, worker="other", seconds=0)
    farm_db.execute("SET lock_timeout = '1 ms'")

    watch(farm_db, [work.show])

    other.commit()
    assert len(routines.last_passes(farm_db)) == 10
