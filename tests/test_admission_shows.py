"""Which shows a Dispatcher serves, when they change, and where jobs and hosts are then."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import pytest
from admitted import DEAF, fill, procs, stats
from small_farm import Rows, Work, booking, drift, make_work, manage
from worker_process import await_true

from retally.dispatch import Admission, Dispatcher
from retally.sql.errors import (
    HostFullError,
    OverCapError,
    ServedElsewhereError,
    ShowBusyError,
)

if TYPE_CHECKING:
    import psycopg
    from conftest import Connect


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show with a burst of ten cores."""
    made = make_work(Rows(farm_db), burst=1000)
    manage(farm_db, made, True)
    return made


def test_a_show_is_served_by_one_dispatcher_until_that_gives_it_up(
    farm_db: psycopg.Connection, work: Work
) -> None:
    with (
        Dispatcher(farm_db.info.dsn, admission=Admission(name="one")) as one,
        Dispatcher(farm_db.info.dsn, admission=DEAF) as other,
        Dispatcher(farm_db.info.dsn, admission=None) as unbound,
    ):
        one.book(booking(work))
        with pytest.raises(ServedElsewhereError, match="served by dispatcher one"):
            other.book(booking(work))
        (answer,) = other.book_many([booking(work)])
        assert isinstance(answer.error, ServedElsewhereError)
        assert (one.elsewhere(), other.elsewhere()) == (frozenset(), frozenset({work.show}))
        with pytest.raises(ServedElsewhereError, match="served by dispatcher one"):
            unbound.book(booking(work))
        one.give_up(work.show)
        await_true(lambda: _taken(other, work))
        assert len(fill(other, work)) == 8
        with pytest.raises(ServedElsewhereError):
            one.book(booking(work))
    # closed: nobody serves it
    assert farm_db.execute("SELECT count(*) FROM retally.leases()").fetchone() == (0,)
    assert procs(farm_db) == 10


def _taken(dispatcher: Dispatcher, work: Work) -> bool:
    try:
        dispatcher.book(booking(work))
    except ServedElsewhereError:
        return False
    return True


def test_dispatchers_come_to_share_the_shows_that_they_all_want(
    farm_db: psycopg.Connection,
) -> None:
    rows = Rows(farm_db)
    works = [make_work(rows) for _ in range(4)]
    for each in works:
        manage(farm_db, each, True)
    settings = Admission(lease_seconds=0.5, notify=False)
    with (
        Dispatcher(farm_db.info.dsn, admission=settings) as one,
        Dispatcher(farm_db.info.dsn, admission=settings) as other,
    ):
        for each in works:
            one.book(booking(each))

        def shared() -> bool:
            for each in works:
                with contextlib.suppress(HostFullError):
                    _taken(other, each)
            return {len(stats(d).served) for d in (one, other)} == {2}

        await_true(shared)


def test_after_its_lease_is_gone_a_dispatcher_counts_anew_before_it_books(
    farm_db: psycopg.Connection, work: Work
) -> None:
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work))
        # as if it had slept: another one has had the show, booked, and given it up
        farm_db.execute("CALL retally.end_lease(%s)", (work.show,))
        Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=700)
        assert len(fill(dispatcher, work)) == 2
    assert procs(farm_db) == 4


def test_a_flip_under_a_running_dispatcher_changes_who_keeps_the_caps(
    farm_db: psycopg.Connection, work: Work
) -> None:
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        assert len(dispatcher.book_many([booking(work)] * 3)) == 3
        errors = []
        for managed in (False, True, False, True):
            manage(farm_db, work, managed)
            dispatcher.book(booking(work))
            errors += [answer.error for answer in dispatcher.book_many([booking(work)])]
        # the last one is one too many
        assert errors[:3] == [None] * 3
        assert isinstance(errors[3], OverCapError)
        with pytest.raises(OverCapError):
            dispatcher.book(booking(work))
    assert procs(farm_db) == 10
    farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    assert drift(farm_db, work.show) == []


