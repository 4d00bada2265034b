"""Bookings and releases that meet each other, or rows that change just then."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, in_background
from small_farm import Rows, Work, booking, drift, idle, make_work, stored

from retally.procedures.booking import Booking, book, book_many, release, release_many
from retally.sql.errors import FrameBookedError, HostFullError, UnknownWorkError

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    return make_work(Rows(farm_db))


def one(conn: psycopg.Connection, asked: Booking, batch: bool) -> str:
    """Book it, alone or as a batch of its own; answers with the proc's id."""
    if not batch:
        return book(conn, asked)
    answer = book_many(conn, [asked])[0]
    if answer.error:
        raise answer.error
    return str(answer.proc)


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("batch", [False, True])
def test_of_two_bookings_of_a_frame_the_second_waits_for_the_first(
    farm_db: psycopg.Connection, connect: Connect, work: Work, commits: bool, batch: bool
) -> None:
    asked = booking(work, frame=Rows(farm_db).frame(work.layer))
    first, second = connect(), connect()
    first.execute("BEGIN")
    proc = book(first, asked)
    running = in_background(lambda: one(second, asked, batch))
    await_blocked(farm_db, second)
    first.execute("COMMIT" if commits else "ROLLBACK")
    if commits:
        with pytest.raises(FrameBookedError, match=proc):
            running.result(60)
    else:
        assert running.result(60)
    assert drift(farm_db, work.show) == []


@pytest.mark.parametrize("commits", [True, False])
@pytest.mark.parametrize("batch", [False, True])
def test_the_last_cores_of_a_host_go_to_one_of_two(
    farm_db: psycopg.Connection, connect: Connect, work: Work, commits: bool, batch: bool
) -> None:
    host = Rows(farm_db).host(work.alloc, cores=150)
    asked = booking(work, host=host)
    first, second = connect(), connect()
    first.execute("BEGIN")
    book(first, asked)
    running = in_background(lambda: one(second, asked, batch))
    await_blocked(farm_db, second)
    first.execute("COMMIT" if commits else "ROLLBACK")
    if commits:
        with pytest.raises(HostFullError, match="50 core units idle, not 100"):
            running.result(60)
    else:
        assert running.result(60)
    assert idle(farm_db, host)[0] == 50
    assert drift(farm_db, work.show) == []


@pytest.mark.parametrize("batch", [False, True])
def test_a_host_that_changes_its_allocation_meanwhile_counts_where_it_is_now(
    farm_db: psycopg.Connection, connect: Connect, work: Work, batch: bool
) -> None:
    rows = Rows(farm_db)
    there, back = rows.alloc(), work.alloc
    rows.subscription(work.show, there)
    mover, worker = connect(), connect()

    def move(alloc: str) -> None:
        mover.execute("BEGIN")
        mover.execute("UPDATE host SET pk_alloc = %s WHERE pk_host = %s", (alloc, work.host))

    move(there)
    asked = booking(work)
    booked = in_background(lambda: one(worker, asked, batch))
    await_blocked(farm_db, worker)
    mover.execute("COMMIT")
    proc = booked.result(60)
    assert drift(farm_db, work.show) == []
    move(back)
    # the one who moves it takes its cores along
    mover.execute("UPDATE subscription SET int_cores = 100 - int_cores")
    gone = in_background(
        lambda: release_many(worker, [proc]) == [True] if batch else release(worker, proc)
    )
    await_blocked(farm_db, worker)
    mover.execute("COMMIT")
    assert gone.result(60)
    assert drift(farm_db, work.show) == []


@pytest.mark.parametrize("batch", [False, True])
@pytest.mark.parametrize("managed", [False, True])
def test_a_proc_that_changes_while_its_release_waits_is_released_as_it_is_then(
    farm_db: psycopg.Connection, connect: Connect, work: Work, batch: bool, managed: bool
) -> None:
    rows = Rows(farm_db)
    other, frame = make_work(rows), rows.frame(work.layer)
    rows.subscription(other.show, work.alloc)
    farm_db.execute("CALL retally.set_managed(%s, %s)", (other.show, managed))
    procs = [book(farm_db, booking(work, frame=frame)), book(farm_db, booking(work))]
    changer, worker = connect(), connect()
    changer.execute("BEGIN")
    # more memory, and a redirect to the other show, which Cuebot counts as it books there
    changer.execute(
        "UPDATE proc SET pk_show = %s, pk_job = %s, pk_layer = %s, int_mem_reserved = 5000"
        " WHERE pk_frame = %s",
        (other.show, other.job, other.layer, frame),
    )
    running = in_background(
        lambda: release_many(worker, procs) if batch else [release(worker, p) for p in procs]
    )
    await_blocked(farm_db, worker)
    changer.execute("COMMIT")
    assert running.result(60) == [True, True]
    assert idle(farm_db, work.host)[:2] == (100_000, 10**9)
    # the release was counted where the proc was then; nobody had counted the redirect but in layers
    found = {total: stored(farm_db, other, total)[0] for total in ("job", "folder", "point")}
    assert set(found.values()) == {0 if managed else -100}
    assert stored(farm_db, work, "job")[0] == 100
    for show in (work.show, other.show):
        farm_db.execute("CALL retally.recompute_show(%s)", (show,))
    assert drift(farm_db, work.show, other.show) == []


def test_a_batch_that_meets_a_redirect_is_no_part_of_a_circle_of_locks(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    rows = Rows(farm_db)
    other = make_work(rows)
    low, high = sorted(rows.host(work.alloc) for _ in range(2))
    procs = [book(farm_db, booking(work, host=host)) for host in (high, low)]
    changer, releaser, booker = connect(), connect(), connect()
    changer.execute("BEGIN")
    changer.execute("UPDATE proc SET pk_show = %s WHERE pk_host = %s", (other.show, low))
    running = in_background(lambda: release_many(releaser, procs))
    await_blocked(farm_db, releaser)
    booker.execute("BEGIN")
    booker.execute("UPDATE host SET int_mem_idle = int_mem_idle WHERE pk_host = %s", (low,))
    changer.execute("COMMIT")
    await_blocked(farm_db, releaser)
    # on its way to the totals, as every booking on that host; nobody else may be there
    booker.execute("SET lock_timeout = '10s'")
    booker.execute("UPDATE subscription SET int_size = 1 WHERE pk_show = %s", (work.show,))
    booker.execute("COMMIT")
    assert running.result(60) == [True, True]
    assert drift(farm_db) == []


@pytest.mark.parametrize("batch", [False, True])
def test_a_frame_that_is_deleted_meanwhile_is_unknown(
    farm_db: psycopg.Connection, connect: Connect, work: Work, batch: bool
) -> None:
    rows = Rows(farm_db)
    frame, other = rows.frame(work.layer), rows.frame(work.layer)
    deleter, booker = connect(), connect()
    deleter.execute("BEGIN")
    deleter.execute("DELETE FROM frame WHERE pk_frame = %s", (frame,))
    asked = [booking(work, frame=frame), booking(work, frame=other)]
    if batch:
        running = in_background(lambda: book_many(booker, asked))
        await_blocked(farm_db, booker)
        deleter.execute("COMMIT")
        lost, booked = running.result(60)
        assert isinstance(lost.error, UnknownWorkError)
        assert booked.proc
    else:
        alone = in_background(lambda: book(booker, asked[0]))
        await_blocked(farm_db, booker)
        deleter.execute("COMMIT")
        with pytest.raises(UnknownWorkError, match=frame):
            alone.result(60)
    assert drift(farm_db, work.show) == []
