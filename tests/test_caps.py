"""Totals above their caps are legal truth: stored without raising, and the cap stays the cap."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, run_in_background
from psycopg.errors import IoError
from repair_farm import KEYS, TABLES, make_works
from small_farm import Rows, Work, make_work, stored

from retally.procedures import TOTALS

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]

CAPS = "SELECT int_max_cores, int_max_gpus FROM job_resource WHERE pk_job = %s"
BURST = "SELECT int_burst FROM subscription WHERE pk_show = %s"


def work_of(conn: psycopg.Connection, cores: int = 900, gpus: int = 4) -> Work:
    """A show whose one proc is in no total yet."""
    rows = Rows(conn)
    work = make_work(rows)
    rows.proc(work.host, work.show, work.job, work.layer, cores=cores, gpus=gpus)
    return work


def recompute(conn: psycopg.Connection, work: Work) -> tuple[int, ...]:
    row = conn.execute("CALL retally.recompute_show(%s)", (work.show,)).fetchone()
    assert row is not None
    return tuple(row[:4])


@pytest.mark.parametrize("burst", [0, 100, 899, 900, 901, -1])
def test_a_subscription_may_rise_above_its_burst(farm_db: psycopg.Connection, burst: int) -> None:
    work = work_of(farm_db)
    farm_db.execute("UPDATE subscription SET int_burst = %s", (burst,))
    assert recompute(farm_db, work) == (5, 5, 0, 0)
    assert stored(farm_db, work, "subscription")[:2] == (900, 4)
    assert farm_db.execute(BURST, (work.show,)).fetchone() == (burst,)


@pytest.mark.parametrize("max_cores", [-1, 0, 899, 900])
@pytest.mark.parametrize("max_gpus", [-1, 0, 3, 4])
def test_a_job_may_rise_above_its_maxima(
    farm_db: psycopg.Connection, max_cores: int, max_gpus: int
) -> None:
    work = work_of(farm_db)
    farm_db.execute("UPDATE job_resource SET int_max_cores = %s", (max_cores,))
    farm_db.execute("UPDATE job_resource SET int_max_gpus = %s", (max_gpus,))
    assert recompute(farm_db, work) == (5, 5, 0, 0)
    assert stored(farm_db, work, "job") == (900, 4, 0, 0)
    assert farm_db.execute(CAPS, (work.job,)).fetchone() == (max_cores, max_gpus)


def test_a_job_may_rise_in_one_slot_while_the_other_is_above_its_maximum_already(
    farm_db: psycopg.Connection,
) -> None:
    work = work_of(farm_db)
    recompute(farm_db, work)
    farm_db.execute("UPDATE job_resource SET int_max_gpus = 1")
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=100)
    assert recompute(farm_db, work) == (5, 5, 0, 0)
    assert stored(farm_db, work, "job") == (1000, 4, 0, 0)


def test_a_cap_lowered_below_use_is_kept_while_the_total_rises_and_falls(
    farm_db: psycopg.Connection,
) -> None:
    work = work_of(farm_db)
    recompute(farm_db, work)
    farm_db.execute("UPDATE subscription SET int_burst = 500")
    extra = Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=100)
    recompute(farm_db, work)
    assert stored(farm_db, work, "subscription")[0] == 1000
    farm_db.execute("DELETE FROM proc WHERE pk_proc = %s", (extra,))
    recompute(farm_db, work)
    assert stored(farm_db, work, "subscription")[0] == 900
    assert farm_db.execute(BURST, (work.show,)).fetchone() == (500,)


def test_a_cap_changed_while_the_recompute_waits_for_its_row_survives(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = work_of(farm_db)
    admin, worker = connect(), connect()
    admin.execute("BEGIN")
    admin.execute("UPDATE subscription SET int_burst = 600")
    farm_db.execute("UPDATE retally.setting SET longest_wait = '1 min'")
    worker.execute("SET deadlock_timeout = '2 min'")
    running = run_in_background(worker, "CALL retally.recompute_show(%s)", (work.show,))
    await_blocked(farm_db, worker)
    admin.execute("COMMIT")
    assert running.result(60)[0][:4] == (5, 5, 0, 0)
    assert farm_db.execute(BURST, (work.show,)).fetchone() == (600,)
    assert stored(farm_db, work, "subscription")[0] == 900


def test_a_cap_changed_after_the_row_was_written_and_before_the_commit_survives(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = work_of(farm_db)
    farm_db.execute("UPDATE subscription SET int_burst = 100")
    farm_db.execute("UPDATE job_resource SET int_max_cores = 100, int_max_gpus = 1")
    admin, worker = connect(), connect()
    admin.execute("SET deadlock_timeout = '60s'")
    with worker.transaction():
        assert recompute(worker, work) == (5, 5, 0, 0)
        changing = run_in_background(
            admin,
            "WITH job AS (UPDATE job_resource SET int_max_cores = 700, int_max_gpus = 2)"
            " UPDATE subscription SET int_burst = 800",
        )
        await_blocked(farm_db, admin)
    changing.result(60)
    assert farm_db.execute(BURST, (work.show,)).fetchone() == (800,)
    assert farm_db.execute(CAPS, (work.job,)).fetchone() == (700, 2)
    assert stored(farm_db, work, "subscription")[0] == 900
    assert stored(farm_db, work, "job")[:2] == (900, 4)


def refuse(conn: psycopg.Connection, work: Work, total: str, error: str) -> None:
    """From now on a rule of the farm raises over this work's row of the total, over no other."""
    conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE 'no % of this one', TG_TABLE_NAME USING ERRCODE = '{error}'; END $$;"
        f"CREATE TRIGGER refuse BEFORE UPDATE ON {TABLES[total]} FOR EACH ROW"
        f" WHEN (NEW.{KEYS[total]} = '{work.key(total)}') EXECUTE FUNCTION refuse()"
    )


