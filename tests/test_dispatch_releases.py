"""Releases: in batches, and what they tell the listeners of acct_release."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from small_farm import Rows, Work, booking, contents, drift, idle, make_work, manage, stored

from retally.procedures import TOTALS
from retally.procedures.booking import book, book_many, release, release_many

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    return make_work(Rows(farm_db))


def notify(conn: psycopg.Connection) -> None:
    conn.execute("UPDATE retally.setting SET notify = true")


class Listener:
    """A session that listens to acct_release."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self.conn = conn
        conn.execute("LISTEN acct_release")

    def heard(self, sender: psycopg.Connection) -> list[dict[str, Any]]:
        """All that was told since the last time, up to this session's present."""
        sender.execute("NOTIFY acct_release, 'end'")
        found: list[dict[str, Any]] = []
        for notice in self.conn.notifies(timeout=60):
            if notice.payload == "end":
                return found
            found.append(json.loads(notice.payload))
        raise AssertionError("the end was never heard")


@pytest.mark.parametrize("managed", [False, True])
def test_a_release_answers_for_each_entry_and_gives_back_once(
    farm_db: psycopg.Connection, work: Work, managed: bool
) -> None:
    manage(farm_db, work, managed)
    before = contents(farm_db)
    one, two = (book(farm_db, booking(work)) for _ in range(2))
    asked = ["gone", two, one, two, "", "it's 5%", one]
    assert release_many(farm_db, asked) == [False, True, True, False, False, False, False]
    assert release_many(farm_db, asked) == [False] * 7
    answers = farm_db.execute("SELECT * FROM retally.release_procs(ARRAY[NULL, 'x'])").fetchall()
    assert sorted(answers) == [(1, None, False), (2, "x", False)]
    assert contents(farm_db) == before


