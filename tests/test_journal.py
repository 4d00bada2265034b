"""A journaled show: what its procs book and release is folded into its totals, exactly once."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from concurrency import run_in_background
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_farm import Rows, Work, booking, corrupt, drift, make_work, manage, stored
from test_exactness import all_stored, brute_force, random_farm
from test_locks import give_time, lock

from retally.procedures import TOTALS
from retally.procedures import booking as product
from retally.procedures.journal import JournalState, fold, journal_state, set_journal
from retally.sql.errors import ShowBusyError, UnmanagedShowError, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[], psycopg.Connection]


def journaled_show(conn: psycopg.Connection) -> Work:
    work = make_work(Rows(conn))
    manage(conn, work, True)
    set_journal(conn, work.show, on=True)
    return work


def everything(conn: psycopg.Connection, work: Work) -> list[tuple[int, ...]]:
    return [stored(conn, work, total)[:2] for total in TOTALS]


def entries(conn: psycopg.Connection) -> int:
    return journal_state(conn).entries


def test_what_is_booked_is_in_the_totals_once_it_is_folded_and_not_before(
    farm_db: psycopg.Connection,
) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300, gpus=2))
    assert everything(farm_db, work) == [(0, 0)] * 5
    assert entries(farm_db) == 1
    passes = fold(farm_db, [work.show], wait=False)
    assert {(each.total, each.rows_changed) for each in passes} == {(t, 1) for t in TOTALS}
    assert everything(farm_db, work) == [(300, 2)] * 5
    assert entries(farm_db) == 0
    assert drift(farm_db, work.show) == []


def test_a_second_fold_adds_nothing(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    for _ in range(3):
        fold(farm_db, [work.show], wait=False)
    assert everything(farm_db, work) == [(300, 0)] * 5


def test_a_fold_that_is_rolled_back_leaves_entries_and_totals(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    with farm_db.transaction(force_rollback=True):
        fold(farm_db, [work.show], wait=False)
        assert everything(farm_db, work) == [(300, 0)] * 5
    assert everything(farm_db, work) == [(0, 0)] * 5
    assert entries(farm_db) == 1


def test_a_booking_that_is_rolled_back_leaves_no_entry(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    with farm_db.transaction(force_rollback=True):
        product.book(farm_db, booking(work))
    assert entries(farm_db) == 0


def test_local_work_counts_where_it_does_in_a_recompute(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, 200, 1, local=True)
    fold(farm_db, [work.show], wait=False)
    assert stored(farm_db, work, "job") == (0, 0, 200, 1)
    assert everything(farm_db, work) == [(0, 0), (200, 1), (0, 0), (0, 0), (0, 0)]


def test_what_hosts_report_of_their_procs_leaves_no_entry(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer)
    fold(farm_db, [work.show], wait=False)
    farm_db.execute("UPDATE proc SET int_mem_used = 5, ts_ping = current_timestamp")
    assert entries(farm_db) == 0


def test_other_shows_leave_no_entry(farm_db: psycopg.Connection) -> None:
    journaled_show(farm_db)
    other = make_work(Rows(farm_db))
    manage(farm_db, other, True)
    Rows(farm_db).proc(other.host, other.show, other.job, other.layer)
    assert entries(farm_db) == 0


def test_a_recompute_beside_entries_that_are_not_folded_counts_each_once(
    farm_db: psycopg.Connection,
) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    corrupt(farm_db)
    for call in ("CALL retally.recompute_show(%(show)s)", "CALL retally.recompute_all()"):
        product.book(farm_db, booking(work, core_units=100))
        farm_db.execute(call, {"show": work.show})
        assert drift(farm_db, work.show) == []
        fold(farm_db, [work.show], wait=False)
        assert drift(farm_db, work.show) == []
    assert everything(farm_db, work) == [(500, 0)] * 5


def test_a_pass_finds_no_drift_in_what_only_waits_to_be_folded(
    farm_db: psycopg.Connection,
) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    query = "SELECT sum(f.rows_adrift) FROM retally.findings(ARRAY[%s], retally.totals()) AS f"
    assert farm_db.execute(query, (work.show,)).fetchone() == (0,)
    corrupt(farm_db)
    assert farm_db.execute(query, (work.show,)).fetchone() == (5,)


def test_a_total_rises_above_its_cap_and_the_cap_stays(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, 500, 4)
    farm_db.execute("UPDATE subscription SET int_burst = 100")
    farm_db.execute("UPDATE job_resource SET int_max_cores = 200, int_max_gpus = 3")
    for _ in range(2):
        fold(farm_db, [work.show], wait=False)
        assert everything(farm_db, work) == [(500, 4)] * 5
        assert farm_db.execute("SELECT int_burst FROM subscription").fetchone() == (100,)
        caps = farm_db.execute("SELECT int_max_cores, int_max_gpus FROM job_resource").fetchone()
        assert caps == (200, 3)


def test_a_row_that_cannot_take_the_sum_is_named_and_the_others_are_folded(
    farm_db: psycopg.Connection,
) -> None:
    work = journaled_show(farm_db)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, 3 * 10**9)
    farm_db.execute("DELETE FROM point")
    passes = {each.total: each for each in fold(farm_db, [work.show], wait=False)}
    failed = {total for total, each in passes.items() if each.rows_failed}
    assert failed == {"subscription", "folder", "point"}  # integers, and the row that is gone
    assert "cannot take what the journal adds" in passes["folder"].problems[0]
    assert stored(farm_db, work, "layer")[0] == 3 * 10**9


def test_a_journal_that_cannot_be_folded_holds_up_no_show_and_is_told(
    farm_db: psycopg.Connection,
) -> None:
    work, other = journaled_show(farm_db), journaled_show(farm_db)
    for each in (work, other):
        Rows(farm_db).proc(each.host, each.show, each.job, each.layer, cores=300)
    farm_db.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'the disk is on fire' USING ERRCODE = 'io_error'; END $$;"
        "CREATE TRIGGER refuse BEFORE DELETE ON retally.journal FOR EACH ROW"
        f" WHEN (OLD.scope = '{work.show}') EXECUTE FUNCTION refuse()"
    )
    row = farm_db.execute("CALL retally.recompute_all()").fetchone()
    assert row is not None
    assert row[:2] == (2, 0)
    assert ["its journal is not folded: the disk is on fire" in each for each in row[8]] == [True]
    assert [cores for cores, _ in everything(farm_db, other)] == [300] * 5
    assert entries(farm_db) == 1


def test_what_finds_no_row_any_more_is_told(farm_db: psycopg.Connection) -> None:
    work = journaled_show(farm_db)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=300)
    fold(farm_db, [work.show], wait=True)
    farm_db.execute("DELETE FROM proc")
    farm_db.execute("DELETE FROM host")
    failed = {p.total: p.rows_failed for p in fold(farm_db, [work.show], wait=True)}
    assert failed == {total: int(total == "subscription") for total in TOTALS}


def test_a_fold_that_meets_a_busy_row_holds_no_other_row_while_it_waits(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    """Otherwise it could be part of a circle, of which PostgreSQL ends somebody else."""
    work = journaled_show(farm_db)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=300)
    give_time(farm_db, folder := connect())
    lock(holder := connect(), work, "point")
    running = run_in_background(
        folder, "SELECT sum(rows_changed) FROM retally.fold(ARRAY[%s], TRUE)", (work.show,)
    )
    for total in ("subscription", "layer", "job", "folder") * 5:
        # whoever wants one of these has it within a moment of the fold's
        lock(other := connect(), work, total)
        other.execute("ROLLBACK")
    assert not running.done()
    holder.execute("ROLLBACK")
    assert running.result(60) == [(5,)]


@pytest.mark.parametrize("statement", ["INSERT INTO mine DEFAULT VALUES", "DELETE FROM mine"])
def test_the_journals_function_serves_no_other_table(
    farm_db: psycopg.Connection, statement: str
) -> None:
    farm_db.execute(
        "CREATE TEMP TABLE mine (pk_show text DEFAULT 'x'); INSERT INTO mine DEFAULT VALUES"
    )
    for kind, rows in (("INSERT", "NEW TABLE AS new_rows"), ("DELETE", "OLD TABLE AS old_rows")):
        farm_db.execute(
            f"CREATE TRIGGER t{kind} AFTER {kind} ON mine REFERENCING {rows}"
            " FOR EACH STATEMENT EXECUTE FUNCTION retally.journal_procs()"
        )
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match=r"public\.proc only"):
        farm_db.execute(statement)


def test_a_row_that_the_farm_refuses_is_named_and_the_others_are_folded(
    farm_db: psycopg.Connection,
) -> None:
    work, other = journaled_show(farm_db), journaled_show(farm_db)
    farm_db.execute(
        "ALTER TABLE layer_resource ADD CONSTRAINT odd"
        f" CHECK (pk_layer <> '{work.layer}' OR int_cores = 0)"
    )
    for each in (work, other):
        Rows(farm_db).proc(each.host, each.show, each.job, each.layer, cores=300, gpus=2)
    passes = {(p.show_id, p.total): p for p in fold(farm_db, [work.show, other.show], wait=True)}
    refused = passes.pop((work.show, "layer"))
    assert (refused.rows_changed, refused.rows_failed) == (0, 1)
    assert {(p.rows_changed, p.rows_failed) for p in passes.values()} == {(1, 0)}
    assert everything(farm_db, other) == [(300, 2)] * 5
    assert entries(farm_db) == 0
    # a recompute of all holds up no other show either
    row = farm_db.execute("CALL retally.recompute_all()").fetchone()
    assert row is not None
    assert row[:6] == (2, 0, 1, 0, 0, 1)


def test_a_job_that_moves_before_the_fold_takes_its_entries_along(
    farm_db: psycopg.Connection,
) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    fold(farm_db, [work.show], wait=False)
    product.book(farm_db, booking(work, core_units=100))
    new = Rows(farm_db).folder(work.show, work.dept)
    farm_db.execute("UPDATE job SET pk_folder = %s WHERE pk_job = %s", (new, work.job))
    fold(farm_db, [work.show], wait=False)
    assert drift(farm_db, work.show) == []


def test_busy_rows_defer_the_whole_fold(farm_db: psycopg.Connection, connect: Connect) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    holder = connect()
    with holder.transaction():
        holder.execute("SELECT FROM job_resource FOR UPDATE")
        with pytest.raises(ShowBusyError):
            fold(farm_db, [work.show], wait=False)
        assert everything(farm_db, work) == [(0, 0)] * 5
        assert entries(farm_db) == 1
    fold(farm_db, [work.show], wait=False)
    assert everything(farm_db, work) == [(300, 0)] * 5


def test_an_unmanaged_show_cannot_be_journaled(farm_db: psycopg.Connection) -> None:
    work = make_work(Rows(farm_db))
    with pytest.raises(UnmanagedShowError, match="is not managed"):
        set_journal(farm_db, work.show, on=True)
    assert journal_state(farm_db).triggers == 0


def test_a_writer_in_flight_is_waited_for_within_a_bound(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = make_work(Rows(farm_db))
    manage(farm_db, work, True)
    farm_db.execute("UPDATE retally.setting SET longest_flip = '50 ms'")
    writer = connect()
    with writer.transaction():
        Rows(writer).proc(work.host, work.show, work.job, work.layer)
        with pytest.raises(ShowBusyError, match="proc locked"):
            set_journal(farm_db, work.show, on=True)
    set_journal(farm_db, work.show, on=True)
    farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    assert everything(farm_db, work) == [(100, 0)] * 5


def test_a_show_that_is_gone_keeps_no_trigger(farm_db: psycopg.Connection) -> None:
    mine, other = journaled_show(farm_db), journaled_show(farm_db)
    farm_db.execute("UPDATE retally.scope_flag SET scope = 'gone' WHERE scope = %s", (mine.show,))
    set_journal(farm_db, other.show, on=False)
    assert journal_state(farm_db).triggers == 0


def test_the_last_show_to_leave_takes_the_triggers_along(farm_db: psycopg.Connection) -> None:
    mine, other = journaled_show(farm_db), journaled_show(farm_db)
    assert journal_state(farm_db).triggers == 3
    set_journal(farm_db, mine.show, on=False)
    assert journal_state(farm_db).triggers == 3
    set_journal(farm_db, other.show, on=False)
    assert journal_state(farm_db) == JournalState(0, 0, 0)


def test_a_flip_to_unmanaged_ends_the_journal_with_true_totals(
    farm_db: psycopg.Connection,
) -> None:
    work = journaled_show(farm_db)
    product.book(farm_db, booking(work, core_units=300))
    manage(farm_db, work, False)
    assert everything(farm_db, work) == [(300, 0)] * 5
    product.book(farm_db, booking(work, core_units=100))
    assert everything(farm_db, work) == [(400, 0)] * 5
    assert entries(farm_db) == 0


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_folds_and_recomputes_in_any_order_leave_the_brute_force_sums(
    farm_db: psycopg.Connection, seed: int
) -> None:
    """Procs that disagree with themselves, shows of which some are journaled, any order."""
    draw = random.Random(seed)
    with farm_db.transaction(force_rollback=True):
        shows = random_farm(farm_db, seed)
        for show in shows:
            farm_db.execute("CALL retally.set_managed(%s, true)", (show,))
            if draw.random() < 0.7:
                set_journal(farm_db, show, on=True)
        for show in shows:
            farm_db.execute("CALL retally.recompute_show(%s)", (show,))
        for _ in range(draw.randint(1, 8)):
            change_a_proc(farm_db, draw)
            if draw.random() < 0.4:
                fold(farm_db, draw.sample(shows, draw.randint(1, len(shows))), wait=False)
            if draw.random() < 0.2:
                farm_db.execute("CALL retally.recompute_show(%s)", (draw.choice(shows),))
        fold(farm_db, shows, wait=False)
        for show in shows:
            farm_db.execute("CALL retally.recompute_show(%s)", (show,))
        sums = brute_force(farm_db)
        expected = {key: sums.get(key, (0, 0, 0, 0)) for key in all_stored(farm_db)}
        assert all_stored(farm_db) == expected


def change_a_proc(conn: psycopg.Connection, draw: random.Random) -> None:
    one = "(SELECT pk_proc FROM proc ORDER BY md5(pk_proc || %s) LIMIT 1)"
    salt = str(draw.random())
    kind = draw.randrange(4)
    if kind == 3:  # goes on with another layer, which the farm's own trigger counts
        conn.execute(
            "UPDATE proc SET int_cores_reserved = %s, pk_layer = (SELECT pk_layer FROM layer"
            f" ORDER BY md5(pk_layer || %s) LIMIT 1) WHERE pk_proc = {one}",
            (draw.randint(1, 900), salt, salt),
        )
    elif kind == 0:
        conn.execute(f"DELETE FROM proc WHERE pk_proc = {one}", (salt,))
    elif kind == 1:
        conn.execute(
            f"UPDATE proc SET int_cores_reserved = %s, b_local = NOT b_local WHERE pk_proc = {one}",
            (draw.randint(1, 900), salt),
        )
    else:
        conn.execute(
            "INSERT INTO proc (pk_proc, pk_host, pk_show, pk_job, pk_layer, int_cores_reserved,"
            " int_mem_reserved, int_gpus_reserved, b_local)"
            " SELECT gen_random_uuid(), pk_host, pk_show, pk_job, pk_layer, %s, 1, 1, b_local"
            f" FROM proc WHERE pk_proc = {one}",
            (draw.randint(1, 900), salt),
        )


def until(stop: Event, conn: psycopg.Connection, call: Callable[[psycopg.Connection], Any]) -> int:
    """Call it again and again, busy or not; how often it came through."""
    calls = 0
    while not stop.is_set():
        try:
            with translated():
                call(conn)
            calls += 1
        except ShowBusyError:
            continue
    return calls


def test_beside_bookings_folds_and_recomputes_lose_and_double_nothing(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = journaled_show(farm_db)
    stop = Event()

    def book(conn: psycopg.Connection) -> int:
        for number in range(150):
            proc = product.book(conn, booking(work, core_units=100 + number % 3))
            if number % 3 == 0:
                product.release(conn, proc)
        return 150

    calls: list[Callable[[psycopg.Connection], Any]] = [
        lambda conn: fold(conn, [work.show], wait=False),
        lambda conn: conn.execute("CALL retally.recompute_show(%s)", (work.show,)),
    ]
    with ThreadPoolExecutor(5) as pool:
        others = [pool.submit(until, stop, connect(), call) for call in calls]
        try:
            booked = [pool.submit(book, connect()) for _ in range(3)]
            assert [each.result() for each in booked] == [150] * 3
        finally:
            stop.set()
        assert all(other.result() > 0 for other in others)
    fold(farm_db, [work.show], wait=True)
    assert drift(farm_db, work.show) == []
    assert entries(farm_db) == 0
    assert everything(farm_db, work)[0][0] > 0
