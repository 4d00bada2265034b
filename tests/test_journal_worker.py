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
