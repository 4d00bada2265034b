"""A Dispatcher keeps to the caps of managed shows, whatever happens between count and commit."""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from admitted import DEAF, fill, procs, stats
from concurrency import in_background
from prometheus_client import CollectorRegistry, generate_latest
from small_farm import Rows, Work, booking, drift, make_work, manage
from worker_process import await_true

from retally.dispatch import Admission, AdmissionCollector, Dispatcher
from retally.sql.errors import (
    BookingRefusedError,
    DatabaseUnreachableError,
    HostFullError,
    InvalidBookingError,
    NoSubscriptionError,
    OverCapError,
    RetallyError,
    ShowBusyError,
    UnknownWorkError,
)

if TYPE_CHECKING:
    import psycopg
    from conftest import Connect
    from tcp_proxy import Proxy


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show with a burst of ten cores."""
    made = make_work(Rows(farm_db), burst=1000)
    manage(farm_db, made, True)
    return made


@pytest.mark.parametrize("batch", [False, True])
def test_a_burst_is_kept_to_the_core_unit_beside_what_was_booked_before(
    farm_db: psycopg.Connection, work: Work, batch: bool
) -> None:
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=250)
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        if batch:
            answers = dispatcher.book_many([booking(work, core_units=150)] * 7)
            assert [bool(answer.proc) for answer in answers] == [True] * 5 + [False] * 2
            error = answers[5].error
        else:
            assert len(fill(dispatcher, work, core_units=150)) == 5
            with pytest.raises(OverCapError) as caught:
                dispatcher.book(booking(work, core_units=1))
            error = caught.value
        assert isinstance(error, OverCapError)
        assert str(error) == (
            f'subscription of show "{work.show}" to "{work.alloc}": {150 if batch else 1} core'
            " units more would pass its burst of 1000, 1000 are in use"
        )
        assert stats(dispatcher).booked == 5
        assert stats(dispatcher).refused == {"subscription": 2}
        assert stats(dispatcher).in_flight == 0


def test_folders_and_jobs_have_maxima_of_cores_and_gpus(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    second = rows.job(work.show, work.folder, work.dept)
    layer = rows.layer(second)
    farm_db.execute("UPDATE job_resource SET int_max_gpus = 1 WHERE pk_job = %s", (work.job,))
    farm_db.execute("UPDATE folder_resource SET int_max_gpus = 2, int_max_cores = 500")
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work, gpus=1))
        with pytest.raises(OverCapError, match=f'job "{work.job}".*1 GPUs more.*maximum of 1'):
            dispatcher.book(booking(work, gpus=1))
        dispatcher.book(booking(work, job=second, layer=layer, gpus=1))
        with pytest.raises(OverCapError, match=f'folder "{work.folder}".*maximum of 2, 2 are in'):
            dispatcher.book(booking(work, job=second, layer=layer, gpus=1))
        with pytest.raises(OverCapError, match="301 core units more would pass its maximum of 500"):
            dispatcher.book(booking(work, core_units=301))
        assert stats(dispatcher).refused == {"job": 1, "folder": 2}


def test_without_a_subscription_or_with_a_burst_of_zero_nothing_is_booked(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    far = rows.host(rows.alloc())
    farm_db.execute("UPDATE subscription SET int_burst = 0")
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        with pytest.raises(NoSubscriptionError, match="no subscription"):
            dispatcher.book(booking(work, host=far))
        with pytest.raises(OverCapError, match="burst of 0, 0 are in use"):
            dispatcher.book(booking(work, core_units=1))


def test_what_the_database_refuses_is_not_counted(farm_db: psycopg.Connection, work: Work) -> None:
    frame = Rows(farm_db).frame(work.layer)
    farm_db.execute("UPDATE host SET int_cores_idle = 500")
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        for _ in range(3):
            with pytest.raises(HostFullError):
                dispatcher.book(booking(work, core_units=900))
        for answer in dispatcher.book_many([booking(work, layer="gone", core_units=300)] * 3):
            assert isinstance(answer.error, UnknownWorkError)
        dispatcher.book(booking(work, frame=frame))
        with pytest.raises(BookingRefusedError):
            dispatcher.book(booking(work, frame=frame))
        assert (stats(dispatcher).booked, stats(dispatcher).rolled_back) == (1, 7)
        farm_db.execute("UPDATE host SET int_cores_idle = 100000")
        dispatcher.book(booking(work, core_units=900))


def test_nonsense_is_refused_as_without_admission(farm_db: psycopg.Connection, work: Work) -> None:
    wrong: list[dict[str, Any]] = [
        {"core_units": 0},
        {"core_units": -1},
        {"core_units": None},
        {"core_units": 2**70},
        {"gpus": -1},
        {"gpus": None},
        {"local": None},
        {"mem_kb": -1},
        {"job": "gone"},
        {"host": "gone"},
        {"job": None},
        {"host": "\0"},
    ]
    asked = [booking(work, **changes) for changes in wrong]
    kinds = [InvalidBookingError] * 8 + [UnknownWorkError] * 3 + [InvalidBookingError]
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        for each, kind in zip(asked, kinds, strict=True):
            with pytest.raises(kind):
                dispatcher.book(each)
        answers = dispatcher.book_many([*asked, booking(work)])
        assert [type(answer.error) for answer in answers] == [*kinds, type(None)]
        assert (stats(dispatcher).booked, stats(dispatcher).in_flight) == (1, 0)


def test_threads_fill_a_burst_to_the_last_core_and_not_beyond(
    farm_db: psycopg.Connection, work: Work
) -> None:
    farm_db.execute("UPDATE subscription SET int_burst = 5050")
    start = threading.Barrier(8)

    def race(dispatcher: Dispatcher) -> int:
        start.wait(60)
        return len(fill(dispatcher, work))

    with (
        Dispatcher(farm_db.info.dsn, connections=8, admission=DEAF) as dispatcher,
        ThreadPoolExecutor(8) as pool,
    ):
        running = [pool.submit(race, dispatcher) for _ in range(8)]
        assert sum(future.result(60) for future in running) == 50
    assert procs(farm_db) == 50
    assert drift(farm_db) == []


def test_a_booking_whose_answer_is_lost_counts_until_its_show_is_counted_anew(
    farm_db: psycopg.Connection, work: Work, proxy: Proxy
) -> None:
    with Dispatcher(proxy.dsn, connections=2, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work))
        hold = proxy.hold("retally.book_proc(")
        lost = in_background(lambda: dispatcher.book(booking(work, core_units=600)))
        hold.await_caught()
        await_true(lambda: procs(farm_db) == 2)
        # not answered, and counted
        with pytest.raises(OverCapError, match="700 are in use"):
            dispatcher.book(booking(work, core_units=400))
        proxy.cut()
        with pytest.raises(DatabaseUnreachableError):
            lost.result(60)
        assert stats(dispatcher).in_doubt == 1
        # it is committed, and in the count of the next lease; each connection fails once
        await_true(lambda: _refused(dispatcher, work, "700 are in use"))
        assert len(fill(dispatcher, work)) == 3
    assert procs(farm_db) == 5


def _refused(dispatcher: Dispatcher, work: Work, why: str) -> bool:
    with pytest.raises((OverCapError, DatabaseUnreachableError)) as caught:
        dispatcher.book(booking(work, core_units=400))
    return re.search(why, str(caught.value)) is not None


def test_a_booking_that_may_still_come_is_waited_for_before_others_are_let_in(
    farm_db: psycopg.Connection, connect: Connect, work: Work, proxy: Proxy
) -> None:
    blocker = connect()
    farm_db.execute("UPDATE retally.setting SET longest_flip = '20 ms'")
    with Dispatcher(proxy.dsn, connections=2, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work))
        blocker.execute("BEGIN")
        blocker.execute("SELECT FROM host FOR UPDATE")
        trap = proxy.watch("retally.book_proc(")
        lost = in_background(lambda: dispatcher.book(booking(work, core_units=600)))
        trap.await_caught()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity"
            " WHERE wait_event_type = 'Lock' AND query LIKE '%book_proc%'"
        )
        await_true(lambda: farm_db.execute(waiting).fetchone() == (1,))
        proxy.cut()
        with pytest.raises(DatabaseUnreachableError):
            lost.result(60)
        # the server does not know that nobody waits for it: the booking is still on its way
        seen = set[type[RetallyError]]()
        while seen != {ShowBusyError}:
            with pytest.raises((ShowBusyError, DatabaseUnreachableError)) as caught:
                dispatcher.book(booking(work))
            seen = {type(caught.value)}
        blocker.execute("ROLLBACK")
        await_true(lambda: procs(farm_db) == 2)
        await_true(lambda: _books(dispatcher, work))
        assert len(fill(dispatcher, work)) == 2
    assert procs(farm_db) == 5


def _books(dispatcher: Dispatcher, work: Work) -> bool:
    try:
        dispatcher.book(booking(work))
    except ShowBusyError:  # left alone for a second
        return False
    return True


def test_a_recount_under_way_forgets_no_booking(
    farm_db: psycopg.Connection, work: Work, proxy: Proxy
) -> None:
    settings = Admission(recount_seconds=0.05, notify=False)
    with Dispatcher(proxy.dsn, connections=2, admission=settings) as dispatcher:
        dispatcher.book(booking(work))
        read = proxy.hold("retally.vertices(")
        read.await_caught()
        fresh = fill(dispatcher, work)  # the answer on its way knows nothing of these
        assert len(fresh) == 9
        recounts = stats(dispatcher).recounts
        read.release()
        await_true(lambda: stats(dispatcher).recounts > recounts)
        with pytest.raises(OverCapError):
            dispatcher.book(booking(work, core_units=1))
        dispatcher.release_many(fresh[:3])
        await_true(lambda: bool(_tried(dispatcher, work)))
        await_true(lambda: bool(_tried(dispatcher, work)))
        await_true(lambda: bool(_tried(dispatcher, work)))
        with pytest.raises(OverCapError):
            dispatcher.book(booking(work, core_units=1))
    assert procs(farm_db) == 10


def _tried(dispatcher: Dispatcher, work: Work) -> list[str]:
    try:
        return [dispatcher.book(booking(work))]
    except OverCapError:
        return []


def test_prometheus_is_told_what_the_store_does(farm_db: psycopg.Connection, work: Work) -> None:
    with Dispatcher(farm_db.info.dsn, admission=Admission()) as dispatcher:
        registry = CollectorRegistry()
        registry.register(AdmissionCollector(dispatcher.stats))
        fill(dispatcher, work)
        await_true(lambda: "retally_admission_listening 1.0" in generate_latest(registry).decode())
        text = generate_latest(registry).decode()
    assert 'retally_admission_bookings_total{outcome="booked"} 10.0' in text
    assert 'retally_admission_refused_total{vertex="subscription"} 1.0' in text
    assert 'retally_admission_refused_total{vertex="job"} 0.0' in text
    assert "retally_admission_in_flight 0.0" in text
    assert f'retally_admission_seed_age_seconds{{show="{work.show}",show_id=' in text
    assert "retally_admission" not in generate_latest(registry).decode()  # closed


@pytest.mark.parametrize(
    "wrong", [{"lease_seconds": 0}, {"recount_seconds": float("nan")}, {"name": ""}]
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(RetallyError):
        Admission(**wrong)  # type: ignore[arg-type]
