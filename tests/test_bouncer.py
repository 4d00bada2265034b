"""All of it through a real PgBouncer in transaction pooling: any transaction, any session."""

from __future__ import annotations

import contextlib
import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from bouncer import Bouncer, bouncer, program
from click.testing import CliRunner
from small_farm import Rows, Work, booking, corrupt, drift, make_work
from worker_process import PATIENCE, await_true, cores

from retally.cli import main
from retally.dispatch import Dispatcher
from retally.procedures import routines
from retally.sql.connect import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from worker_process import Start

    from retally.sql.embedded import EmbeddedServer

_SESSIONS = 2

pytestmark = pytest.mark.skipif(
    program() is None, reason="no pgbouncer here: try apt install pgbouncer"
)


@pytest.fixture(scope="module")
def pooler(server: EmbeddedServer) -> Iterator[Bouncer]:
    with bouncer(server, pool_size=_SESSIONS) as running:
        yield running


@pytest.fixture
def dsn(pooler: Bouncer, farm_db: psycopg.Connection) -> str:
    """The database of ``farm_db`` by way of the pooler."""
    return pooler.dsn(farm_db.info.dbname)


def wrong_show(conn: psycopg.Connection, *, managed: bool = True) -> Work:
    """A show with a proc of 300 core units, of which its totals know nothing."""
    rows = Rows(conn)
    work = make_work(rows)
    if managed:
        routines.set_managed(conn, work.show, managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    return work


def cli(dsn: str, *arguments: str) -> tuple[int, str]:
    result = CliRunner().invoke(main, [*arguments, "--dsn", dsn])
    return result.exit_code, result.stdout


def sessions(conn: psycopg.Connection) -> int:
    """How many sessions the server has in this database beside this one."""
    query = (
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
    row = conn.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def test_two_workers_share_two_sessions_and_serve_each_show_once_per_interval(
    farm_db: psycopg.Connection, dsn: str, start: Start
) -> None:
    works = [wrong_show(farm_db) for _ in range(6)]
    workers = [start(dsn) for _ in range(2)]
    for worker in workers:
        worker.await_event("worker started")
    for _ in range(5):
        corrupt(farm_db)
        await_true(lambda: all(cores(farm_db, work) == [300] * 5 for work in works))

    assert sessions(farm_db) <= _SESSIONS
    assert [worker.end() for worker in workers] == [0, 0]
    assert not [e for worker in workers for e in worker.log if e["level"] == "error"]
    twice = (
        "SELECT tick FROM retally.history GROUP BY scope, tick, total, finished_at"
        " HAVING count(*) > 1"
    )
    assert farm_db.execute(twice).fetchall() == []


def test_a_worker_outlives_sessions_that_the_pooler_replaces(
    farm_db: psycopg.Connection, pooler: Bouncer, dsn: str, start: Start
) -> None:
    work = wrong_show(farm_db)
    worker = start(dsn)
    for _ in range(5):
        await_true(lambda: cores(farm_db, work) == [300] * 5)
        pooler.reconnect(farm_db.info.dbname)
        corrupt(farm_db)

    await_true(lambda: cores(farm_db, work) == [300] * 5)
    assert worker.end() == 0


def test_the_commands_work_through_the_pooler(farm_db: psycopg.Connection, dsn: str) -> None:
    work = wrong_show(farm_db, managed=False)

    code, text = cli(dsn, "drift", "--format", "json")
    assert (code, len(json.loads(text))) == (3, 5)
    assert cli(dsn, "managed", "on", "--show", work.show)[0] == 0
    assert cores(farm_db, work) == [300] * 5
    corrupt(farm_db)
    assert cli(dsn, "recompute", "--show", work.show)[0] == 0
    assert cores(farm_db, work) == [300] * 5
    assert cli(dsn, "managed", "--override", "none")[0] == 0
    assert cli(dsn, "managed", "--override", "per-show")[0] == 0
    assert cli(dsn, "managed", "off", "--show", work.show)[0] == 0
    assert cli(dsn, "status")[0] == 0
    assert cli(dsn, "drift")[0] == 0
    assert drift(farm_db, work.show)  # the hosts that wrong_show has not booked
    assert not farm_db.execute("SELECT * FROM retally.drift(%s)", (work.show,)).fetchall()


@pytest.mark.parametrize("managed", [True, False])
def test_many_dispatchers_book_and_release_beside_a_flip_and_a_worker(
    farm_db: psycopg.Connection, dsn: str, start: Start, managed: bool
) -> None:
    work = make_work(Rows(farm_db))
    routines.set_managed(farm_db, work.show, managed=managed)
    worker = start(dsn)
    worker.await_event("worker started")

    def book(_: int) -> str:
        with Dispatcher(dsn, connections=1, admission=None) as dispatcher:
            gone = dispatcher.book(booking(work))
            kept = dispatcher.book_many([booking(work)])[0].proc
            assert dispatcher.release(gone)
            assert kept is not None
            return kept

    with ThreadPoolExecutor(8) as threads:
        booked = [threads.submit(book, n) for n in range(24)]
        with connect(dsn) as conn:
            routines.set_managed(conn, work.show, managed=not managed)
            routines.set_managed(conn, work.show, managed=managed)
        assert len({done.result(PATIENCE) for done in booked}) == 24

    await_true(lambda: drift(farm_db, work.show) == [])
    assert cores(farm_db, work) == [2400] * 5
    assert worker.end() == 0


_SETTINGS = (
    "statement_timeout",
    "lock_timeout",
    "idle_in_transaction_session_timeout",
    "search_path",
    "default_transaction_isolation",
)


def settings_of_all_sessions(dsn: str) -> set[tuple[str, ...]]:
    """What another client of the pooler finds, in as many sessions as there are."""
    query = "SELECT " + ", ".join(f"current_setting('{name}')" for name in _SETTINGS)
    found = set()
    with contextlib.ExitStack() as opened:
        for _ in range(_SESSIONS):
            other = opened.enter_context(psycopg.connect(dsn, prepare_threshold=None))
            found.add(other.execute(query).fetchone())  # in a transaction, so it keeps its session
    return {row for row in found if row}


def use_everything(conn: psycopg.Connection, dsn: str, start: Start) -> None:
    work = wrong_show(conn)
    worker = start(dsn)
    await_true(lambda: cores(conn, work) == [300] * 5)
    assert worker.end() == 0
    assert cli(dsn, "recompute", "--show", work.show)[0] == 0
    assert cli(dsn, "managed", "off", "--show", work.show)[0] == 0
    with Dispatcher(dsn) as dispatcher:
        dispatcher.release(dispatcher.book(booking(work)))


def test_no_setting_is_left_in_a_session_for_the_next_client(
    farm_db: psycopg.Connection, pooler: Bouncer, dsn: str, start: Start
) -> None:
    pooler.reconnect(farm_db.info.dbname)
    before = settings_of_all_sessions(dsn)
    assert len(before) == 1

    use_everything(farm_db, dsn, start)

    assert settings_of_all_sessions(dsn) == before
    locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
    assert farm_db.execute(locks).fetchone() == (0,)


def test_another_default_isolation_of_the_database_is_left_to_other_clients(
    farm_db: psycopg.Connection, pooler: Bouncer, dsn: str, start: Start
) -> None:
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    pooler.reconnect(name)
    before = settings_of_all_sessions(dsn)
    assert [row[-1] for row in before] == ["serializable"]

    use_everything(farm_db, dsn, start)

    assert settings_of_all_sessions(dsn) == before
