"""Repairs of unmanaged shows: only drift is touched, and before and after are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, run_in_background
from psycopg.errors import LockNotAvailable
from repair_farm import ledger_size, make_works, refuse_row, repair, spoil, state, written
from small_farm import Rows, Work, corrupt, stored

from retally.procedures import TOTALS, repairs, routines
from retally.procedures.rebuild import Repairs, rebuild
from retally.sql.errors import RepairRefusedError, ShowBusyError, WrongIsolationError, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    """The unmanaged show "comet": four rows of each total, 300 core units and 2 GPUs each."""
    return make_works(Rows(farm_db), "comet")


@pytest.mark.parametrize("total", TOTALS)
def test_a_repair_writes_what_is_adrift_and_keeps_before_and_after(
    farm_db: psycopg.Connection, works: list[Work], total: str
) -> None:
    exact = state(farm_db, works)
    spoil(farm_db, works[0], total, -7)
    spoil(farm_db, works[0], total, 1, "int_gpus")
    done = repair(farm_db, works[0].show)
    key = works[0].key(total)
    assert state(farm_db, works) == exact
    assert written(farm_db, done.run) == {
        (total, key, "cores"): (293, 300),
        (total, key, "gpus"): (3, 2),
    }
    assert sum(p.rows_changed for p in done.passes) == 1
    run = farm_db.execute("SELECT worker, cause, forced, undoes FROM retally.run").fetchall()
    assert run == [("me", "tick resource", False, None)]


def test_local_slots_are_in_the_ledger_too(farm_db: psycopg.Connection, works: list[Work]) -> None:
    spoil(farm_db, works[1], "job", -3, "int_local_cores")
    spoil(farm_db, works[1], "job", -2, "int_local_gpus")
    done = repair(farm_db, works[0].show)
    assert written(farm_db, done.run) == {
        ("job", works[1].job, "local_cores"): (-3, 0),
        ("job", works[1].job, "local_gpus"): (-2, 0),
    }


def test_a_quiet_show_makes_no_run(farm_db: psycopg.Connection, works: list[Work]) -> None:
    assert repair(farm_db, works[0].show).run is None
    assert repair(farm_db, works[0].show, run=5).run == 5
    assert ledger_size(farm_db) == (0, 0)


def test_the_rebuild_of_a_managed_show_keeps_no_ledger(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    corrupt(farm_db)
    assert rebuild(farm_db, [works[0].show], TOTALS, wait=True).run is None
    assert ledger_size(farm_db) == (0, 0)


def test_a_row_above_its_cap_is_repaired(farm_db: psycopg.Connection, works: list[Work]) -> None:
    farm_db.execute("UPDATE subscription SET int_burst = 100")
    farm_db.execute("UPDATE job_resource SET int_max_cores = 100, int_max_gpus = 1")
    for total in ("subscription", "job"):
        spoil(farm_db, works[0], total, -7)
    done = repair(farm_db, works[0].show)
    assert stored(farm_db, works[0], "subscription")[0] == 300
    assert len(written(farm_db, done.run)) == 2
    caps = farm_db.execute("SELECT DISTINCT int_burst FROM subscription").fetchall()
    assert caps == [(100,)]


def test_what_does_not_fit_its_column_is_named_and_is_not_in_the_ledger(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    rows = Rows(farm_db)
    for _ in range(2):
        rows.proc(works[0].host, works[0].show, works[0].job, works[0].layer, cores=2**63 - 1)
    done = repair(farm_db, works[0].show, force=True)
    problems = [problem for p in done.passes for problem in p.problems]
    assert len(problems) == 5
    assert done.run is None
    spoil(farm_db, works[1], "layer")
    again = repair(farm_db, works[0].show, force=True)
    assert written(farm_db, again.run) == {("layer", works[1].layer, "cores"): (293, 300)}


def test_a_row_that_the_farm_refuses_is_not_in_the_ledger_and_all_others_are(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    for work in works[:2]:
        spoil(farm_db, work, "layer")
    refuse_row(farm_db, works[0])
    done = repair(farm_db, works[0].show)
    [layers] = [p for p in done.passes if p.rows_adrift]
    assert (layers.rows_changed, layers.rows_failed) == (1, 1)
    assert layers.problems == (
        f"layer {works[0].job}/{works[0].layer} ({works[0].layer}): the farm refuses it:"
        " not this row",
    )
    assert written(farm_db, done.run) == {("layer", works[1].layer, "cores"): (293, 300)}


@pytest.mark.parametrize("table", ["run", "ledger"])
def test_a_repair_waits_for_the_ledger_no_longer_than_a_pass_may_and_then_changes_nothing(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work], table: str
) -> None:
    for total in ("layer", "point"):
        spoil(farm_db, works[0], total)
    wrong = state(farm_db, works)
    holder = connect()
    with holder.transaction():
        holder.execute(f"LOCK TABLE retally.{table} IN SHARE MODE")
        with pytest.raises(LockNotAvailable):
            farm_db.execute("CALL retally.repair_show('comet')")
    assert state(farm_db, works) == wrong
    assert ledger_size(farm_db) == (0, 0)
    farm_db.execute("CALL retally.repair_show('comet')")
    assert ledger_size(farm_db) == (1, 2)


def test_the_wait_for_the_ledger_is_the_sessions_own_again_afterwards(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer")
    with farm_db.transaction():
        farm_db.execute("SET LOCAL lock_timeout = '7s'")
        farm_db.execute("CALL retally.repair_show('comet')")
        assert farm_db.execute("SHOW lock_timeout").fetchone() == ("7s",)


def test_of_a_folder_with_two_rows_one_is_in_the_ledger_and_undo_keeps_both(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "folder")
    farm_db.execute(
        "INSERT INTO folder_resource (pk_folder_resource, pk_folder, int_cores, int_gpus)"
        " VALUES ('second', %s, 100, 2)",
        (works[0].folder,),
    )
    run = repair(farm_db, works[0].show).run
    assert run is not None
    assert written(farm_db, run) == {("folder", works[0].folder, "cores"): (100, 300)}
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []
    assert not any(entry.restorable for entry in repairs.restorable(farm_db, run))
    done = repairs.undo(farm_db, run)
    assert (done.run, done.rows_restored, done.rows_kept) == (None, 0, 1)


CAUSES: dict[str, tuple[list[tuple[str, str, int, int]], Sequence[str | None]]] = {
    "a host moved": (
        [("subscription", "a", 300, 0), ("subscription", "b", 100, 400)],
        ["a host changed its allocation"] * 2,
    ),
    "jobs moved": (
        [
            ("folder", "a", 300, 0),
            ("folder", "b", 0, 300),
            ("point", "a", 9, 8),
            ("point", "b", 1, 2),
        ],
        ["a job changed its folder"] * 2 + ["a job changed its department"] * 2,
    ),
    "no release": ([("layer", "a", 300, 0)], ["a release was not counted: no proc is left"]),
    "no booking": ([("job", "a", 0, 300)], ["a booking was not counted"]),
    "below zero": ([("job", "a", -100, 0)], ["more was released than booked"]),
    "half a move": ([("folder", "a", 300, 0), ("folder", "b", 0, 200)], [None, None]),
    "no telling": ([("layer", "a", 200, 300), ("layer", "b", 200, 100)], [None, None]),
    "nothing": ([], []),
}


@pytest.mark.parametrize("pattern", CAUSES)
def test_the_cause_is_told_where_the_pattern_tells(
    farm_db: psycopg.Connection, pattern: str
) -> None:
    changes, causes = CAUSES[pattern]
    found = farm_db.execute(
        "SELECT coalesce(retally.likely_causes(ARRAY("
        " SELECT ROW(c.total, c.key, 'cores', c.was, c.now)::retally.change"
        " FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::bigint[]) WITH ORDINALITY"
        " AS c (total, key, was, now, place) ORDER BY c.place)), '{}')",
        [list(column) for column in zip(*changes, strict=True)] or [[], [], [], []],
    ).fetchone()
    assert found == (list(causes),)


def test_a_host_that_changed_its_allocation_is_told_as_the_cause(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    farm_db.execute(
        "UPDATE host SET pk_alloc = %s WHERE pk_host = %s", (works[1].alloc, works[0].host)
    )
    done = repair(farm_db, works[0].show)
    causes = farm_db.execute(
        "SELECT key, slot, cause FROM retally.ledger WHERE run = %s", (done.run,)
    )
    assert set(causes) == {
        (work.alloc, slot, "a host changed its allocation")
        for work in works[:2]
        for slot in ("cores", "gpus")
    }


def test_one_run_holds_all_shows_of_a_rebuild_and_a_refused_one_stops_no_other(
    farm_db: psycopg.Connection,
) -> None:
    rows = Rows(farm_db)
    shows = [make_works(rows, name) for name in ("a", "b", "c")]
    for each in shows:
        spoil(farm_db, each[0], "layer")
    farm_db.execute("DELETE FROM proc WHERE pk_show = %s", (shows[1][0].show,))
    ids = [each[0].show for each in shows]
    outcome = rebuild(farm_db, ids, TOTALS, wait=True, repaired=Repairs(set(ids), asked_by="us"))
    assert [failure.show_id for failure in outcome.failures] == [ids[1]]
    assert isinstance(outcome.failures[0].error, RepairRefusedError)
    rows_of = farm_db.execute("SELECT DISTINCT run, scope FROM retally.ledger ORDER BY scope")
    assert rows_of.fetchall() == [(outcome.run, ids[0]), (outcome.run, ids[2])]


def test_a_show_that_is_come_back_to_has_the_sum_of_its_repairs_in_the_ledger(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer", -7)
    first = repair(farm_db, works[0].show)
    spoil(farm_db, works[0], "layer", -9)
    Rows(farm_db).proc(works[0].host, works[0].show, works[0].job, works[0].layer, cores=50)
    assert repair(farm_db, works[0].show, run=first.run).run == first.run
    assert written(farm_db, first.run)["layer", works[0].layer, "cores"] == (350 - 7 - 9 - 50, 350)


def test_of_two_repairs_at_once_the_second_finds_nothing_left(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer")
    first, second = connect(), connect()
    first.execute("BEGIN")
    first.execute("CALL retally.repair_show('comet')")
    running = run_in_background(second, "CALL retally.repair_show('comet')")
    await_blocked(farm_db, second)
    first.execute("COMMIT")
    assert running.result(60) == [(None, 0, 0, 0, 0, [])]
    assert ledger_size(farm_db) == (1, 1)


def test_findings_that_are_old_by_now_repair_nothing(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    corrupt(farm_db)
    found = routines.findings(farm_db, [works[0].show], TOTALS)
    farm_db.execute("CALL retally.recompute_show('comet')")
    done = repairs.repair(farm_db, found, wait=False, tick="resource", worker="me", asked_by="me")
    assert (done.run, sum(p.rows_changed for p in done.passes)) == (None, 0)


def test_a_show_held_by_another_writer_is_busy(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer")
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, false)", (works[0].show,))
    with pytest.raises(ShowBusyError):
        repair(farm_db, works[0].show)


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_repair_at_another_isolation_level_is_refused(
    farm_db: psycopg.Connection, works: list[Work], level: str
) -> None:
    spoil(farm_db, works[0], "layer")
    found = routines.findings(farm_db, [works[0].show], TOTALS)
    farm_db.execute(f"BEGIN ISOLATION LEVEL {level}")
    with pytest.raises(WrongIsolationError):
        repairs.repair(farm_db, found, wait=False, tick="", worker="", asked_by="")
    farm_db.execute("ROLLBACK")


def test_by_hand_a_repair_answers_with_its_run(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer")
    row = farm_db.execute("CALL retally.repair_show('comet')").fetchone()
    assert row is not None
    assert row[1:] == (1, 1, 0, 0, [])
    assert farm_db.execute("SELECT run, cause FROM retally.run").fetchall() == [(row[0], "by hand")]
    farm_db.execute("DELETE FROM proc")
    with pytest.raises(RepairRefusedError), translated():
        farm_db.execute("CALL retally.repair_show('comet')")
    farm_db.execute("CALL retally.repair_show('comet', p_force => true)")
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []
