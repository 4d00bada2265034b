"""Wrong names and damaged data: told by name, and nothing else of the show is held up."""

from __future__ import annotations

import re
from typing import Any

import psycopg
import pytest
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.procedures import TOTALS, install, routines
from retally.sql.errors import (
    AmbiguousShowError,
    FarmSchemaError,
    PermissionDeniedError,
    UnknownShowError,
    UnknownTotalError,
)


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A show with one proc of 300 core units, whose every total is wrong."""
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(farm_db)
    return work


def recompute(conn: psycopg.Connection, work: Work) -> dict[str, Any]:
    cursor = conn.execute("CALL retally.recompute_show(%s)", (work.show,))
    assert cursor.description is not None
    row = cursor.fetchone()
    assert row is not None
    return dict(zip([column.name for column in cursor.description], row, strict=True))


def cores(conn: psycopg.Connection, work: Work) -> dict[str, int]:
    return {total: stored(conn, work, total)[0] for total in TOTALS}


def drop_triggers(conn: psycopg.Connection) -> None:
    """As a migration of the farm has to, before it may change a column that its triggers name."""
    triggers = conn.execute(
        "SELECT tgname, tgrelid::regclass::text FROM pg_trigger WHERE NOT tgisinternal"
    ).fetchall()
    for name, table in triggers:
        conn.execute(f"DROP TRIGGER {name} ON {table}")


@pytest.mark.usefixtures("work")
def test_an_unknown_show_is_told_with_the_nearest_names(farm_db: psycopg.Connection) -> None:
    make_work(Rows(farm_db), "unrelated")
    for routine in ("booked", "stored", "drift"):
        with pytest.raises(psycopg.Error, match='no show "commet"') as caught:
            farm_db.execute(f"SELECT * FROM retally.{routine}('commet')")
        assert caught.value.sqlstate == "RT001"
        assert caught.value.diag.message_hint == "Did you mean comet?"
    with pytest.raises(UnknownShowError):
        routines.set_managed(farm_db, "commet", managed=True)


def test_a_null_show_is_an_unknown_show(farm_db: psycopg.Connection) -> None:
    with pytest.raises(psycopg.Error) as caught:
        farm_db.execute("CALL retally.recompute_show(NULL)")
    assert caught.value.sqlstate == "RT001"


def test_a_name_of_two_shows_is_refused_with_both_ids(
    farm_db: psycopg.Connection, work: Work
) -> None:
    other = make_work(Rows(farm_db), "comet")
    with pytest.raises(AmbiguousShowError, match=other.show) as caught:
        routines.show_id(farm_db, "comet")
    assert work.show in str(caught.value)
    assert routines.show_id(farm_db, other.show) == other.show


def test_an_unknown_total_is_refused_with_the_five_names(farm_db: psycopg.Connection) -> None:
    with pytest.raises(UnknownTotalError) as caught:
        routines.findings(farm_db, [], ["layers"])
    assert "subscription, layer, job, folder, point" in caught.value.hint


@pytest.mark.parametrize("total", TOTALS)
def test_a_missing_row_is_named_and_all_others_are_rebuilt(
    farm_db: psycopg.Connection, work: Work, total: str
) -> None:
    farm_db.execute(
        {
            "subscription": "DELETE FROM subscription WHERE pk_show = %s",
            "layer": "DELETE FROM layer_resource WHERE pk_layer = %s",
            "job": "DELETE FROM job_resource WHERE pk_job = %s",
            "folder": "DELETE FROM folder_resource WHERE pk_folder = %s",
            "point": "DELETE FROM point WHERE pk_dept = %s",
        }[total],
        (work.show if total == "subscription" else work.key(total),),
    )

    result = recompute(farm_db, work)

    assert (result["rows_changed"], result["rows_failed"]) == (4, 1)
    (problem,) = result["problems"]
    assert work.key(total) in problem
    assert "its row is missing, while procs hold 300 core units and 0 GPUs" in problem
    drift = farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall()
    assert drift == [(total, work.key(total), "cores", None, 300)]


@pytest.mark.parametrize("named", ["no-such-thing", None])
def test_procs_of_an_unknown_job_or_layer_are_named_and_all_others_are_rebuilt(
    farm_db: psycopg.Connection, work: Work, named: str | None
) -> None:
    rows = Rows(farm_db)
    proc = rows.proc(work.host, work.show, named, named, cores=50, gpus=1)

    result = recompute(farm_db, work)

    # the proc counts where the farm can say where, and no row is there to hold the rest
    expected = {"subscription": 350, "layer": 300, "job": 300, "folder": 300, "point": 300}
    assert cores(farm_db, work) == expected
    assert (result["rows_changed"], result["rows_failed"]) == (5, 0)
    assert [problem.split(": ")[0] for problem in result["problems"]] == [
        f"layer {named or 'none'}",
        f"job {named or 'none'}",
    ]
    assert all("50 core units and 1 GPUs" in problem for problem in result["problems"])
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []
    (orphan,) = routines.orphans(farm_db)
    assert (orphan.proc_id, orphan.cores, orphan.gpus) == (proc, 50, 1)
    assert orphan.reason == f"no job {named or 'null'}, no layer {named or 'null'}"


@pytest.mark.parametrize("named", ["no-such-show", None])
def test_procs_of_an_unknown_show_count_in_the_totals_of_their_layer_and_job(
    farm_db: psycopg.Connection, work: Work, named: str | None
) -> None:
    Rows(farm_db).proc(work.host, named, work.job, work.layer, cores=50)
    recompute(farm_db, work)
    expected = {"subscription": 300, "layer": 350, "job": 350, "folder": 350, "point": 350}
    assert cores(farm_db, work) == expected
    assert [orphan.reason for orphan in routines.orphans(farm_db)] == [f"no show {named or 'null'}"]


def test_a_sum_beyond_the_columns_type_is_named_and_every_other_row_is_rebuilt(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    other_job = rows.job(work.show, rows.folder(work.show, work.dept), work.dept)
    rows.proc(work.host, work.show, other_job, rows.layer(other_job), cores=3_000_000_000)

    result = recompute(farm_db, work)

    # layers and jobs hold bigint; the allocation, the other folder and the department do not
    wrong = {"subscription": -7, "point": -7}
    assert cores(farm_db, work) == dict.fromkeys(TOTALS, 300) | wrong
    assert result["rows_failed"] == 3
    assert {problem.split(" ")[0] for problem in result["problems"]} == {
        "subscription",
        "folder",
        "point",
    }
    assert all("does not fit the column" in problem for problem in result["problems"])


def test_a_sum_beyond_bigint_is_named_and_every_other_row_is_rebuilt(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    huge = rows.layer(work.job)
    for _ in range(2):
        rows.proc(work.host, work.show, work.job, huge, cores=2**63 - 1)
    result = recompute(farm_db, work)
    assert cores(farm_db, work)["layer"] == 300
    assert any(problem.startswith(f"layer {work.job}/{huge}") for problem in result["problems"])


def test_a_farm_with_wider_columns_takes_wider_sums(
    farm_db: psycopg.Connection, work: Work
) -> None:
    drop_triggers(farm_db)
    for table in ("subscription", "folder_resource", "point"):
        farm_db.execute(f"ALTER TABLE {table} ALTER COLUMN int_cores TYPE bigint")
    farm_db.execute("ALTER TABLE point ALTER COLUMN int_gpus TYPE numeric")
    limits = farm_db.execute(
        "SELECT retally.column_limit('point', 'int_cores'),"
        " retally.column_limit('point', 'int_gpus') = 'Infinity',"
        " retally.column_limit('layer_resource', 'int_gpus')"
    ).fetchone()
    assert limits == (2**63 - 1, True, 2**31 - 1)
    farm_db.execute("UPDATE subscription SET int_burst = 5000000000")
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=3_000_000_000)
    assert recompute(farm_db, work)["rows_failed"] == 0
    assert set(cores(farm_db, work).values()) == {3_000_000_300}


def test_a_database_without_a_farm_is_refused_and_left_empty(
    empty_db: psycopg.Connection,
) -> None:
    with pytest.raises(FarmSchemaError, match="holds no OpenCue farm") as caught:
        install(empty_db)
    assert "retally farm create" in caught.value.hint
    assert empty_db.execute("SELECT to_regnamespace('retally')").fetchone() == (None,)


def test_a_farm_before_the_gpu_columns_is_refused_by_their_names(
    farm_db: psycopg.Connection,
) -> None:
    farm_db.execute("ALTER TABLE proc DROP COLUMN int_gpus_reserved CASCADE")
    farm_db.execute("ALTER TABLE point DROP COLUMN int_gpus CASCADE")
    with pytest.raises(FarmSchemaError) as caught:
        install(farm_db)
    assert str(caught.value) == "the farm schema lacks proc.int_gpus_reserved, point.int_gpus"
    assert "V11" in caught.value.hint
    with pytest.raises(psycopg.Error, match=r"proc\.int_gpus_reserved"):
        farm_db.execute("SELECT retally.check_farm()")


def test_a_farm_before_the_scheduler_flag_works_and_has_no_such_flag(
    farm_db: psycopg.Connection, work: Work
) -> None:
    farm_db.execute("ALTER TABLE show DROP COLUMN b_scheduler_managed")
    install(farm_db)
    assert [(show.farm_flag, show.rebuilt) for show in routines.shows(farm_db)] == [(None, False)]
    recompute(farm_db, work)
    assert set(cores(farm_db, work).values()) == {300}


@pytest.mark.usefixtures("work")
def test_the_ticks_follow_the_farms_flag_unless_told_not_to(farm_db: psycopg.Connection) -> None:
    farm_db.execute("UPDATE show SET b_scheduler_managed = true")
    (show,) = routines.shows(farm_db)
    assert (show.managed, show.farm_flag, show.rebuilt) == (False, True, True)
    farm_db.execute("UPDATE retally.setting SET follow_farm_flag = false")
    (show,) = routines.shows(farm_db)
    assert (show.managed, show.farm_flag, show.rebuilt) == (False, True, False)


@pytest.mark.usefixtures("work")
def test_a_role_without_the_right_is_told_what_it_lacks(farm_db: psycopg.Connection) -> None:
    name = f"reader_{farm_db.info.dbname}"
    farm_db.execute(f"CREATE ROLE {name}")
    try:
        farm_db.execute(f"SET ROLE {name}")
        with pytest.raises(PermissionDeniedError, match="permission denied for schema retally"):
            routines.shows(farm_db)
        with pytest.raises(PermissionDeniedError):
            install(farm_db)
    finally:
        farm_db.execute("RESET ROLE")
        farm_db.execute(f"DROP ROLE {name}")


def test_one_show_that_fails_holds_up_no_other_one(farm_db: psycopg.Connection, work: Work) -> None:
    other = make_work(Rows(farm_db), "zodiac")
    Rows(farm_db).proc(other.host, other.show, other.job, other.layer, cores=300)
    farm_db.execute(f"""
        CREATE FUNCTION public.refuse() RETURNS trigger LANGUAGE plpgsql
        AS $$BEGIN RAISE EXCEPTION 'the farm says no' USING ERRCODE = 'io_error'; END$$;
        CREATE TRIGGER refuse BEFORE UPDATE ON public.folder_resource FOR EACH ROW
        WHEN (new.pk_folder = '{work.folder}') EXECUTE FUNCTION public.refuse()
    """)
    notices: list[str | None] = []
    farm_db.add_notice_handler(lambda diag: notices.append(diag.message_primary))

    row = farm_db.execute("CALL retally.recompute_all(p_unmanaged_too => true)").fetchone()

    assert row is not None
    assert row[:2] == (1, 1)
    assert row[-1] == ["show comet: the farm says no (SQLSTATE 58030)"] == notices
    assert set(cores(farm_db, other).values()) == {300}
    assert set(cores(farm_db, work).values()) == {-7}


def test_the_farm_may_change_the_type_of_every_column_that_retally_uses(
    farm_db: psycopg.Connection, work: Work
) -> None:
    """Also keys: what the farm's own migrations do must never meet an object of ours."""
    body = farm_db.execute(
        "SELECT prosrc FROM pg_proc WHERE oid = 'retally.check_farm'::regproc"
    ).fetchone()
    assert body is not None
    names = re.findall(r"'(\w+\.\w+)'", body[0])
    assert len(names) > 40
    drop_triggers(farm_db)
    for name in names:
        table, column = name.split(".")
        kind = "bigint" if column.startswith("int_") else "text"
        if column != "b_local":
            farm_db.execute(f"ALTER TABLE public.{table} ALTER COLUMN {column} TYPE {kind}")
        farm_db.execute(f"ALTER TABLE public.{table} ADD COLUMN extra_{column} integer")
    recompute(farm_db, work)
    assert set(cores(farm_db, work).values()) == {300}
    for name in names:
        table, column = name.split(".")
        farm_db.execute(f"ALTER TABLE public.{table} DROP COLUMN extra_{column}")
    corrupt(farm_db)
    recompute(farm_db, work)
    assert set(cores(farm_db, work).values()) == {300}