def test_a_show_that_becomes_managed_is_counted_before_it_is_served(
    farm_db: psycopg.Connection, work: Work
) -> None:
    manage(farm_db, work, False)
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        for _ in range(6):
            dispatcher.book(booking(work))
        assert stats(dispatcher).served == ()
        manage(farm_db, work, True)
        assert len(fill(dispatcher, work)) == 4
        (served,) = stats(dispatcher).served
        assert (served.show_id, served.name) == (work.show, work.show)


def test_jobs_and_folders_that_come_later_are_counted_where_they_are(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work))
        folder = rows.folder(work.show, work.dept)
        farm_db.execute(
            "UPDATE folder_resource SET int_max_cores = 300 WHERE pk_folder = %s", (folder,)
        )
        job = rows.job(work.show, folder, work.dept)
        layer = rows.layer(job)
        rows.proc(work.host, work.show, job, layer, cores=100)
        new = booking(work, job=job, layer=layer)
        assert [bool(a.proc) for a in dispatcher.book_many([new] * 3)] == [True, True, False]
        with pytest.raises(OverCapError, match=f'folder "{folder}"'):
            dispatcher.book(new)


def test_a_job_that_has_moved_is_counted_in_the_folder_where_it_is_now(
    farm_db: psycopg.Connection, work: Work
) -> None:
    folder = Rows(farm_db).folder(work.show, work.dept)
    farm_db.execute(
        "UPDATE folder_resource SET int_max_cores = 300 WHERE pk_folder = %s", (folder,)
    )
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work, core_units=200))
        farm_db.execute("UPDATE job SET pk_folder = %s", (folder,))
        with pytest.raises(OverCapError, match=f'folder "{folder}".*maximum of 300, 200 are'):
            dispatcher.book(booking(work, core_units=101))
        dispatcher.book(booking(work, core_units=100))


def test_a_host_that_has_moved_is_counted_in_the_allocation_where_it_is_now(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    alloc = rows.alloc()
    rows.subscription(work.show, alloc, burst=500)
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work, core_units=201))
        farm_db.execute("UPDATE host SET pk_alloc = %s", (alloc,))
        (answer,) = dispatcher.book_many([booking(work, core_units=300)])
        assert isinstance(answer.error, OverCapError)
        assert f'to "{alloc}": 300 core units more would pass its burst of 500, 201 are' in str(
            answer.error
        )
        dispatcher.book(booking(work, core_units=299))


def test_a_show_that_cannot_be_counted_holds_up_no_other(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    other = make_work(Rows(farm_db))
    manage(farm_db, other, True)
    farm_db.execute("UPDATE retally.setting SET longest_flip = '10 ms'")
    stuck = connect()
    with stuck.transaction():
        stuck.execute("SELECT retally.pin_flag(%s)", (work.show,))
        with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
            with pytest.raises(ShowBusyError):
                dispatcher.book(booking(work))
            dispatcher.book(booking(other))
            answers = dispatcher.book_many([booking(other), booking(work), booking(other)])
            assert [type(each.error) for each in answers] == [type(None), ShowBusyError, type(None)]
            assert {each.show_id for each in stats(dispatcher).served} == {other.show}
            assert (stats(dispatcher).in_flight, stats(dispatcher).in_doubt) == (0, 0)
            assert procs(farm_db) == 3


def test_local_work_counts_at_no_cap_and_needs_the_lease(
    farm_db: psycopg.Connection, work: Work
) -> None:
    Rows(farm_db).local_share(work.host, work.job, cores=5000)
    with Dispatcher(farm_db.info.dsn, admission=DEAF) as dispatcher:
        dispatcher.book(booking(work, core_units=3000, local=True))
        assert len(fill(dispatcher, work)) == 10
        assert dispatcher.book_many([booking(work, local=True)])[0].proc
        farm_db.execute("CALL retally.end_lease(%s)", (work.show,))
        dispatcher.book(booking(work, local=True))
        with (
            Dispatcher(farm_db.info.dsn, admission=DEAF) as other,
            pytest.raises(ServedElsewhereError),
        ):
            other.book(booking(work, local=True))