def above_their_caps(conn: psycopg.Connection) -> list[Work]:
    """Works of one show, of whose 500 core units and 3 GPUs above every cap no total knows."""
    rows = Rows(conn)
    works = make_works(rows, "comet")
    for work in works:
        rows.proc(work.host, work.show, work.job, work.layer, cores=500, gpus=3)
    conn.execute("UPDATE subscription SET int_burst = 400")
    conn.execute("UPDATE job_resource SET int_max_cores = 400, int_max_gpus = 3")
    return works


@pytest.mark.parametrize("error", ["raise_exception", "check_violation", "23505"])
@pytest.mark.parametrize("total", TOTALS)
def test_one_row_that_the_farm_refuses_is_named_and_all_others_rise_above_their_caps(
    farm_db: psycopg.Connection, total: str, error: str
) -> None:
    works = above_their_caps(farm_db)
    refuse(farm_db, works[1], total, error)

    row = farm_db.execute("CALL retally.recompute_show('comet')").fetchone()

    assert row is not None
    assert row[:4] == (20, 19, 0, 1)
    [problem] = row[-1]
    assert problem.startswith(f"{total} ")
    assert problem.endswith(f": the farm refuses it: no {TABLES[total]} of this one")
    for each in TOTALS:
        amounts = [stored(farm_db, work, each)[:2] for work in works]
        refused = (300, 2) if each == total else (800, 5)
        assert amounts == [(800, 5), refused, (800, 5), (800, 5)]
    assert farm_db.execute("SELECT DISTINCT int_burst FROM subscription").fetchall() == [(400,)]
    caps = farm_db.execute("SELECT DISTINCT int_max_cores, int_max_gpus FROM job_resource")
    assert caps.fetchall() == [(400, 3)]

    farm_db.execute("DROP TRIGGER refuse ON " + TABLES[total])
    again = farm_db.execute("CALL retally.recompute_show('comet')").fetchone()
    assert again is not None
    assert again[:4] == (1, 1, 0, 0)


def test_a_check_of_the_farm_on_a_column_refuses_no_more_than_its_row(
    farm_db: psycopg.Connection,
) -> None:
    works = above_their_caps(farm_db)
    farm_db.execute(
        "ALTER TABLE layer_resource ADD CONSTRAINT few CHECK"
        f" (pk_layer <> '{works[0].layer}' OR int_cores < 700)"
    )
    row = farm_db.execute("CALL retally.recompute_show('comet')").fetchone()
    assert row is not None
    assert row[:4] == (20, 19, 0, 1)
    assert 'the farm refuses it: new row for relation "layer_resource" violates' in row[-1][0]


def test_an_error_that_is_not_about_a_row_fails_the_whole_show(
    farm_db: psycopg.Connection,
) -> None:
    works = above_their_caps(farm_db)
    refuse(farm_db, works[1], "point", "io_error")
    with pytest.raises(IoError, match="no point of this one"):
        farm_db.execute("CALL retally.recompute_show('comet')")
    assert {stored(farm_db, work, "layer")[0] for work in works} == {300}


def test_the_tiers_follow_the_rebuilt_totals(farm_db: psycopg.Connection) -> None:
    work = work_of(farm_db)
    farm_db.execute("UPDATE subscription SET int_size = 1800, int_burst = 100")
    farm_db.execute("UPDATE job_resource SET int_min_cores = 300")
    farm_db.execute("UPDATE folder_resource SET int_min_cores = 1800")
    recompute(farm_db, work)
    tiers = farm_db.execute(
        "SELECT s.float_tier, j.float_tier, f.float_tier FROM subscription AS s, job_resource AS j,"
        " folder_resource AS f WHERE s.pk_show = %s AND j.pk_job = %s AND f.pk_folder = %s",
        (work.show, work.job, work.folder),
    ).fetchone()
    assert tiers is not None
    assert [float(tier) for tier in tiers] == [0.5, 3.0, 0.5]


def test_only_rows_above_their_cap_are_written_twice(farm_db: psycopg.Connection) -> None:
    low, high = work_of(farm_db), work_of(farm_db)
    farm_db.execute("UPDATE subscription SET int_burst = 100 WHERE pk_show = %s", (low.show,))
    updates = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'subscription'"
    for work, expected in ((low, 2), (high, 1)):
        with farm_db.transaction():
            before = farm_db.execute(updates).fetchone()
            recompute(farm_db, work)
            after = farm_db.execute(updates).fetchone()
        assert before is not None
        assert after == (before[0] + expected,)
