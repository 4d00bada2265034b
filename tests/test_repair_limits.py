"""A repair that would change too much of a show at once is refused, unless it is forced."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, run_in_background
from repair_farm import ledger_size, make_works, repair, spoil
from small_farm import Rows, Work, contents

from retally.procedures import TOTALS, repairs, routines
from retally.sql.errors import RepairRefusedError, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    """The unmanaged show "comet": four rows of each total, 300 core units and 2 GPUs each."""
    return make_works(Rows(farm_db), "comet")


LIMITS: dict[str, tuple[str, str]] = {
    "rows": (
        "UPDATE layer_resource SET int_cores = int_cores + 1;"
        "UPDATE job_resource SET int_gpus = int_gpus + 1;"
        "UPDATE point SET int_cores = int_cores + 1 WHERE pk_dept IN"
        " (SELECT pk_dept FROM point ORDER BY pk_dept LIMIT 3)",
        r"\(too many rows\): it would change 11 of 20 rows, and the core units in layer by 4,"
        r" from 1204 to 1200",
    ),
    "core units": (
        "UPDATE subscription SET int_cores = int_cores - 601 WHERE pk_alloc ="
        " (SELECT min(pk_alloc) FROM subscription)",
        r"\(too many core units\): it would change 1 of 20 rows, and the core units in subscription"
        r" by 601, from 599 to 1200",
    ),
    "zero": (
        "DELETE FROM proc",
        r"\(all to zero, too many rows, too many core units\): it would change 20 of 20 rows, and"
        r" the core units in subscription by 1200, from 1200 to 0",
    ),
    "GPUs": (
        "UPDATE layer_resource SET int_gpus = 0; UPDATE job_resource SET int_gpus = 0;"
        "UPDATE folder_resource SET int_gpus = 0",
        r"\(too many rows\): it would change 12 of 20 rows",
    ),
}


@pytest.mark.parametrize("limit", LIMITS)
def test_a_repair_that_would_change_too_much_is_refused_and_says_what_it_saw(
    farm_db: psycopg.Connection, works: list[Work], limit: str
) -> None:
    spoiled, message = LIMITS[limit]
    farm_db.execute(spoiled)
    before = contents(farm_db)
    with pytest.raises(
        RepairRefusedError, match=f'^the repair of show "comet" is refused {message}$'
    ) as e:
        repair(farm_db, works[0].show)
    assert "50 %" in e.value.hint
    assert "--force" in e.value.hint
    assert contents(farm_db) == before
    assert ledger_size(farm_db) == (0, 0)
    refusal = repairs.refusal(farm_db, works[0].show, TOTALS)
    assert str(refusal) == str(e.value)

    assert repair(farm_db, works[0].show, force=True).run is not None
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []
    assert farm_db.execute("SELECT forced FROM retally.run").fetchall() == [(True,)]


def test_half_of_the_rows_and_of_the_core_units_is_not_too_much(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    farm_db.execute(
        "UPDATE layer_resource SET int_cores = int_cores - 150;"
        "UPDATE job_resource SET int_cores = int_cores - 150"
    )
    assert repairs.refusal(farm_db, works[0].show, TOTALS) is None
    assert sum(p.rows_changed for p in repair(farm_db, works[0].show).passes) == 8


def finished_works(rows: Rows, show: str, number: int) -> None:
    """So many jobs and layers more whose rows hold nothing any more."""
    dept = rows.dept()
    rows.point(show, dept)
    folder = rows.folder(show, dept)
    for _ in range(number):
        rows.layer(rows.job(show, folder, dept))


def test_rows_of_finished_jobs_do_not_hide_that_most_of_the_others_would_change(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    finished_works(Rows(farm_db), works[0].show, 20)
    farm_db.execute(
        "UPDATE layer_resource SET int_cores = int_cores + 1 WHERE int_cores > 0;"
        "UPDATE job_resource SET int_gpus = int_gpus + 1 WHERE int_cores > 0;"
        "UPDATE point SET int_cores = int_cores + 1 WHERE int_cores > 0"
    )
    with pytest.raises(
        RepairRefusedError, match=r"\(too many rows\): it would change 12 of 20 rows"
    ):
        repair(farm_db, works[0].show)


def test_a_row_that_holds_something_only_before_or_only_after_counts(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    finished_works(Rows(farm_db), works[0].show, 11)
    # 22 jobs and layers that still hold a GPU, of then 42 rows
    farm_db.execute(
        "UPDATE layer_resource SET int_gpus = 1 WHERE int_cores = 0;"
        "UPDATE job_resource SET int_gpus = 1 WHERE int_cores = 0"
    )
    with pytest.raises(
        RepairRefusedError, match=r"\(too many rows\): it would change 22 of 42 rows"
    ):
        repair(farm_db, works[0].show)
    farm_db.execute("UPDATE layer_resource SET int_gpus = 0 WHERE int_cores = 0")
    farm_db.execute("UPDATE point SET int_gpus = 0 WHERE int_cores > 0")
    # 11 jobs and 4 points of 31 rows
    assert repairs.refusal(farm_db, works[0].show, TOTALS) is None


def test_the_share_is_a_setting_but_a_show_is_never_set_to_zero_unasked(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "layer", -7)
    farm_db.execute("UPDATE retally.setting SET repair_share = 0")
    with pytest.raises(RepairRefusedError, match="too many rows, too many core units"):
        repair(farm_db, works[0].show)
    farm_db.execute("UPDATE retally.setting SET repair_share = 1")
    farm_db.execute("DELETE FROM proc")
    with pytest.raises(RepairRefusedError, match=r"\(all to zero\)"):
        repair(farm_db, works[0].show)


def test_a_tick_that_has_only_the_subscriptions_may_mend_the_only_one_of_a_show(
    farm_db: psycopg.Connection,
) -> None:
    (work,) = make_works(Rows(farm_db), "comet", 1)
    spoil(farm_db, work, "subscription", -7)
    found = routines.findings(farm_db, [work.show], ["subscription"])
    done = repairs.repair(farm_db, found, wait=False, tick="subscription", worker="", asked_by="")
    assert [p.rows_changed for p in done.passes] == [1]


def test_a_stray_proc_on_the_layer_of_another_show_does_not_hide_that_all_go_to_zero(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    rows = Rows(farm_db)
    (other,) = make_works(rows, "other", 1)
    farm_db.execute("DELETE FROM proc WHERE pk_show = %s", (works[0].show,))
    rows.proc(other.host, works[0].show, other.job, other.layer, cores=300)
    found = routines.findings(farm_db, [works[0].show], ["layer", "job", "folder", "point"])
    with pytest.raises(RepairRefusedError, match="all to zero"):
        repairs.repair(farm_db, found, wait=False, tick="resource", worker="", asked_by="")


def test_procs_that_go_while_a_repair_waits_for_a_row_are_seen_before_it_commits(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    works = make_works(Rows(farm_db), "comet", 2)
    for work in works:
        spoil(farm_db, work, "subscription", 1)
    before = contents(farm_db)
    holder, repairer = connect(), connect()
    holder.execute("SET lock_timeout = '10s'")
    farm_db.execute(f"ALTER DATABASE {farm_db.info.dbname} SET deadlock_timeout = '60s'")
    farm_db.execute("UPDATE retally.setting SET longest_wait = '30 s'")
    repairer = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM subscription FOR UPDATE")
    running = run_in_background(repairer, "CALL retally.repair_show('comet')")
    await_blocked(farm_db, repairer)
    holder.execute("DELETE FROM proc")
    holder.execute("COMMIT")
    with pytest.raises(RepairRefusedError, match=r"all to zero|too many core units"), translated():
        running.result(60)
    assert contents(farm_db) | {"proc": before["proc"]} == before
    assert ledger_size(farm_db) == (0, 0)
