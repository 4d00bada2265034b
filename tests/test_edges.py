"""Farms and databases that are odd, legal or hostile, and what must hold there all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psycopg
import pytest
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.procedures import TOTALS, install, routines, uninstall
from retally.sql.errors import RetallyError, StillUsedError

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A show with one proc of 300 core units, whose every total is wrong."""
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    corrupt(farm_db)
    return work


def test_a_sum_that_only_a_trigger_of_the_farm_refuses_is_named_and_others_are_rebuilt(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    huge = rows.job(work.show, work.folder, work.dept)
    # fits bigint, and its tier does not fit numeric(16,2)
    rows.proc(work.host, work.show, huge, None, cores=4 * 10**18)
    row = farm_db.execute("CALL retally.recompute_job(%s)", (work.show,)).fetchone()
    assert row is not None
    assert row[:4] == (2, 1, 0, 1)
    assert row[6] == [f"job {huge}: the sum of its procs does not fit the column"]
    assert stored(farm_db, work, "job")[0] == 300


def test_procs_without_cores_still_count_with_their_gpus(
    farm_db: psycopg.Connection, work: Work
) -> None:
    farm_db.execute("UPDATE proc SET int_cores_reserved = 0, int_gpus_reserved = 2")
    farm_db.execute("CALL retally.recompute_show('comet')")
    assert {stored(farm_db, work, total)[:2] for total in TOTALS} == {(0, 2)}


def test_an_id_names_its_show_whatever_other_shows_are_called(
    farm_db: psycopg.Connection, work: Work
) -> None:
    make_work(Rows(farm_db), work.show)
    assert routines.show_id(farm_db, work.show) == work.show
    routines.set_managed(farm_db, "comet", managed=True)
    managed = {show.show_id for show in routines.shows(farm_db) if show.managed}
    assert managed == {work.show}


def test_a_flip_tells_what_cannot_be_made_exact(farm_db: psycopg.Connection, work: Work) -> None:
    farm_db.execute("DELETE FROM point")
    (problem,) = routines.set_managed(farm_db, "comet", managed=True)
    assert problem.startswith(f"point {work.dept}: its row is missing")


def test_a_flip_to_null_is_refused(farm_db: psycopg.Connection, work: Work) -> None:
    routines.set_managed(farm_db, work.show, managed=True)
    with pytest.raises(psycopg.errors.NullValueNotAllowed):
        farm_db.execute("CALL retally.set_managed('comet', NULL)")
    assert farm_db.execute("SELECT count(*) FROM retally.scope_flag").fetchone() == (1,)


def test_the_flag_of_a_show_that_is_gone_can_be_taken_down(farm_db: psycopg.Connection) -> None:
    farm_db.execute(
        "INSERT INTO retally.scope_flag (scope, asked, managed) VALUES ('gone', true, true)"
    )
    routines.set_managed(farm_db, "gone", managed=False)
    assert farm_db.execute("SELECT FROM retally.scope_flag").fetchall() == []


def test_recompute_all_in_a_transaction_block_fails_before_it_has_done_anything(
    farm_db: psycopg.Connection, work: Work
) -> None:
    farm_db.execute("BEGIN")
    with pytest.raises(psycopg.errors.InvalidTransactionTermination):
        farm_db.execute("CALL retally.recompute_all(p_unmanaged_too => true)")
    farm_db.execute("ROLLBACK")
    assert stored(farm_db, work, "point")[0] == -7


def test_workers_with_other_intervals_do_not_undo_each_others_claims(
    farm_db: psycopg.Connection,
) -> None:
    claim = (
        "SELECT c.claimed"
        " FROM retally.claim_due('tick', %s, ARRAY['show'], 'me', '2026-01-01Z') AS c"
    )
    assert farm_db.execute(claim, ("10 s",)).fetchall() == [(["show"],)]
    assert farm_db.execute(claim, ("3 s",)).fetchall() == [([],)]
    # what the clock's being set back leaves behind: due later than any interval explains
    farm_db.execute("UPDATE retally.due SET due_at = '2026-01-01Z'::timestamptz + '1 hour'")
    assert farm_db.execute(claim, ("3 s",)).fetchall() == [(["show"],)]


@pytest.mark.usefixtures("work")
def test_no_operator_that_others_have_made_in_public_is_run(
    farm_db: psycopg.Connection,
) -> None:
    for name, left, right in (
        ("=", "varchar", "varchar"),
        ("<>", "integer", "numeric"),
        ("<>", "bigint", "numeric"),
    ):
        farm_db.execute(f"""
            CREATE OR REPLACE FUNCTION public.trap({left}, {right}) RETURNS boolean
            LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
            CREATE OPERATOR public.{name} (
                LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = public.trap
            )
        """)
    # the farm's own statements are not what this is about
    farm_db.execute("SET search_path = pg_catalog, public")
    for call in (
        "SELECT * FROM retally.drift('comet')",
        "SELECT * FROM retally.booked('comet')",
        "SELECT * FROM retally.stored('comet')",
        "CALL retally.recompute_show('comet')",
    ):
        farm_db.execute(call)
    assert farm_db.execute("SELECT int_cores FROM layer_resource").fetchall() == [(300,)]


@pytest.mark.parametrize(
    "use",
    [
        "CREATE TABLE public.theirs (what retally.finding)",
        "CREATE TABLE public.theirs (id text DEFAULT retally.show_id('comet'))",
        "CREATE FUNCTION public.theirs(f retally.finding) RETURNS integer LANGUAGE sql"
        " AS 'SELECT 1'",
        "CREATE TABLE retally.theirs (id integer)",
    ],
)
def test_uninstall_drops_nothing_that_is_not_ours(
    farm_db: psycopg.Connection, work: Work, use: str
) -> None:
    farm_db.execute(use)
    with pytest.raises(StillUsedError, match="theirs"):
        uninstall(farm_db)
    assert len(routines.shows(farm_db)) == 1
    assert work.show


def test_a_schema_of_the_same_name_that_is_not_ours_is_not_taken_over(
    farm_db: psycopg.Connection,
) -> None:
    uninstall(farm_db)
    farm_db.execute("CREATE SCHEMA retally; CREATE TABLE retally.theirs (id integer)")
    with pytest.raises(RetallyError, match="holds other things"):
        install(farm_db)
    farm_db.execute("DROP TABLE retally.theirs")
    install(farm_db)


def test_an_install_replaces_a_routine_of_another_kind(farm_db: psycopg.Connection) -> None:
    farm_db.execute("""
        DROP ROUTINE retally.set_managed;
        CREATE FUNCTION retally.set_managed(p_show text, p_managed boolean)
        RETURNS integer LANGUAGE sql AS 'SELECT 1'
    """)
    install(farm_db)
    kind = "SELECT prokind FROM pg_proc WHERE oid = 'retally.set_managed'::regproc"
    assert farm_db.execute(kind).fetchone() in {("p",), (b"p",)}


def test_names_with_quotes_percent_signs_and_unicode_are_names(
    farm_db: psycopg.Connection,
) -> None:
    for name in ("o'neil", "50%", 'a "b" \\c', "köln 🎬"):
        work = make_work(Rows(farm_db), name)
        assert routines.show_id(farm_db, name) == work.show
        farm_db.execute("CALL retally.recompute_show(%s)", (name,))
