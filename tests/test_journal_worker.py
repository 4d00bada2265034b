"""What a worker's ticks do with journaled shows: fold at every pass, look in full now and then."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import psycopg
import pytest
import structlog
from small_farm import Rows, Work, corrupt
from tick_farm import EMPTY, EXACT, everything, fail_for, make_due, tick, wrong_show

from retally.procedures import routines
from retally.procedures.journal import fold, journal_state, set_journal
from retally.worker.ticks import TickRunner

if TYPE_CHECKING:
    from retally.worker.ticks import Shared

pytestmark = pytest.mark.usefixtures("plain_logging")


def journaled(conn: psycopg.Connection) -> Work:
    """As wrong_show(), journaled before its proc was booked."""
    work = wrong_show(conn)
    conn.execute("DELETE FROM proc")
    set_journal(conn, work.show, on=True)
    Rows(conn).proc(work.host, work.show, work.job, work.layer, cores=300, gpus=2)
    return work


def actions(conn: psycopg.Connection) -> set[str]:
    return {each.action for each in routines.last_passes(conn) if each.tick == "resource"}


def test_a_tick_folds_what_was_booked_into_all_totals(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    assert everything(farm_db, work) == EMPTY
    runner = TickRunner(tick(("subscription",)), shared)
    runner.run()
    assert everything(farm_db, work) == EXACT
    assert journal_state(farm_db).entries == 0


def test_the_first_pass_looks_in_full_and_the_next_ones_only_fold(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    corrupt(farm_db)
    runner = TickRunner(tick(), shared)
    runner.run()
    assert everything(farm_db, work) == EXACT
    assert actions(farm_db) == {"rebuilt"}
    corrupt(farm_db)
    make_due(farm_db)
    runner.run()
    assert everything(farm_db, work) == [(293, 1)] * 5  # nobody looked
    assert actions(farm_db) == {"folded"}


def test_drift_that_an_audit_finds_is_told_as_a_warning_and_mended(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    runner = TickRunner(tick(), replace(shared, journal_audit=0.0))
    runner.run()
    corrupt(farm_db)
    make_due(farm_db)
    with structlog.testing.capture_logs() as logs:
        runner.run()
    assert everything(farm_db, work) == EXACT
    (told,) = [line for line in logs if line["event"] == "drift in a journaled show"]
    assert (told["log_level"], told["rows_adrift"]) == ("warning", 5)


def test_a_row_that_was_busy_in_a_full_pass_is_mended_by_the_next_one(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    fold(farm_db, [work.show], wait=True)
    corrupt(farm_db)
    runner = TickRunner(tick(), shared)
    with psycopg.connect(farm_db.info.dsn) as holder:
        holder.execute("SELECT FROM job_resource FOR UPDATE")
        runner.run()
        assert everything(farm_db, work) == [EXACT[0], EXACT[0], (293, 1), EXACT[0], EXACT[0]]
    make_due(farm_db)
    runner.run()
    assert everything(farm_db, work) == EXACT


def test_rows_that_a_fold_cannot_add_to_bring_a_full_pass_that_names_them(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    runner = TickRunner(tick(), shared)
    runner.run()
    farm_db.execute("DELETE FROM point")
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer)
    make_due(farm_db)
    with structlog.testing.capture_logs() as logs:
        runner.run()
    problems = [str(line["problem"]) for line in logs if line["event"] == "problem"]
    assert any("its row is missing, while procs hold 400 core units" in text for text in problems)


def test_a_show_whose_rows_are_busy_is_folded_by_itself_later_and_stops_no_other_one(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    busy, other = journaled(farm_db), journaled(farm_db)
    farm_db.execute("DELETE FROM proc")
    for work in (busy, other):
        Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=300, gpus=2)
    with psycopg.connect(farm_db.info.dsn) as holder:
        holder.execute("SELECT FROM point WHERE pk_show = %s FOR UPDATE", (busy.show,))
        runner = TickRunner(tick(), shared)
        runner.run()
        assert everything(farm_db, other) == EXACT
        assert everything(farm_db, busy) == EMPTY
    make_due(farm_db)
    runner.run()
    assert everything(farm_db, busy) == EXACT
    assert journal_state(farm_db).entries == 0


def test_managed_shows_are_mended_together_and_singly_where_one_fails(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    works = [wrong_show(farm_db) for _ in range(3)]
    fail_for(farm_db, works[1])
    TickRunner(tick(), shared).run()
    assert everything(farm_db, works[0]) == EXACT
    assert everything(farm_db, works[1]) == EMPTY
    assert everything(farm_db, works[2]) == EXACT


def test_a_show_of_which_something_cannot_be_exact_is_not_looked_at_in_full_by_every_tick(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    runner = TickRunner(tick(), shared)
    farm_db.execute("DELETE FROM point")
    with structlog.testing.capture_logs() as logs:
        for expected in ("rebuilt", "folded", "folded", "folded"):
            make_due(farm_db)
            runner.run()
            assert actions(farm_db) == {expected}
            Rows(farm_db).proc(work.host, work.show, work.job, work.layer)
    # told by the first fold, the full pass and the next fold, and it stands in their results
    problems = [str(line["problem"]) for line in logs if line["event"] == "problem"]
    assert (len(problems), len(set(problems))) == (3, 2)
    left = [
        each
        for each in routines.last_passes(farm_db)
        if (each.total, each.tick) == ("point", "resource")
    ]
    assert [each.rows_failed for each in left] == [1]


def test_drift_is_told_though_something_else_cannot_be_exact(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    journaled(farm_db)
    runner = TickRunner(tick(), replace(shared, journal_audit=0.0))
    farm_db.execute("DELETE FROM point")
    told = []
    for _ in range(3):
        make_due(farm_db)
        with structlog.testing.capture_logs() as logs:
            runner.run()
        told.append([line for line in logs if line["event"] == "drift in a journaled show"])
        corrupt(farm_db)
    assert [len(each) for each in told] == [0, 1, 1]
    assert told[1][0]["rows_adrift"] == 4


def test_what_a_full_pass_found_stands_until_the_next_one(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    farm_db.execute("DELETE FROM point")
    metrics = shared.metrics
    metrics.set_intervals({"resource": 3600.0, "subscription": 3600.0})
    TickRunner(tick(), shared).run()
    fold_only = TickRunner(tick(("subscription",)), shared)
    fold_only.run()
    make_due(farm_db)
    fold_only.run()
    name = farm_db.execute("SELECT str_name FROM show WHERE pk_show = %s", (work.show,)).fetchone()
    assert name is not None
    labels = {"show": name[0], "total": "point"}
    assert metrics.registry.get_sample_value("retally_rows_failed", labels) == 1


def test_a_show_with_a_busy_row_is_one_pass(farm_db: psycopg.Connection, shared: Shared) -> None:
    wrong_show(farm_db)
    with (
        psycopg.connect(farm_db.info.dsn) as holder,
        structlog.testing.capture_logs() as logs,
    ):
        holder.execute("SELECT FROM job_resource FOR UPDATE")
        TickRunner(tick(), shared).run()
    (served,) = [line for line in logs if line["event"] == "totals rebuilt"]
    assert (served["rows_adrift"], served["rows_changed"], served["rows_deferred"]) == (5, 4, 1)
    kept = [each for each in routines.last_passes(farm_db) if each.tick == "resource"]
    assert {each.passes for each in kept} == {1}
    assert sum(each.rows_changed for each in kept) == 4
    assert sum(each.rows_deferred for each in kept) == 1


def test_a_fold_that_fails_is_told_and_the_totals_are_exact_all_the_same(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    runner = TickRunner(tick(), shared)
    runner.run()
    farm_db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'the disk is on fire' USING ERRCODE = 'io_error'; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON retally.journal FOR EACH ROW"
        " EXECUTE FUNCTION refuse()"
    )
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=100, gpus=0)
    farm_db.execute("UPDATE layer_resource SET int_cores = 7")
    make_due(farm_db)
    runner.run()
    assert everything(farm_db, work) == EXACT  # all but what waits to be folded
    assert farm_db.execute("SELECT max(failures) FROM retally.due").fetchone() == (1,)


def test_a_worker_that_stops_while_it_folds_looks_at_nothing_in_full(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    works = [wrong_show(farm_db), journaled(farm_db)]
    shared.stop.set()
    TickRunner(tick(), shared).run()
    assert everything(farm_db, works[0]) == EMPTY


def test_what_a_fold_could_not_add_is_no_drift_of_the_journal(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    runner = TickRunner(tick(), shared)
    runner.run()
    farm_db.execute("DELETE FROM proc")
    farm_db.execute("DELETE FROM host")  # its allocation is not known any more
    make_due(farm_db)
    with structlog.testing.capture_logs() as logs:
        runner.run()
    assert everything(farm_db, work) == EMPTY
    assert not [line for line in logs if line["event"] == "drift in a journaled show"]


def test_drift_that_was_mended_is_not_shown_for_as_long_as_folds_follow(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = journaled(farm_db)
    corrupt(farm_db)
    shared.metrics.set_intervals({"resource": 3600.0})
    runner = TickRunner(tick(), shared)
    runner.run()
    name = farm_db.execute("SELECT str_name FROM show WHERE pk_show = %s", (work.show,)).fetchone()
    assert name is not None
    labels = {"show": name[0], "total": "point"}
    value = shared.metrics.registry.get_sample_value
    assert value("retally_drift_rows", labels) == 1
    make_due(farm_db)
    runner.run()
    assert value("retally_drift_rows", labels) == 0
    assert value("retally_drift_core_units", labels) == 0
