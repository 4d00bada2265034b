"""What goes wrong around a Dispatcher with admission: each keeps to the show that it concerns."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from admitted import DEAF, stats
from small_farm import Rows, Work, booking, make_work, manage
from worker_process import await_true

from retally.dispatch import Admission, Dispatcher
from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.errors import (
    DatabaseUnreachableError,
    HostFullError,
    NoSubscriptionError,
    OverCapError,
    RetallyError,
    ServedElsewhereError,
    ShowBusyError,
    UnknownWorkError,
)
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from conftest import Connect
    from tcp_proxy import Proxy

    from retally.dispatch import Booking

LISTENING = Admission(recount_seconds=3600)


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show with a burst of ten cores, whose releases are told."""
    farm_db.execute("UPDATE retally.setting SET notify = true")
    return managed(farm_db)


def managed(conn: psycopg.Connection) -> Work:
    made = make_work(Rows(conn), burst=1000)
    manage(conn, made, True)
    return made


def booked(conn: psycopg.Connection) -> int:
    """Core units of all procs."""
    row = conn.execute("SELECT coalesce(sum(int_cores_reserved), 0) FROM proc").fetchone()
    assert row is not None
    return int(row[0])


def fill(dispatcher: Dispatcher, asked: Booking) -> int:
    """Book until a cap is met; how many. A connection that was lost is made again."""
    count = 0
    while True:
        try:
            dispatcher.book(asked)
        except OverCapError:
            return count
        except DatabaseUnreachableError:
            continue
        count += 1


def test_after_a_crash_of_the_server_the_numbers_of_transactions_begin_lower_and_fool_nobody() -> (
    None
):
    # nothing of a transaction that was rolled back is on disk
    slow = {"wal_writer_delay": "10s", "synchronous_commit": "on", "fsync": "on"}
    with EmbeddedServer.start(in_memory=True, settings=slow) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work = managed(conn)
        settings = Admission(lease_seconds=600, recount_seconds=0.1, notify=False)
        with Dispatcher(server.dsn(), connections=1, admission=settings) as dispatcher:
            dispatcher.book(booking(work))
            for _ in range(20):
                with pytest.raises(HostFullError):
                    dispatcher.book(booking(work, mem_kb=10**12))
            recounts = stats(dispatcher).recounts
            await_true(lambda: stats(dispatcher).recounts > recounts + 1)
            server.crash()
            with pytest.raises(RetallyError):
                dispatcher.book(booking(work, core_units=10**6, local=True))
            server.start_server()
            assert fill(dispatcher, booking(work)) == 9
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            assert booked(conn) == 1000


def test_who_closes_a_dispatcher_while_it_books_lets_nothing_past_the_caps(
    farm_db: psycopg.Connection, work: Work
) -> None:
    for burst in (3000, 6000, 9000):
        farm_db.execute("UPDATE subscription SET int_burst = %s", (burst,))
        with (
            ThreadPoolExecutor(4) as pool,
            Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher,
        ):
            booking_on = [pool.submit(_book_until_closed, dispatcher, work) for _ in range(4)]
            # full, and still asked by all
            await_true(lambda: stats(dispatcher).refused.get("subscription", 0) > 100)
            dispatcher.__exit__()
            for each in booking_on:
                each.result(60)
        # one of each thread may have been refused since its lease was given up
        assert burst - 4 * 100 <= booked(farm_db) <= burst


def _book_until_closed(dispatcher: Dispatcher, work: Work) -> None:
    while True:
        try:
            dispatcher.book(booking(work))
        except RetallyError as error:
            if "not open" in str(error):
                return


def test_a_closed_dispatcher_books_nothing(farm_db: psycopg.Connection, work: Work) -> None:
    dispatcher = Dispatcher(farm_db.info.dsn, admission=DEAF)
    with dispatcher:
        dispatcher.book(booking(work))
    with pytest.raises(RetallyError, match="not open"):
        dispatcher.book(booking(work))
    with pytest.raises(RetallyError, match="not open"):
        dispatcher.book_many([booking(work)])
    assert booked(farm_db) == 100


