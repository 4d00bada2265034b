"""What the ticks of a worker do to a farm, each pass run by the test itself."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import structlog
from small_farm import Rows, Work, corrupt, make_work, stored
from structlog.testing import capture_logs

from retally.procedures import TOTALS, routines
from retally.sql.errors import DatabaseUnreachableError
from retally.worker import Requests, Worker, WorkerSettings
from retally.worker import database as worker_database
from retally.worker.database import Database, WorkerStoppingError
from retally.worker.health import Health
from retally.worker.metrics import Metrics
from retally.worker.ticks import Shared, Tick, TickRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg
    from structlog.typing import EventDict

    Connect = Callable[[], psycopg.Connection]
    NewShared = Callable[[], Shared]

_PATIENCE = 60.0  # seconds, for what takes far below one
_FROZEN = 3600.0  # an interval that does not end during a test


@pytest.fixture(autouse=True)
def _plain_logging() -> Iterator[None]:
    """As if no program had configured the log."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@pytest.fixture
def new_shared(farm_db: psycopg.Connection) -> Iterator[NewShared]:
    """Makes what the ticks of one worker share, as often as it is called."""
    with contextlib.ExitStack() as undo:

        def make() -> Shared:
            database = new_database(farm_db)
            database.open()
            undo.callback(database.close)
            menders = undo.enter_context(ThreadPoolExecutor(2))
            return Shared(
                database,
                menders,
                2,
                f"worker {id(database)}",
                "watch",
                threading.Event(),
                Metrics({}),
                Health({}),
            )

        yield make


def new_database(conn: psycopg.Connection, connections: int = 4, limit: float = 30) -> Database:
    """A worker's own, to the database of ``conn``; ``limit``: seconds for a statement."""
    return Database(
        conn.info.dsn,
        connections=connections,
        statement_timeout=limit,
        metrics=Metrics({}),
        health=Health({}),
    )


@pytest.fixture
def shared(new_shared: NewShared) -> Shared:
    return new_shared()


def tick(totals: tuple[str, ...] = TOTALS, interval: float = _FROZEN) -> Tick:
    return Tick("resource", interval, totals)


def wrong_show(conn: psycopg.Connection, *, managed: bool = True) -> Work:
    """A show with a proc of 300 core units and 2 GPUs, of which its totals know nothing."""
    rows = Rows(conn)
    work = make_work(rows)
    if managed:
        routines.set_managed(conn, work.show, managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300, gpus=2)
    return work


def everything(conn: psycopg.Connection, work: Work) -> list[tuple[int, ...]]:
    return [stored(conn, work, total)[:2] for total in TOTALS]


EXACT = [(300, 2)] * len(TOTALS)
EMPTY = [(0, 0)] * len(TOTALS)


def make_due(conn: psycopg.Connection) -> None:
    """The interval is over."""
    conn.execute("UPDATE retally.due SET due_at = '-infinity'")


def fail_for(conn: psycopg.Connection, work: Work) -> None:
    """Writing the subscriptions of this show raises."""
    conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'the disk is on fire' USING HINT = 'Call them.'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON subscription FOR EACH ROW"
        f" WHEN (NEW.pk_show = '{work.show}') EXECUTE FUNCTION refuse()"
    )