def test_a_proc_without_a_show_is_released_in_a_batch_as_alone(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    for override in ("per-show", "all", "none"):
        farm_db.execute("CALL retally.set_override(%s)", (override,))
        seen = []
        for batch in (False, True):
            proc = rows.proc(work.host, None, work.job, work.layer)
            farm_db.execute(
                "UPDATE host SET int_cores_idle = int_cores_idle - 100,"
                " int_mem_idle = int_mem_idle - 1000"
            )
            farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
            released = release_many(farm_db, [proc]) == [True] if batch else release(farm_db, proc)
            assert released
            seen.append({total: stored(farm_db, work, total) for total in TOTALS})
        assert seen[0] == seen[1]
        assert drift(farm_db) == []


def test_memory_changed_since_the_booking_is_given_back_as_it_is_now(
    farm_db: psycopg.Connection, work: Work
) -> None:
    before = contents(farm_db)
    procs = [str(a.proc) for a in book_many(farm_db, [booking(work), booking(work, mem_kb=9)])]
    farm_db.execute("UPDATE proc SET int_mem_reserved = 5 * int_mem_reserved")
    assert idle(farm_db, work.host)[1] == 10**9 - 5045
    assert release_many(farm_db, procs) == [True, True]
    assert contents(farm_db) == before


def test_a_managed_release_tells_ids_and_whole_cores_below_zero(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    listener = Listener(connect())
    manage(farm_db, work, True)
    notify(farm_db)
    proc = book(farm_db, booking(work, core_units=300, gpus=2))
    with farm_db.transaction():
        release(farm_db, proc)
        (xact,) = farm_db.execute("SELECT pg_current_xact_id()::text").fetchone() or ()
    assert listener.heard(farm_db) == [
        {
            "show": work.show,
            "alloc": work.alloc,
            "folder": work.folder,
            "job": work.job,
            "layer": work.layer,
            "dept": work.dept,
            "cores": -3,
            "gpus": -2,
            "core_units": -300,
            "xact": xact,
            "hosts": [work.host],
        }
    ]


def test_a_share_of_a_core_is_told_in_core_units_only(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    listener = Listener(connect())
    manage(farm_db, work, True)
    notify(farm_db)
    for core_units in (99, 100, 299):
        release(farm_db, book(farm_db, booking(work, core_units=core_units)))
    told = listener.heard(farm_db)
    assert [(one["cores"], one["core_units"]) for one in told] == [(0, -99), (-1, -100), (-2, -299)]


@pytest.mark.parametrize("batch", [False, True])
def test_nothing_is_told_unless_asked_for_of_a_managed_show_and_not_local(
    farm_db: psycopg.Connection, connect: Connect, work: Work, batch: bool
) -> None:
    Rows(farm_db).local_share(work.host, work.job)
    listener = Listener(connect())

    def round_trip(**changes: Any) -> int:
        proc = book(farm_db, booking(work, **changes))
        assert release_many(farm_db, [proc]) == [True] if batch else release(farm_db, proc)
        return len(listener.heard(farm_db))

    assert round_trip() == 0
    manage(farm_db, work, True)
    assert round_trip() == 0  # off by default
    notify(farm_db)
    assert round_trip() == 1
    assert round_trip(local=True) == 0
    manage(farm_db, work, False)
    assert round_trip() == 0


@pytest.mark.parametrize("batch", [False, True])
def test_it_is_told_when_the_release_commits_and_never_otherwise(
    farm_db: psycopg.Connection, connect: Connect, work: Work, batch: bool
) -> None:
    listener, releaser = Listener(connect()), connect()
    manage(farm_db, work, True)
    notify(farm_db)
    proc = book(farm_db, booking(work))
    releaser.execute("BEGIN")
    assert release_many(releaser, [proc]) == [True] if batch else release(releaser, proc)
    assert listener.heard(farm_db) == []
    releaser.execute("ROLLBACK")
    assert listener.heard(farm_db) == []
    releaser.execute("BEGIN")
    assert release_many(releaser, [proc]) == [True] if batch else release(releaser, proc)
    releaser.execute("COMMIT")
    assert len(listener.heard(farm_db)) == 1
    release(farm_db, proc)  # gone
    assert listener.heard(farm_db) == []


def test_a_batch_tells_one_sum_for_each_job_and_allocation(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    rows = Rows(farm_db)
    layer, unmanaged = rows.layer(work.job), make_work(rows)
    alloc = rows.alloc()
    far = rows.host(alloc)
    rows.local_share(work.host, work.job)
    listener = Listener(connect())
    manage(farm_db, work, True)
    notify(farm_db)
    asked = [
        booking(work, core_units=150, gpus=1),
        booking(work, core_units=150, gpus=1),
        booking(work, layer=layer, core_units=300),
        booking(work, host=far, core_units=200),
        booking(work, local=True),
        booking(unmanaged),
    ]
    procs = [str(answer.proc) for answer in book_many(farm_db, asked)]
    assert release_many(farm_db, ["gone", *procs, procs[0]]) == [False, *[True] * 6, False]
    told = listener.heard(farm_db)
    key = ("alloc", "layer", "cores", "gpus")
    assert {tuple(one[name] for name in key) for one in told} == {
        (work.alloc, None, -6, -2),  # of two layers
        (alloc, work.layer, -2, 0),
    }
    assert len(told) == 2
    assert {one["show"] for one in told} == {work.show}


def test_what_runs_for_a_job_that_is_gone_is_told_without_folder_and_department(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    listener = Listener(connect())
    manage(farm_db, work, True)
    notify(farm_db)
    for batch in (False, True):
        proc = Rows(farm_db).proc(work.host, work.show, "gone", None, cores=200)
        farm_db.execute(
            "UPDATE host SET int_cores_idle = int_cores_idle - 200,"
            " int_mem_idle = int_mem_idle - 1000"
        )
        assert release_many(farm_db, [proc]) == [True] if batch else release(farm_db, proc)
    told = listener.heard(farm_db)
    assert [(one["job"], one["folder"], one["cores"]) for one in told] == [("gone", None, -2)] * 2
    assert drift(farm_db) == []
