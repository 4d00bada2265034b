"""The Dispatcher: several threads, a server that was away, what its errors leave behind."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from small_farm import Rows, Work, booking, drift, make_work

from retally.dispatch.client import Dispatcher
from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.errors import (
    BookingRefusedError,
    DatabaseUnreachableError,
    FrameBookedError,
    HostFullError,
    RetallyError,
)
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from retally.procedures.booking import Booking

THREADS = 8


def sessions(conn: psycopg.Connection) -> int:
    query = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND pid <> pg_backend_pid()"
    )
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_threads_share_one_dispatcher_and_a_frame_goes_to_one_of_them(
    farm_db: psycopg.Connection,
) -> None:
    rows = Rows(farm_db)
    work = make_work(rows)
    asked = [booking(work, frame=rows.frame(work.layer)) for _ in range(20)]
    start = threading.Barrier(THREADS)

    def race(dispatcher: Dispatcher) -> list[str]:
        start.wait(60)
        mine = []
        for entry in asked:
            try:
                mine.append(dispatcher.book(entry))
            except FrameBookedError:
                continue
        return mine

    with Dispatcher(farm_db.info.dsn, connections=3, admission=None) as dispatcher:
        with ThreadPoolExecutor(THREADS) as pool:
            running = [pool.submit(race, dispatcher) for _ in range(THREADS)]
            procs = [future.result(60) for future in running]
        assert 1 <= sessions(farm_db) <= 3
        booked = [proc for mine in procs for proc in mine]
        assert len(booked) == len(asked)
        assert drift(farm_db, work.show) == []
        with ThreadPoolExecutor(THREADS) as pool:
            releases = [pool.submit(dispatcher.release_many, booked) for _ in range(THREADS)]
            answers = [future.result(60) for future in releases]
        # each proc was there for one of them
        assert [sum(there) for there in zip(*answers, strict=True)] == [1] * len(asked)
    assert drift(farm_db, work.show) == []


def test_a_refused_call_leaves_its_connection_fit_for_the_next(
    farm_db: psycopg.Connection,
) -> None:
    work = make_work(Rows(farm_db))
    with Dispatcher(farm_db.info.dsn, connections=1) as dispatcher:
        proc = dispatcher.book(booking(work))
        with pytest.raises(HostFullError):
            dispatcher.book(booking(work, core_units=10**6))
        answers = dispatcher.book_many([booking(work, core_units=0), booking(work)])
        assert isinstance(answers[0].error, BookingRefusedError)
        assert dispatcher.book_many([]) == []
        assert dispatcher.release_many([]) == []
        assert dispatcher.release(proc) is True
        assert dispatcher.release(proc) is False
        assert dispatcher.release_many([str(answers[1].proc)]) == [True]
        # what was refused before was closed with its transaction, and holds no flag
        farm_db.execute("SET lock_timeout = '10ms'")
        farm_db.execute("CALL retally.set_managed(%s, true)", (work.show,))
    assert drift(farm_db, work.show) == []


def test_each_call_is_a_transaction_of_its_own_whatever_the_database_has_as_default(
    farm_db: psycopg.Connection,
) -> None:
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    work = make_work(Rows(farm_db))
    with Dispatcher(farm_db.info.dsn, connections=1) as dispatcher:
        proc = dispatcher.book(booking(work))
        assert farm_db.execute("SELECT pk_proc FROM proc").fetchall() == [(proc,)]
        assert dispatcher.release(proc) is True
        assert farm_db.execute("SELECT FROM proc").fetchall() == []


def calls(dispatcher: Dispatcher, asked: Booking, threads: int) -> tuple[list[str], int]:
    """The procs of as many calls at once as there are connections, and how many calls failed."""
    start = threading.Barrier(threads)

    def call() -> str | None:
        start.wait(60)
        try:
            return dispatcher.book(asked)
        except DatabaseUnreachableError:
            return None

    with ThreadPoolExecutor(threads) as pool:
        answers = [future.result(60) for future in [pool.submit(call) for _ in range(threads)]]
    return [proc for proc in answers if proc], answers.count(None)


def test_after_a_restart_of_the_server_each_connection_fails_once_at_most() -> None:
    threads = 3
    with EmbeddedServer.start(in_memory=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            work: Work = make_work(Rows(conn))
        asked = booking(work)
        with Dispatcher(server.dsn(), connections=threads) as dispatcher:
            procs, failed = calls(dispatcher, asked, threads)
            assert failed == 0
            server.stop_server()
            server.start_server()
            failures = 0
            for _ in range(threads + 1):
                more, failed = calls(dispatcher, asked, threads)
                procs += more
                failures += failed
            assert failures <= threads
            # the last round found only connections that work
            assert failed == 0
            assert dispatcher.release_many(procs) == [True] * len(procs)
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            assert drift(conn, work.show) == []
            assert conn.execute("SELECT FROM proc").fetchall() == []


def test_a_database_that_is_away_is_said_at_once() -> None:
    with pytest.raises(DatabaseUnreachableError, match="/nowhere"):
        Dispatcher("host=/nowhere dbname=farm").__enter__()


def test_a_dispatcher_works_inside_of_its_block_only_and_may_be_entered_again(
    farm_db: psycopg.Connection,
) -> None:
    dispatcher = Dispatcher(farm_db.info.dsn)
    for _ in range(2):
        with pytest.raises(RetallyError, match="not open"):
            dispatcher.release("proc")
        with dispatcher:
            assert dispatcher.release("proc") is False