def await_true(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + _PATIENCE
    while not claim():
        assert time.monotonic() < deadline


def events(logs: list[EventDict], name: str) -> list[EventDict]:
    return [entry for entry in logs if entry["event"] == name]


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
                    done.result(_PATIENCE)

        served = farm_db.execute("SELECT scope, count(*) FROM served GROUP BY scope").fetchall()
        assert dict(served) == dict.fromkeys(shows, intervals)


def test_a_show_that_fails_stops_no_other_one_and_is_named_with_its_error(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    first, failing, last = (wrong_show(farm_db) for _ in range(3))
    fail_for(farm_db, failing)

    with capture_logs() as logs:
        TickRunner(tick(), shared).run()

    assert everything(farm_db, first) == everything(farm_db, last) == EXACT
    assert everything(farm_db, failing) == EMPTY
    [failure] = events(logs, "failed")
    assert failure["show"] == failing.show
    assert "the disk is on fire" in failure["error"]
    assert failure["hint"] == "Call them."


def test_a_show_that_failed_is_left_alone_by_all_workers_until_its_pause_is_over(
    farm_db: psycopg.Connection, new_shared: NewShared
) -> None:
    failing = wrong_show(farm_db)
    fail_for(farm_db, failing)
    runners = [TickRunner(tick(interval=0.1), new_shared()) for _ in range(2)]
    kept = "SELECT failures, error, extract(EPOCH FROM every)::float FROM retally.due"
    pauses = []

    with capture_logs() as logs:
        for failures in range(1, 6):
            make_due(farm_db)
            for runner in runners:
                runner.run()
            # only the first one came to it
            counted, error, pause = farm_db.execute(kept).fetchall()[0]
            assert (counted, len(events(logs, "failed"))) == (failures, failures)
            assert "the disk is on fire" in error
            pauses.append(pause)
            farm_db.execute(
                "UPDATE retally.due SET due_at = clock_timestamp() + '1 hour', every = '1 hour'"
            )
        farm_db.execute("DROP TRIGGER refuse ON subscription")
        runners[0].run()
        assert everything(farm_db, failing) == EMPTY
        make_due(farm_db)
        runners[0].run()

    assert everything(farm_db, failing) == EXACT
    assert farm_db.execute(kept).fetchall() == [(0, None, 0.1)]
    for failures, pause in enumerate(pauses):
        assert 0.05 * 2**failures <= pause <= 0.1 * 2**failures


def test_data_of_one_show_that_cannot_be_summed_stops_no_other_show(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    first, bad, last = (wrong_show(farm_db) for _ in range(3))
    farm_db.execute("ALTER TABLE proc RENAME TO real_proc")
    farm_db.execute(
        "CREATE VIEW proc AS SELECT r.pk_proc, r.pk_host, r.pk_show, r.pk_job, r.pk_layer,"
        " r.int_gpus_reserved, r.b_local, r.int_cores_reserved"
        f" / CASE WHEN r.pk_show = '{bad.show}' THEN 0 ELSE 1 END AS int_cores_reserved"
        " FROM real_proc AS r"
    )

    with capture_logs() as logs:
        TickRunner(tick(), shared).run()

    assert everything(farm_db, first) == everything(farm_db, last) == EXACT
    assert everything(farm_db, bad) == EMPTY
    assert [(e["show"], e["error"]) for e in events(logs, "failed")] == [
        (bad.show, "division by zero (SQLSTATE 22012)")
    ]


def test_a_show_that_somebody_else_rebuilds_is_deferred_and_taken_by_the_next_pass(
    farm_db: psycopg.Connection, shared: Shared, connect: Connect
) -> None:
    held, free = wrong_show(farm_db), wrong_show(farm_db)
    runner = TickRunner(tick(), shared)
    other = connect()

    with capture_logs() as logs, other.transaction():
        other.execute("SELECT retally.hold_scope(%s, FALSE)", (held.show,))
        runner.run()

    assert everything(farm_db, held) == EMPTY
    assert everything(farm_db, free) == EXACT
    assert [e["show"] for e in events(logs, "deferred")] == [held.show]
    assert not events(logs, "failed")

    make_due(farm_db)
    runner.run()
    assert everything(farm_db, held) == EXACT


def test_a_row_that_a_booking_holds_is_left_and_reported_as_deferred(
    farm_db: psycopg.Connection, shared: Shared, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    booking = connect()

    with capture_logs() as logs, booking.transaction():
        booking.execute("SELECT FROM point WHERE pk_show = %s FOR UPDATE", (work.show,))
        TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == [*EXACT[:-1], (0, 0)]
    [entry] = events(logs, "totals rebuilt")
    assert (entry["rows_adrift"], entry["rows_changed"], entry["rows_deferred"]) == (5, 4, 1)
    assert (entry["core_units"], entry["gpus"]) == (5 * 300, 5 * 2)


def test_a_table_that_a_migration_holds_defers_the_pass_instead_of_failing_it(
    farm_db: psycopg.Connection, shared: Shared, connect: Connect
) -> None:
    work = wrong_show(farm_db)
    runner = TickRunner(tick(), shared)
    migration = connect()

    with capture_logs() as logs, migration.transaction():
        migration.execute("LOCK TABLE point IN ACCESS EXCLUSIVE MODE")
        runner.run()

    assert [(e["tick"], e.get("show")) for e in events(logs, "deferred")] == [("resource", None)]
    assert not events(logs, "failed")
    make_due(farm_db)
    runner.run()
    assert everything(farm_db, work) == EXACT


def test_two_ticks_of_one_worker_do_not_turn_each_other_away(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    runners = [
        TickRunner(Tick("subscription", _FROZEN, ("subscription",)), shared),
        TickRunner(Tick("resource", _FROZEN, TOTALS[1:]), shared),
    ]

    with capture_logs() as logs, ThreadPoolExecutor(2) as threads:
        for _ in range(20):
            corrupt(farm_db)
            make_due(farm_db)
            for done in [threads.submit(runner.run) for runner in runners]:
                done.result(_PATIENCE)
            assert everything(farm_db, work) == EXACT

    assert not events(logs, "deferred")


def test_a_problem_is_told_once_until_it_changes(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    farm_db.execute("DELETE FROM subscription WHERE pk_show = %s", (work.show,))
    runner = TickRunner(tick(), shared)

    def problems_of_a_pass() -> list[str]:
        make_due(farm_db)
        with capture_logs() as logs:
            runner.run()
        return [entry["problem"] for entry in events(logs, "problem")]

    [problem] = problems_of_a_pass()
    assert "subscription" in problem
    assert "300 core units" in problem
    assert problems_of_a_pass() == []
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=50)
    [changed] = problems_of_a_pass()
    assert "350 core units" in changed


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


def test_the_limits_hold_in_a_transaction_and_leave_nothing_in_the_session(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    names = ("statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout")

    def limits(conn: psycopg.Connection) -> list[str]:
        return [conn.execute(f"SHOW {name}").fetchone()[0] for name in names]  # type: ignore[index]

    with shared.database.transaction() as conn:
        assert limits(conn) == ["30s", "500ms", "10s"]
        backend = conn.info.backend_pid
        assert conn.execute("SHOW transaction_isolation").fetchone() == ("read committed",)
    with shared.database._pool.connection() as conn:
        assert conn.info.backend_pid == backend
        assert limits(conn) == limits(farm_db)


def test_a_role_that_defaults_to_serializable_can_run_a_worker(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    work = wrong_show(farm_db)
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")

    TickRunner(tick(), shared).run()

    assert everything(farm_db, work) == EXACT


def test_stopping_undoes_a_transaction_that_runs_and_refuses_further_ones(
    farm_db: psycopg.Connection, shared: Shared
) -> None:
    begun = threading.Event()

    def long_one() -> None:
        with shared.database.transaction() as conn:
            conn.execute(
                "INSERT INTO retally.scope_flag (scope, asked, managed)"
                " VALUES ('undone', true, true)"
            )
            begun.set()
            conn.execute("SELECT pg_sleep(600)")

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(long_one)
        assert begun.wait(_PATIENCE)
        shared.database.close()
        shared.database.cancel()
        with pytest.raises(WorkerStoppingError):
            running.result(_PATIENCE)

    with pytest.raises(WorkerStoppingError), shared.database.transaction():
        pass
    assert farm_db.execute("SELECT count(*) FROM retally.scope_flag").fetchone() == (0,)


def test_a_server_that_keeps_no_time_out_is_cut_off(
    farm_db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_database, "_SLACK_SECONDS", 0.5)
    database = new_database(farm_db, connections=1, limit=0.2)
    database.open()
    frozen: list[int] = []

    def hang() -> None:
        with database.transaction() as conn:
            frozen.append(conn.info.backend_pid)
            os.kill(frozen[0], signal.SIGSTOP)
            conn.execute("SELECT 1")

    try:
        with ThreadPoolExecutor(1) as threads, capture_logs() as logs:
            hanging = threads.submit(hang)
            while not hanging.done():
                database.cut_overdue()
            with pytest.raises(DatabaseUnreachableError):
                hanging.result()
    finally:
        os.kill(frozen[0], signal.SIGCONT)
        database.close()
    assert events(logs, "connection cut")


def test_a_worker_outlives_a_frozen_session_and_goes_on_with_another(
    farm_db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_database, "_SLACK_SECONDS", 0.5)
    work = wrong_show(farm_db)
    # one tick with long pauses: it holds no locks when it is frozen
    settings = WorkerSettings(
        totals=("subscription",), subscription_interval=1, statement_timeout=1, pool_size=1
    )

    def exact() -> bool:
        return stored(farm_db, work, "subscription")[:2] == (300, 2)

    sessions = "SELECT pid FROM pg_stat_activity WHERE application_name = 'retally'"
    frozen: list[int] = []
    requests = Requests()
    with capture_logs() as logs, ThreadPoolExecutor(1) as threads:
        running = threads.submit(Worker(farm_db.info.dsn, settings).run, requests)
        try:
            await_true(exact)
            frozen = [row[0] for row in farm_db.execute(sessions)]
            for pid in frozen:
                os.kill(pid, signal.SIGSTOP)
            await_true(lambda: len(events(logs, "connection cut")) > 0)
            corrupt(farm_db)
            await_true(exact)
        finally:
            for pid in frozen:
                os.kill(pid, signal.SIGCONT)
            requests.stop.set()
        running.result(_PATIENCE)