def test_a_release_on_a_host_that_has_moved_makes_no_room_where_it_is_now(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    there = rows.alloc()
    rows.subscription(work.show, there, burst=1000)
    host = rows.host(there)
    with Dispatcher(farm_db.info.dsn, admission=LISTENING) as dispatcher:
        procs = [dispatcher.book(booking(work)) for _ in range(10)]
        assert dispatcher.book(booking(work, host=host))
        await_true(lambda: stats(dispatcher).recounts == 1)
        farm_db.execute("UPDATE host SET pk_alloc = %s WHERE pk_host = %s", (there, work.host))
        dispatcher.release_many(procs)
        await_true(lambda: stats(dispatcher).releases == 1)
        assert fill(dispatcher, booking(work, host=host)) == 9
        # the hint has the show counted anew
        await_true(lambda: stats(dispatcher).recounts == 2)
    assert booked(farm_db) == 1000


def test_a_release_of_a_job_that_has_moved_makes_no_room_in_the_folder_where_it_is_now(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    folder = rows.folder(work.show, work.dept)
    farm_db.execute("UPDATE folder_resource SET int_max_cores = 500")
    job = rows.job(work.show, folder, work.dept)
    other = booking(work, job=job, layer=rows.layer(job))
    with Dispatcher(farm_db.info.dsn, admission=LISTENING) as dispatcher:
        procs = [dispatcher.book(booking(work)) for _ in range(5)]
        dispatcher.book(other)
        await_true(lambda: stats(dispatcher).recounts == 1)
        farm_db.execute("UPDATE job SET pk_folder = %s WHERE pk_job = %s", (folder, work.job))
        dispatcher.release_many(procs)
        await_true(lambda: stats(dispatcher).releases == 1)
        answers = dispatcher.book_many([other] * 6)
        assert [bool(answer.proc) for answer in answers] == [True] * 4 + [False] * 2
    assert booked(farm_db) == 500


def test_a_subscription_that_comes_later_is_counted_before_its_burst_is_used(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    there = rows.alloc()
    host = rows.host(there)
    rows.proc(host, work.show, work.job, work.layer, cores=800)
    with Dispatcher(farm_db.info.dsn, admission=LISTENING) as dispatcher:
        dispatcher.book(booking(work))
        await_true(lambda: stats(dispatcher).recounts == 1)
        with pytest.raises(NoSubscriptionError):
            dispatcher.book(booking(work, host=host))
        rows.subscription(work.show, there, burst=0)
        farm_db.execute("CALL retally.set_burst(%s, %s, 1000)", (work.show, there))
        await_true(lambda: stats(dispatcher).recounts == 2)
        for _ in range(2):
            dispatcher.book(booking(work, host=host))
        with pytest.raises(OverCapError, match=f'to "{there}".*burst of 1000, 1000 are in use'):
            dispatcher.book(booking(work, host=host))


def test_a_job_that_was_deleted_is_unknown_and_nothing_else(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    job = rows.job(work.show, work.folder, work.dept)
    gone = booking(work, job=job, layer=rows.layer(job))
    settings = Admission(recount_seconds=0.1, notify=False)
    with Dispatcher(farm_db.info.dsn, admission=settings) as dispatcher:
        dispatcher.release(dispatcher.book(gone))
        for table in ("layer_resource", "layer", "job_resource", "job"):
            farm_db.execute(f"DELETE FROM {table} WHERE pk_job = %s".encode(), (job,))
        recounts = stats(dispatcher).recounts
        await_true(lambda: stats(dispatcher).recounts > recounts + 2)
        with pytest.raises(UnknownWorkError):
            dispatcher.book(gone)
        dispatcher.book(booking(work))


def test_a_lease_that_somebody_has_locked_lets_no_other_run_out(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    other = managed(farm_db)
    settings = Admission(lease_seconds=4, recount_seconds=3600, notify=False)
    with Dispatcher(farm_db.info.dsn, admission=settings) as dispatcher:
        for each in (work, other):
            dispatcher.book(booking(each))
        # and that somebody wants, so that it is to be given up
        farm_db.execute(
            "UPDATE retally.lease SET wanted_by = 'you', wanted_at = now() + interval '1 hour'"
            " WHERE scope = %s",
            (work.show,),
        )
        stuck = connect()
        with stuck.transaction():
            stuck.execute("SELECT FROM retally.lease WHERE scope = %s FOR UPDATE", (work.show,))
            # several heartbeats long
            renewed = (
                "SELECT expires_at > taken_at + interval '7 seconds' FROM retally.lease"
                " WHERE scope = %s"
            )
            await_true(lambda: farm_db.execute(renewed, (other.show,)).fetchone() == (True,))
            dispatcher.book(booking(other))
            # its own has run out by now, and whoever takes it does not wait for long
            with pytest.raises((ShowBusyError, ServedElsewhereError)):
                dispatcher.book(booking(work))
        assert {each.show_id for each in stats(dispatcher).served} == {other.show}


def test_shows_that_cannot_be_taken_starve_no_heartbeat_and_no_recount(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    sick = [managed(farm_db) for _ in range(6)]
    stuck, stop = connect(), threading.Event()
    settings = Admission(lease_seconds=4, recount_seconds=0.2, notify=False)

    def try_them(dispatcher: Dispatcher, each: Work) -> None:
        while not stop.wait(0.02):
            with pytest.raises(RetallyError):
                dispatcher.book(booking(each))

    with (
        stuck.transaction(),
        Dispatcher(farm_db.info.dsn, connections=7, admission=settings) as dispatcher,
        ThreadPoolExecutor(len(sick)) as pool,
    ):
        dispatcher.book(booking(work))
        for each in sick:
            stuck.execute("SELECT retally.pin_flag(%s)", (each.show,))
        trying = [pool.submit(try_them, dispatcher, each) for each in sick]
        recounts = stats(dispatcher).recounts
        renewed = "SELECT expires_at > taken_at + interval '7 seconds' FROM retally.lease"
        try:
            await_true(lambda: farm_db.execute(renewed).fetchone() == (True,))
            assert stats(dispatcher).recounts > recounts + 3
            dispatcher.book(booking(work))
        finally:
            stop.set()
        for one in trying:
            one.result(60)


def test_a_show_whose_recount_fails_delays_no_other_and_is_served_no_more_in_the_end(
    farm_db: psycopg.Connection, work: Work
) -> None:
    other = managed(farm_db)
    settings = Admission(recount_seconds=0.1, notify=False)
    with Dispatcher(farm_db.info.dsn, admission=settings) as dispatcher:
        for each in (work, other):
            dispatcher.book(booking(each))
        # as a row that cannot be read would
        farm_db.execute(
            "CREATE OR REPLACE FUNCTION retally.read_for(p_show_ids text[]) RETURNS text[]"
            " LANGUAGE plpgsql STABLE AS $$ BEGIN"
            f" IF p_show_ids = ARRAY['{work.show}'] THEN RAISE division_by_zero; END IF;"
            " RETURN p_show_ids; END $$".encode()
        )
        await_true(lambda: stats(dispatcher).failures > 0)
        recounts = stats(dispatcher).recounts
        await_true(lambda: stats(dispatcher).recounts > recounts + 5)
        await_true(lambda: {each.show_id for each in stats(dispatcher).served} == {other.show})
        dispatcher.book(booking(other))


def test_hints_by_the_thousand_have_a_show_counted_once_a_second(
    farm_db: psycopg.Connection, work: Work
) -> None:
    foreign = {"alloc": work.alloc, "folder": work.folder, "job": work.job, "cores": -1, "gpus": 0}
    with Dispatcher(farm_db.info.dsn, admission=LISTENING) as dispatcher:
        dispatcher.book(booking(work))
        await_true(lambda: stats(dispatcher).recounts == 1)
        for show in ("of nobody's", work.show):
            before = stats(dispatcher).releases
            farm_db.execute(
                "SELECT pg_notify('acct_release', %s || repeat(' ', n))"
                " FROM generate_series(1, 500) AS n",
                (json.dumps(foreign | {"show": show}),),
            )
            await_true(lambda seen=before: stats(dispatcher).releases == seen + 500)  # type: ignore[misc]
        await_true(lambda: stats(dispatcher).recounts > 1)
        assert stats(dispatcher).recounts <= 3


def test_what_is_booked_is_told_although_a_recount_that_it_asks_for_fails(
    farm_db: psycopg.Connection, work: Work, proxy: Proxy
) -> None:
    rows = Rows(farm_db)
    moved = rows.host(work.alloc)
    elsewhere = rows.alloc()
    with Dispatcher(proxy.dsn, connections=1, admission=DEAF) as dispatcher:
        for host in (work.host, moved):
            dispatcher.book(booking(work, host=host))
        farm_db.execute("UPDATE host SET pk_alloc = %s WHERE pk_host = %s", (elsewhere, moved))
        proxy.instead("retally.vertices(", "SELECT 1/0", times=5)
        answers = dispatcher.book_many([booking(work), booking(work, host=moved), booking(work)])
        assert [bool(answer.proc) for answer in answers] == [True, False, True]
        assert answers[1].error is not None
        assert (stats(dispatcher).booked, stats(dispatcher).in_doubt) == (4, 0)
        # it could not be counted, so it is not served until it can
        assert stats(dispatcher).served == ()
    assert booked(farm_db) == 400
