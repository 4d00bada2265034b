"""What the ticks of a worker do to a farm, each pass run by the test itself."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from small_farm import corrupt, stored
from structlog.testing import capture_logs
from tick_farm import EMPTY, EXACT, FROZEN, everything, make_due, tick, wrong_show
from worker_process import PATIENCE
from worker_thread import events

from retally.procedures import TOTALS, routines
from retally.worker.ticks import Shared, Tick, TickRunner

if TYPE_CHECKING:
    import psycopg
    from tick_farm import NewShared

pytestmark = pytest.mark.usefixtures("plain_logging")


def test_a_tick_makes_every_total_of_a_managed_show_exact(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    corrupt(farm_db)

    TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == EXACT


def test_a_tick_serves_only_its_own_totals(farm_db: psycopg.Connection, shared: Shared) -> None:
    work = wrong_show(farm_db)

    TickRunner(tick(("subscription", "folder")), shared).run()

    assert [stored(farm_db, work, total)[0] for total in TOTALS] == [300, 0, 0, 300, 0]


def test_an_unmanaged_show_is_watched_and_not_written(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    managed, unmanaged = wrong_show(farm_db), wrong_show(farm_db, managed=False)

    TickRunner(tick(), shared).run()

    assert everything(farm_db, unmanaged) == EMPTY
    assert everything(farm_db, managed) == EXACT
    actions = farm_db.execute(
        "SELECT DISTINCT scope, action, rows_changed FROM retally.pass WHERE tick = 'resource'"
    ).fetchall()
    assert set(actions) == {(managed.show, "rebuilt", 1), (unmanaged.show, "watched", 0)}


@pytest.mark.parametrize(("follow", "result"), [(True, EXACT), (False, EMPTY)])
def test_a_show_that_the_farm_flags_is_served_where_the_farms_flag_is_followed(
    farm_db: psycopg.Connection, shared: Shared, follow: bool, result: list[tuple[int, int]]
) -> None:
    work = wrong_show(farm_db, managed=False)
    farm_db.execute("UPDATE show SET b_scheduler_managed = TRUE WHERE pk_show = %s", (work.show,))
    farm_db.execute("UPDATE retally.setting SET follow_farm_flag = %s", (follow,))

    TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == result


def test_a_show_is_taken_up_by_the_first_pass_after_it_became_managed(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    runner = TickRunner(tick(), shared)
    work = wrong_show(farm_db, managed=False)
    runner.run()
    routines.set_managed(farm_db, work.show, managed=True)
    corrupt(farm_db)

    make_due(farm_db)
    runner.run()

    assert everything(farm_db, work) == EXACT


def test_several_workers_together_serve_each_show_once_per_interval(
    farm_db: psycopg.Connection, new_shared: NewShared
) -> None:
    shows = {wrong_show(farm_db).show for _ in range(12)}
    farm_db.execute(
        "CREATE TABLE served (scope text);"
        "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN INSERT INTO public.served VALUES (NEW.scope); RETURN NULL; END $$;"
        "CREATE TRIGGER note AFTER INSERT OR UPDATE ON retally.pass"
        " FOR EACH ROW WHEN (NEW.total = 'layer') EXECUTE FUNCTION public.note()"
    )
    runners = [TickRunner(tick(), new_shared()) for _ in range(4)]
    for intervals in range(1, 4):
        make_due(farm_db)
        for _ in range(2):  # more passes than intervals
            with ThreadPoolExecutor(len(runners)) as threads:
                for done in [threads.submit(runner.run) for runner in runners]:
                    done.result(PATIENCE)

        served = farm_db.execute("SELECT scope, count(*) FROM served GROUP BY scope").fetchall()
        assert dict(served) == dict.fromkeys(shows, intervals)


def test_two_ticks_of_one_worker_do_not_turn_each_other_away(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    runners = [
        TickRunner(Tick("subscription", FROZEN, ("subscription",)), shared),
        TickRunner(Tick("resource", FROZEN, TOTALS[1:]), shared),
    ]

    with capture_logs() as logs, ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            corrupt(farm_db)
            make_due(farm_db)
            for done in [threads.submit(runner.run) for runner in runners]:
                done.result(PATIENCE)
            assert everything(farm_db, work) == EXACT

    assert not events(logs, "deferred")


def test_a_pass_that_finds_nothing_says_so_in_one_event(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    wrong_show(farm_db)
    runner = TickRunner(tick(), shared)
    runner.run()
    make_due(farm_db)

    with capture_logs() as logs:
        runner.run()

    assert {entry["log_level"] for entry in logs if entry["event"] != "pass"} == {"debug"}
    [told] = events(logs, "pass")
    assert (told["shows"], told["rows_adrift"], told["rows_changed"]) == (1, 0, 0)


def test_a_stopping_worker_begins_no_pass(farm_db: psycopg.Connection, shared: Shared) -> None:
    work = wrong_show(farm_db)
    shared.stop.set()

    TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == EMPTY


def test_a_worker_writes_nothing_once_another_version_is_installed(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    farm_db.execute("UPDATE retally.installed SET digest = 'of another program'")

    with capture_logs() as logs:
        TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == EMPTY
    [failure] = events(logs, "failed")
    assert failure["kind"] == "not_installed"
    assert "retally install" in failure["hint"]
