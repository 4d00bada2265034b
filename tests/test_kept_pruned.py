"""How the history and the ledger are thinned out, beside ticks that go on."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, run_in_background
from kept_passes import count, note, times, wrong_show
from psycopg import sql

from retally.procedures import routines

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


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
        " clock_timestamp(), 0, 0, 0, 0, 0, 0, 0, '{}', NULL, NULL, NULL)::retally.pass])",
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
