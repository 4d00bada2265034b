"""What passes leave behind: the latest results, the history, and how both are thinned out."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from concurrency import await_blocked, run_in_background
from psycopg import sql
from small_farm import Rows, Work, corrupt, make_work, manage

from retally.procedures import TOTALS, install, routines
from retally.procedures.kept import history, kept, latest, left_adrift
from retally.procedures.records import BY_HAND
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[], psycopg.Connection]

HISTORY = (Path(__file__).parent.parent / "docs" / "history.md").read_text(encoding="utf-8")
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Found:
    """What a pass that the test makes up has found and done."""

    adrift: int = 0
    changed: int = 0
    deferred: int = 0
    failed: int = 0
    core_units: int = 0
    action: str = "watched"


QUIET = Found()
OLD_DRIFT = Found(adrift=1, core_units=100)


def note(
    conn: psycopg.Connection, at: float, found: Found = QUIET, scope: str = "show", tick: str = "t"
) -> None:
    """Keep such a pass over the jobs of a show; ``at``: seconds after START."""
    conn.execute(
        "SELECT retally.note_passes(ARRAY[ROW(%s, %s, 'job', %s, 'me', %s, 0.25, %s, %s, %s, %s,"
        " %s, 0, '{}', 0, 'epoch')::retally.pass])",
        (
            scope,
            tick,
            found.action,
            START + timedelta(seconds=at),
            found.adrift,
            found.changed,
            found.deferred,
            found.failed,
            found.core_units,
        ),
    )


def times(conn: psycopg.Connection) -> list[float]:
    """When the rows of the history are from, in seconds after START."""
    return [(row.finished_at - START).total_seconds() for row in reversed(history(conn))]


def wrong_show(conn: psycopg.Connection, name: str | None = None) -> Work:
    """A show with one proc of 300 core units, whose every total is wrong."""
    rows = Rows(conn)
    work = make_work(rows, name)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(conn)
    return work


def watch(conn: psycopg.Connection, show_ids: list[str], totals: tuple[str, ...] = TOTALS) -> None:
    found = routines.findings(conn, show_ids, totals)
    routines.note_findings(conn, found, action="watched", tick="t", worker="me", seconds=0.5)


def test_quiet_passes_leave_one_row_in_the_history_every_so_often(
    farm_db: psycopg.Connection,
) -> None:
    for second in range(0, 200, 3):
        note(farm_db, second)
    assert times(farm_db) == [0, 63, 126, 189]


def test_how_often_is_a_setting(farm_db: psycopg.Connection) -> None:
    farm_db.execute("UPDATE retally.setting SET history_every = '10 seconds'")
    for second in range(0, 31, 5):
        note(farm_db, second)
    assert times(farm_db) == [0, 15, 30]


@pytest.mark.parametrize(
    "found",
    [
        Found(adrift=1, core_units=100),
        Found(adrift=2, changed=2, core_units=100, action="rebuilt"),
        Found(adrift=2, changed=2, core_units=100, action="repaired"),
        Found(adrift=1, deferred=1, core_units=100, action="rebuilt"),
        Found(failed=1),
    ],
)
def test_a_pass_that_found_or_did_something_is_in_the_history_at_once(
    farm_db: psycopg.Connection, found: Found
) -> None:
    note(farm_db, 0)
    note(farm_db, 3, found)
    note(farm_db, 6)
    assert times(farm_db) == [0, 3]
    row = history(farm_db)[0]
    assert (row.rows_adrift, row.rows_changed, row.rows_deferred, row.rows_failed) == (
        found.adrift,
        found.changed,
        found.deferred,
        found.failed,
    )
    assert (row.core_units, row.action, row.worker, row.tick) == (
        found.core_units,
        found.action,
        "me",
        "t",
    )


def test_each_pass_that_changes_something_is_in_the_history(farm_db: psycopg.Connection) -> None:
    for second in (0, 3, 6, 9):
        note(farm_db, second, Found(adrift=1, changed=1, core_units=100, action="rebuilt"))
    assert times(farm_db) == [0, 3, 6, 9]


def test_the_same_drift_that_nobody_mends_is_no_news_but_a_growing_one_is(
    farm_db: psycopg.Connection,
) -> None:
    for second in (0, 3, 6, 63):
        note(farm_db, second, OLD_DRIFT)
    note(farm_db, 66, Found(adrift=1, core_units=200))
    note(farm_db, 69, Found(adrift=2, core_units=200))
    assert times(farm_db) == [0, 63, 66, 69]


def test_a_clock_that_was_set_back_silences_the_history_for_no_longer(
    farm_db: psycopg.Connection,
) -> None:
    for second in (3600, 0, 3, 63, 66):
        note(farm_db, second)
    assert times(farm_db) == [0, 63, 3600]


def test_each_show_and_tick_has_its_own_history(farm_db: psycopg.Connection) -> None:
    for scope in ("one", "other"):
        for tick in ("t", BY_HAND):
            note(farm_db, 0, scope=scope, tick=tick)
            note(farm_db, 3, scope=scope, tick=tick)
    found = {(row.show_id, row.tick) for row in history(farm_db)}
    assert len(history(farm_db)) == len(found) == 4


def test_the_first_pass_over_a_show_is_in_the_history(farm_db: psycopg.Connection) -> None:
    work = wrong_show(farm_db)
    watch(farm_db, [work.show])
    assert [row.total for row in history(farm_db)] == list(TOTALS)


def test_the_latest_pass_of_each_tick_is_kept_and_counted(farm_db: psycopg.Connection) -> None:
    for second in range(5):
        note(farm_db, second, Found(adrift=second))
    note(farm_db, 9, tick=BY_HAND)
    passes = {each.tick: each for each in routines.last_passes(farm_db)}
    assert passes["t"].passes == 5
    assert passes["t"].rows_adrift == 4
    assert passes[BY_HAND].passes == 1
    (last,) = latest(list(passes.values()))
    assert last.tick == BY_HAND


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (Found(adrift=3), 3),
        (Found(adrift=3, changed=3, action="rebuilt"), 0),
        (Found(adrift=3, changed=1, deferred=2, action="rebuilt"), 2),
        (Found(adrift=3, changed=2, deferred=1, action="repaired"), 1),
    ],
)
def test_what_a_pass_left_adrift_is_what_it_did_not_write(
    farm_db: psycopg.Connection, found: Found, left: int
) -> None:
    note(farm_db, 0, found)
    assert [left_adrift(each) for each in routines.last_passes(farm_db)] == [left]


def test_a_watched_show_is_kept_with_what_was_found(farm_db: psycopg.Connection) -> None:
    work = wrong_show(farm_db)

    watch(farm_db, [work.show])

    state = kept(farm_db)
    assert state is not None
    assert [(p.total, p.action, p.rows_adrift, p.core_units) for p in state.passes] == [
        (total, "watched", 1, 310 if total == "job" else 307) for total in TOTALS
    ]
    assert not state.empty


def test_who_is_due_who_fails_and_who_works_can_be_read(farm_db: psycopg.Connection) -> None:
    routines.claim_due(farm_db, "t", 10, ["one", "other"], "me")
    routines.claim_due(farm_db, "t", 10, [], "dead")
    routines.note_failure(farm_db, "t", "one", 60, "on fire")
    farm_db.execute("UPDATE retally.due SET due_at = clock_timestamp() WHERE scope = 'other'")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = clock_timestamp() - interval '26 s'"
        " WHERE worker = 'dead'"
    )

    state = kept(farm_db)

    assert state is not None
    assert [(t.show_id, t.is_due, t.failures, t.error, t.claimed_by) for t in state.turns] == [
        ("one", False, 1, "on fire", "me"),
        ("other", True, 0, None, "me"),
    ]
    assert [(b.worker, b.tick, b.every, b.alive) for b in state.heartbeats] == [
        ("dead", "t", 10.0, False),
        ("me", "t", 10.0, True),
    ]


def test_the_history_is_read_by_show_and_time(farm_db: psycopg.Connection) -> None:
    for second in range(0, 400, 100):
        for scope in ("one", "other"):
            note(farm_db, second, scope=scope)
    found = history(farm_db, show_ids=["one"], since=START + timedelta(seconds=100), limit=2)
    assert [(row.show_id, (row.finished_at - START).seconds) for row in found] == [
        ("one", 300),
        ("one", 200),
    ]


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


def age_everything(conn: psycopg.Connection, days: int) -> None:
    for statement in (
        "UPDATE retally.history SET finished_at = clock_timestamp() - %s",
        "UPDATE retally.run SET begun_at = clock_timestamp() - %s",
    ):
        conn.execute(statement, (timedelta(days=days),))


def pruned(conn: psycopg.Connection, rows: int = 10_000) -> tuple[int, int]:
    row = conn.execute("CALL retally.prune(%s)", (rows,)).fetchone()
    assert row is not None
    return row[0], row[1]


def count(conn: psycopg.Connection, table: str) -> int:
    query = sql.SQL("SELECT count(*) FROM retally.{}").format(sql.Identifier(table))
    (number,) = conn.execute(query).fetchone() or (0,)
    return int(number)


def add_runs(conn: psycopg.Connection, runs: int, rows: int) -> None:
    """So many repairs that wrote so many rows each."""
    conn.execute(
        "WITH r AS (INSERT INTO retally.run (worker, cause, forced)"
        " SELECT 'me', 'by hand', FALSE FROM generate_series(1, %s) RETURNING run)"
        " INSERT INTO retally.ledger (run, scope, total, key, slot, before, after)"
        " SELECT r.run, 'show', 'job', k::text, 'cores', 0, 1 FROM r, generate_series(1, %s) AS k",
        (runs, rows),
    )


@pytest.mark.parametrize(("days", "left"), [(6, 3), (8, 0)])
def test_the_history_is_pruned_by_age(farm_db: psycopg.Connection, days: int, left: int) -> None:
    for second in (0, 100, 200):
        note(farm_db, second)
    age_everything(farm_db, days)
    assert pruned(farm_db) == (3 - left, 0)
    assert count(farm_db, "history") == left


@pytest.mark.parametrize(("days", "left"), [(89, 2), (91, 0)])
def test_the_ledger_is_pruned_by_age(farm_db: psycopg.Connection, days: int, left: int) -> None:
    add_runs(farm_db, 2, 5)
    age_everything(farm_db, days)
    assert pruned(farm_db) == (0, 2 - left)
    assert (count(farm_db, "run"), count(farm_db, "ledger")) == (left, 5 * left)


def test_pruning_does_a_bounded_amount_of_work_the_oldest_first(
    farm_db: psycopg.Connection,
) -> None:
    for day in range(10):
        note(farm_db, day * 86_400)
    assert pruned(farm_db, 4) == (4, 0)
    assert [second / 86_400 for second in times(farm_db)] == [4, 5, 6, 7, 8, 9]


def test_a_run_is_pruned_with_all_of_its_rows_and_few_runs_at_a_time(
    farm_db: psycopg.Connection,
) -> None:
    add_runs(farm_db, 5, 6)
    age_everything(farm_db, 100)
    assert pruned(farm_db, 10) == (0, 2)
    assert (count(farm_db, "run"), count(farm_db, "ledger")) == (3, 18)


def test_what_is_kept_of_shows_that_are_gone_is_pruned(farm_db: psycopg.Connection) -> None:
    work = wrong_show(farm_db)
    for scope in (work.show, "gone"):
        note(farm_db, 0, scope=scope)
        routines.claim_due(farm_db, "t", 10, [scope], "me")
        farm_db.execute("SELECT retally.note_deferred(%s, 'job', '{key}')", (scope,))

    pruned(farm_db)

    for table in ("pass", "due", "deferred"):
        query = sql.SQL("SELECT scope FROM retally.{}").format(sql.Identifier(table))
        assert farm_db.execute(query).fetchall() == [(work.show,)], table


def test_workers_not_seen_for_a_day_and_shows_not_served_for_a_day_are_pruned(
    farm_db: psycopg.Connection,
) -> None:
    work = wrong_show(farm_db)
    routines.claim_due(farm_db, "t", 10, [], "alive")
    routines.claim_due(farm_db, "t", 10, [work.show], "gone")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = seen_at - interval '25 h' WHERE worker = 'gone'"
    )
    farm_db.execute("UPDATE retally.due SET due_at = due_at - interval '25 h'")

    pruned(farm_db)

    assert farm_db.execute("SELECT worker FROM retally.worker").fetchall() == [("alive",)]
    assert count(farm_db, "due") == 0


def test_of_two_prunes_at_a_time_one_works_and_the_other_waits_for_nothing(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    note(farm_db, 0)
    other = connect()
    other.autocommit = False
    assert pruned(other) == (1, 0)
    farm_db.execute("SET lock_timeout = '1 ms'")

    assert pruned(farm_db) == (0, 0)

    other.commit()
    assert count(farm_db, "history") == 0


def test_pruning_waits_for_no_tick(farm_db: psycopg.Connection, connect: Connect) -> None:
    routines.claim_due(farm_db, "t", 10, ["gone"], "me")
    farm_db.execute("UPDATE retally.due SET due_at = due_at - interval '1 h'")
    other = connect()
    other.autocommit = False
    assert routines.claim_due(other, "t", 10, ["gone"], "me").failures
    note(other, 0, scope="gone")
    farm_db.execute("SET lock_timeout = '1 ms'")

    pruned(farm_db)

    other.commit()
    assert count(farm_db, "due") == 1
    pruned(farm_db)
    assert count(farm_db, "due") == 0


def test_a_tick_that_meets_pruning_goes_on_after_it(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    note(farm_db, 0, scope="gone")
    other, tick = connect(), connect()
    other.autocommit = False
    pruned(other)
    claimed = run_in_background(
        tick,
        "SELECT retally.note_passes(ARRAY[ROW('gone', 't', 'job', 'watched', 'me',"
        " clock_timestamp(), 0, 0, 0, 0, 0, 0, 0, '{}', 0, 'epoch')::retally.pass])",
    )
    await_blocked(farm_db, tick)
    other.commit()
    claimed.result(60)
    assert count(farm_db, "pass") == 1


def test_old_rows_are_found_through_an_index_in_a_long_history(
    farm_db: psycopg.Connection,
) -> None:
    farm_db.execute(
        "INSERT INTO retally.history SELECT clock_timestamp() - g * interval '1 s',"
        " 'show' || g % 20, 't', 'job', 'watched', 'me', 0.1, 0, 0, 0, 0, 0, 0"
        " FROM generate_series(1, 20000) AS g; ANALYZE retally.history"
    )
    plan = farm_db.execute(
        "EXPLAIN SELECT h.ctid FROM retally.history AS h"
        " WHERE h.finished_at < timestamptz 'now' - interval '7 d'"
        " ORDER BY h.finished_at LIMIT 10000"
    ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "history_finished_at" in text, text


def queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", HISTORY, re.DOTALL)


@pytest.mark.parametrize("query", queries())
def test_each_query_of_the_page_on_the_history_answers(
    farm_db: psycopg.Connection, query: str
) -> None:
    work = wrong_show(farm_db, "show1")
    manage(farm_db, work, True)
    routines.claim_due(farm_db, "subscription", 3, [work.show], "me")
    routines.note_failure(farm_db, "subscription", work.show, 60, "on fire")
    corrupt(farm_db)
    found = routines.findings(farm_db, [work.show], TOTALS)
    routines.note_findings(
        farm_db, found, action="watched", tick="resource", worker="me", seconds=0.5
    )
    assert farm_db.execute(query.encode()).fetchall()


def test_after_a_crash_of_the_server_nothing_is_kept_and_passes_go_on() -> None:
    with EmbeddedServer.start(in_memory=True) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            note(conn, 0)
            conn.execute("CHECKPOINT")  # this server does not wait for its disk
        own.crash()
        own.start_server()
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            state = kept(conn)
            assert state is not None
            assert state.empty
            note(conn, 3)
            assert times(conn) == [3]


def test_a_replica_has_nothing_kept_and_says_so() -> None:
    with EmbeddedServer.start(in_memory=True) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
        own.stop_server()
        (own.data_dir / "standby.signal").touch()
        own.start_server()
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            assert kept(conn) is None
