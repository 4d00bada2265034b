"""One proc booked or released: what it writes and locks with the flag off and on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, in_background
from small_farm import (
    TOTAL_TABLES,
    Rows,
    Work,
    booking,
    contents,
    drift,
    idle,
    make_work,
    manage,
    share_idle,
    stored,
)

from retally.procedures import TOTALS
from retally.procedures.booking import book, release

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    return make_work(Rows(farm_db), 'it\'s 100% "new"')


def totals(conn: psycopg.Connection, work: Work) -> dict[str, tuple[int, ...]]:
    return {total: stored(conn, work, total) for total in TOTALS}


def writes(conn: psycopg.Connection) -> dict[str, int]:
    """Rows of each table that this session has written so far."""
    query = (
        "SELECT relname, n_tup_ins + n_tup_upd + n_tup_del FROM pg_stat_xact_user_tables"
        " WHERE n_tup_ins + n_tup_upd + n_tup_del > 0"
    )
    return dict(conn.execute(query).fetchall())


def test_a_booking_of_an_unmanaged_show_is_in_all_five_totals_until_it_is_released(
    farm_db: psycopg.Connection, work: Work
) -> None:
    before = contents(farm_db)
    proc = book(farm_db, booking(work, core_units=250, mem_kb=7, gpus=3))
    assert idle(farm_db, work.host) == (100_000 - 250, 10**9 - 7, 997, 0)
    assert totals(farm_db, work) == {
        "subscription": (250, 3, None, None),
        "layer": (250, 3, None, None),
        "job": (250, 3, 0, 0),
        "folder": (250, 3, None, None),
        "point": (250, 3, None, None),
    }
    assert drift(farm_db, work.show) == []
    assert release(farm_db, proc) is True
    assert contents(farm_db) == before


def test_the_proc_says_all_that_was_asked_for(farm_db: psycopg.Connection, work: Work) -> None:
    rows = Rows(farm_db)
    frame, host = rows.frame(work.layer), rows.host(work.alloc, gpu_mem=500)
    asked = booking(work, host=host, frame=frame, core_units=250, mem_kb=7, gpus=3, gpu_mem_kb=5)
    proc = book(farm_db, asked)
    row = farm_db.execute(
        "SELECT pk_proc, pk_host, pk_show, pk_job, pk_layer, pk_frame, int_cores_reserved,"
        " int_mem_reserved, int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved,"
        " int_gpu_mem_pre_reserved, b_local, b_unbooked FROM proc"
    ).fetchall()
    ids = (proc, host, work.show, work.job, work.layer, frame)
    assert row == [(*ids, 250, 7, 7, 3, 5, 5, False, False)]


@pytest.mark.parametrize("managed", [False, True])
def test_local_work_takes_from_its_share_and_is_counted_apart(
    farm_db: psycopg.Connection, work: Work, managed: bool
) -> None:
    Rows(farm_db).local_share(work.host, work.job, cores=400, mem=50, gpus=2)
    manage(farm_db, work, managed)
    before = contents(farm_db)
    proc = book(farm_db, booking(work, core_units=300, mem_kb=20, gpus=2, local=True))
    assert share_idle(farm_db, work.host, work.job) == (100, 30, 0)
    assert idle(farm_db, work.host)[:3] == (99_700, 10**9 - 20, 998)
    counted = (0, 0) if managed else (300, 2)
    assert totals(farm_db, work) == {
        "subscription": (0, 0, None, None),
        "layer": (*counted, None, None),
        "job": (0, 0, *counted),
        "folder": (0, 0, None, None),
        "point": (0, 0, None, None),
    }
    assert release(farm_db, proc) is True
    assert contents(farm_db) == before


@pytest.mark.parametrize("local", [False, True])
@pytest.mark.parametrize("managed", [False, True])
def test_each_row_is_written_once_and_with_the_flag_on_none_of_a_total(
    farm_db: psycopg.Connection, connect: Connect, work: Work, managed: bool, local: bool
) -> None:
    Rows(farm_db).local_share(work.host, work.job)
    manage(farm_db, work, managed)
    tables = ["proc", "host"]
    if local:
        tables.append("host_local")
    if not managed:
        tables += ["layer_resource", "job_resource"] if local else TOTAL_TABLES
    booker, releaser = connect(), connect()  # the counts are of a session
    proc = book(booker, booking(work, local=local))
    assert writes(booker) == dict.fromkeys(tables, 1)
    release(releaser, proc)
    assert writes(releaser) == dict.fromkeys(tables, 1)


@pytest.mark.parametrize("local", [False, True])
def test_with_the_flag_on_nothing_waits_for_a_total_or_for_what_leads_there(
    farm_db: psycopg.Connection, connect: Connect, work: Work, local: bool
) -> None:
    Rows(farm_db).local_share(work.host, work.job)
    frame = Rows(farm_db).frame(work.layer)
    manage(farm_db, work, True)
    holder = connect()
    holder.execute("BEGIN")
    for table in (*TOTAL_TABLES, "show", "alloc", "job", "layer", "folder", "dept"):
        assert holder.execute(f"SELECT FROM public.{table} FOR UPDATE").rowcount > 0
    holder.execute("SELECT FROM retally.scope_flag FOR UPDATE")
    farm_db.execute("SET lock_timeout = '10ms'")
    proc = book(farm_db, booking(work, frame=frame, local=local))
    assert release(farm_db, proc) is True


@pytest.mark.parametrize("managed", [False, True])
def test_a_booking_holds_its_shows_flag_shared_and_no_other_advisory_lock(
    farm_db: psycopg.Connection, work: Work, managed: bool
) -> None:
    manage(farm_db, work, managed)
    query = (
        "SELECT mode, (classid::bigint << 32) | objid::bigint, granted FROM pg_locks"
        " WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    )
    key = farm_db.execute("SELECT retally.flag_lock(%s)", (work.show,)).fetchone()
    assert key is not None
    with farm_db.transaction():
        proc = book(farm_db, booking(work))
        assert farm_db.execute(query).fetchall() == [("ShareLock", key[0], True)]
    assert farm_db.execute(query).fetchall() == []
    with farm_db.transaction():
        release(farm_db, proc)
        assert farm_db.execute(query).fetchall() == [("ShareLock", key[0], True)]


@pytest.mark.parametrize("place", range(5))
@pytest.mark.parametrize("releasing", [False, True])
def test_the_totals_are_taken_in_the_order_of_the_inline_path(
    farm_db: psycopg.Connection, connect: Connect, work: Work, place: int, releasing: bool
) -> None:
    order = ("host", *TOTAL_TABLES)
    holder, worker = connect(), connect()
    proc = book(farm_db, booking(work)) if releasing else ""
    holder.execute("BEGIN")
    holder.execute(f"SELECT FROM public.{TOTAL_TABLES[place]} FOR UPDATE")
    running = in_background(
        lambda: release(worker, proc) if releasing else book(worker, booking(work))
    )
    await_blocked(farm_db, worker)
    free = [
        table
        for table in order
        if farm_db.execute(f"SELECT FROM public.{table} FOR UPDATE SKIP LOCKED").rowcount
    ]
    assert free == list(order[place + 2 :])
    holder.execute("COMMIT")
    assert running.result(60)
    assert drift(farm_db, work.show) == []


def test_a_release_gives_back_what_the_row_says_by_then(
    farm_db: psycopg.Connection, work: Work
) -> None:
    before = contents(farm_db)
    proc = book(farm_db, booking(work, mem_kb=1000))
    farm_db.execute("UPDATE proc SET int_mem_reserved = 5000")  # the host follows by a trigger
    assert idle(farm_db, work.host)[1] == 10**9 - 5000
    assert release(farm_db, proc) is True
    assert contents(farm_db) == before


@pytest.mark.parametrize("managed", [False, True])
@pytest.mark.parametrize("unknown", ["gone", "", None, "x" * 5000, "it's %s"])
def test_releasing_what_is_gone_says_so_and_changes_nothing(
    farm_db: psycopg.Connection, work: Work, managed: bool, unknown: str | None
) -> None:
    manage(farm_db, work, managed)
    proc = book(farm_db, booking(work))
    book(farm_db, booking(work))
    release(farm_db, proc)
    before = contents(farm_db)
    assert release(farm_db, proc) is False
    row = farm_db.execute("SELECT retally.release_proc(%s)", (unknown,)).fetchone()
    assert row == (False,)
    assert contents(farm_db) == before


def test_a_proc_that_names_no_show_job_or_layer_gives_its_host_back(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    before = contents(farm_db)
    for show, job, layer in (
        (None, None, None),
        (None, work.job, work.layer),
        (work.show, None, None),
        (work.show, "gone", "gone"),
    ):
        proc = rows.proc(work.host, show, job, layer)
        farm_db.execute(
            "UPDATE host SET int_cores_idle = int_cores_idle - 100,"
            " int_mem_idle = int_mem_idle - 1000"
        )
        farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
        assert release(farm_db, proc) is True
        assert contents(farm_db) == before


def test_a_host_or_job_that_moved_since_the_booking_is_exact_after_a_recompute(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    alloc, folder = rows.alloc(), rows.folder(work.show, work.dept)
    procs = [book(farm_db, booking(work, core_units=200)) for _ in range(2)]
    farm_db.execute("UPDATE job SET pk_folder = %s", (folder,))
    farm_db.execute("UPDATE host SET pk_alloc = %s", (alloc,))  # to where there is no subscription
    assert release(farm_db, procs[0]) is True
    assert {row[0] for row in drift(farm_db, work.show)} == {"subscription"}
    farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    # the recompute found nothing in the folders: the job took its cores along
    assert release(farm_db, procs[1]) is True
    assert drift(farm_db, work.show) == []
    assert stored(farm_db, work, "folder")[0] == 0


def test_totals_without_a_row_hinder_nobody(farm_db: psycopg.Connection, work: Work) -> None:
    for table in ("layer_resource", "job_resource", "folder_resource", "point"):
        farm_db.execute(f"DELETE FROM public.{table}")
    proc = book(farm_db, booking(work))
    assert stored(farm_db, work, "subscription")[0] == 100
    assert release(farm_db, proc) is True
    assert stored(farm_db, work, "subscription")[0] == 0


def test_read_uncommitted_is_read_committed_to_postgresql_and_books(
    farm_db: psycopg.Connection, work: Work
) -> None:
    farm_db.execute("BEGIN ISOLATION LEVEL READ UNCOMMITTED")
    assert release(farm_db, book(farm_db, booking(work)))
    farm_db.execute("COMMIT")
    assert drift(farm_db, work.show) == []
