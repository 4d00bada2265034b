"""Many procs in one call: one answer for each entry, a bad one fails no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
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

from retally.procedures.booking import book, book_many, release_many
from retally.sql.errors import (
    FrameBookedError,
    HostFullError,
    InvalidBookingError,
    NoSubscriptionError,
    OverCapError,
    UnknownWorkError,
    WrongIsolationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from retally.procedures.booking import Answer

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    return make_work(Rows(farm_db), 'it\'s 100% "new"')


def errors(answers: list[Answer]) -> list[type[Exception] | None]:
    """Each entry's error, None where it was booked; one of proc and error is always there."""
    assert all((answer.proc is None) != (answer.error is None) for answer in answers)
    return [None if answer.error is None else type(answer.error) for answer in answers]


@pytest.mark.parametrize("managed", [False, True])
def test_a_batch_is_booked_and_released_as_one_by_one(
    farm_db: psycopg.Connection, work: Work, managed: bool
) -> None:
    rows = Rows(farm_db)
    other = make_work(rows)
    rows.local_share(work.host, work.job)
    rows.subscription(other.show, work.alloc)
    manage(farm_db, work, managed)
    before = contents(farm_db)
    asked = [
        booking(work, core_units=300, gpus=2),
        booking(other, core_units=50, host=work.host),
        booking(work, core_units=70, local=True),
        booking(work, core_units=11, frame=rows.frame(work.layer)),
        booking(other, frame=rows.frame(other.layer)),
    ]
    answers = book_many(farm_db, asked)
    assert errors(answers) == [None] * 5
    assert [answer.booking for answer in answers] == asked
    assert idle(farm_db, work.host)[:3] == (100_000 - 431, 10**9 - 4000, 998)
    assert share_idle(farm_db, work.host, work.job)[0] == 930
    counted = 0 if managed else 1
    assert stored(farm_db, work, "subscription")[0] == 311 * counted
    assert stored(farm_db, work, "job")[:3] == (311 * counted, 2 * counted, 70 * counted)
    assert stored(farm_db, work, "layer")[0] == 381 * counted
    assert stored(farm_db, other, "point")[0] == 150
    assert drift(farm_db, other.show, *([] if managed else [work.show])) == []

    procs = [str(answer.proc) for answer in answers]
    assert release_many(farm_db, procs) == [True] * 5
    assert contents(farm_db) == before


def test_a_bad_entry_is_answered_and_the_others_are_booked(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    frame, taken = rows.frame(work.layer), rows.frame(work.layer)
    there = book(farm_db, booking(work, frame=taken))
    small, far = rows.host(work.alloc, cores=150), rows.host(rows.alloc())
    farm_db.execute("UPDATE job_resource SET int_max_gpus = 5")
    answers = book_many(
        farm_db,
        [
            booking(work, frame=frame),
            booking(work, core_units=0),
            booking(work, job="it's 5%"),
            booking(work, frame=taken),
            booking(work, frame=frame),
            booking(work, local=True),
            booking(work, host=small),
            booking(work, host=small),
            booking(work, host=far),
            booking(work, gpus=6),
            booking(work, gpus=5),
        ],
    )
    assert errors(answers) == [
        None,
        InvalidBookingError,
        UnknownWorkError,
        FrameBookedError,
        FrameBookedError,
        UnknownWorkError,
        None,
        HostFullError,
        NoSubscriptionError,
        OverCapError,
        None,
    ]
    said = [str(answer.error) for answer in answers]
    assert there in said[3]
    assert str(answers[0].proc) in said[4]
    assert "50 core units idle, not 100" in said[7]
    assert "6 GPUs more" in said[9]
    assert drift(farm_db, work.show) == []


def test_each_refusal_is_the_one_that_a_single_booking_gets(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    small, far = rows.host(work.alloc, cores=50), rows.host(rows.alloc())
    taken = rows.frame(work.layer)
    book(farm_db, booking(work, frame=taken))
    rows.local_share(work.host, work.job, cores=10)
    rows.local_share(small, work.job, cores=70)
    farm_db.execute("UPDATE job_resource SET int_max_cores = 400")
    farm_db.execute("UPDATE subscription SET int_burst = 500")
    asked = [
        booking(work, core_units=-1),
        booking(work, mem_kb=-1, host="x"),
        booking(work, host="x", frame="x"),
        booking(work, frame=taken, host=small),
        booking(work, frame=taken, local=True),
        booking(work, host=small),
        booking(work, host=far),
        booking(work, host=far, local=True),
        booking(work, local=True),
        booking(work, host=small, local=True),
        booking(work, host=small, local=True, core_units=60),
        booking(work, core_units=350),
        booking(work, core_units=450),
    ]
    alone = []
    for entry in asked:
        with pytest.raises(psycopg.Error) as caught:
            farm_db.execute(
                "SELECT retally.book_proc(%s, %s, %s, %s, %s::bigint, %s::bigint, %s::integer,"
                " %s::bigint, %s)",
                list(vars(entry).values()),
            )
        diag = caught.value.diag
        alone.append((diag.sqlstate, diag.message_primary, diag.message_hint))
    columns = [list(column) for column in zip(*(vars(e).values() for e in asked), strict=True)]
    together = farm_db.execute(
        "SELECT problem, message, hint FROM retally.book_procs(%s, %s, %s, %s, %s::bigint[],"
        " %s::bigint[], %s::integer[], %s::bigint[], %s) ORDER BY nr",
        columns,
    ).fetchall()
    assert together == alone


def test_a_frame_goes_to_the_first_entry_that_fits(farm_db: psycopg.Connection, work: Work) -> None:
    rows = Rows(farm_db)
    frame, small = rows.frame(work.layer), rows.host(work.alloc, cores=50)
    answers = book_many(
        farm_db,
        [
            booking(work, frame=frame, host=small),
            booking(work, frame=frame),
            booking(work, frame=frame),
        ],
    )
    assert errors(answers) == [HostFullError, None, FrameBookedError]
    assert drift(farm_db, work.show) == []


@pytest.mark.parametrize("slot", ["core_units", "mem_kb", "gpus"])
def test_where_not_all_fit_earlier_entries_go_first(
    farm_db: psycopg.Connection, work: Work, slot: str
) -> None:
    host = Rows(farm_db).host(work.alloc, cores=1000, mem=1000, gpus=1000)
    few: dict[str, Any] = {"core_units": 1, "mem_kb": 1, "gpus": 1}
    asked = [
        booking(work, host=host, **(few | {slot: amount})) for amount in (600, 600, 300, 98, 98, 1)
    ]
    answers = book_many(farm_db, asked)
    assert errors(answers) == [None, HostFullError, None, None, HostFullError, None]
    assert drift(farm_db, work.show) == []
    assert min(idle(farm_db, host)[:3]) == 1


def test_amounts_that_overflow_only_together_are_refused_one_by_one(
    farm_db: psycopg.Connection, work: Work
) -> None:
    most = 2**63 - 1
    answers = book_many(
        farm_db,
        [
            booking(work, core_units=most),
            booking(work, core_units=most),
            booking(work, mem_kb=most),
            booking(work, mem_kb=most),
            booking(work, gpus=2**31 - 1),
            booking(work, gpu_mem_kb=most),
            booking(work),
        ],
    )
    assert errors(answers) == [HostFullError] * 6 + [None]
    assert drift(farm_db, work.show) == []


def test_a_cap_reached_in_the_middle_lets_in_what_still_fits(
    farm_db: psycopg.Connection, work: Work
) -> None:
    farm_db.execute("UPDATE subscription SET int_burst = 1000")
    asked = [booking(work, core_units=cores) for cores in (700, 400, 300, 1)]
    assert errors(book_many(farm_db, asked)) == [None, OverCapError, None, OverCapError]
    assert stored(farm_db, work, "subscription")[0] == 1000
    manage(farm_db, work, True)
    assert errors(book_many(farm_db, asked)) == [None] * 4
    manage(farm_db, work, False)
    assert drift(farm_db, work.show) == []


def test_empty_batches_and_arrays_that_differ(farm_db: psycopg.Connection, work: Work) -> None:
    assert book_many(farm_db, []) == []
    assert release_many(farm_db, []) == []
    none = farm_db.execute("SELECT * FROM retally.book_procs('{}', '{}', '{}', '{}', '{}', '{}')")
    assert none.fetchall() == []
    before = contents(farm_db)
    for host, cores in ((f"{{{work.host}}}", "{100,100}"), (None, "{100}"), ("{}", "{100}")):
        with pytest.raises(psycopg.Error, match="differ in length") as caught:
            farm_db.execute(
                "SELECT * FROM retally.book_procs(%s, %s, %s, ARRAY[NULL], %s, '{1}')",
                (host, f"{{{work.job}}}", f"{{{work.layer}}}", cores),
            )
        assert caught.value.sqlstate == "RT008"
    assert contents(farm_db) == before


def test_a_batch_at_another_isolation_level_is_refused(
    farm_db: psycopg.Connection, work: Work
) -> None:
    proc = book(farm_db, booking(work))
    for call in (
        lambda: book_many(farm_db, [booking(work)]),
        lambda: release_many(farm_db, [proc]),
    ):
        farm_db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        with pytest.raises(WrongIsolationError, match="repeatable read"):
            call()
        farm_db.execute("ROLLBACK")


def test_with_the_flag_on_a_batch_waits_for_no_total(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    rows = Rows(farm_db)
    rows.local_share(work.host, work.job)
    frames = [rows.frame(work.layer) for _ in range(3)]
    manage(farm_db, work, True)
    holder = connect()
    holder.execute("BEGIN")
    for table in (*TOTAL_TABLES, "show", "job", "layer", "folder", "dept"):
        assert holder.execute(f"SELECT FROM public.{table} FOR UPDATE").rowcount > 0
    farm_db.execute("SET lock_timeout = '10ms'")
    asked = [booking(work, frame=frame) for frame in frames] + [booking(work, local=True)]
    asked.append(booking(work, core_units=100_000))  # so that it goes one by one
    answers = book_many(farm_db, asked)
    assert errors(answers) == [None] * 4 + [HostFullError]
    assert release_many(farm_db, [str(answer.proc) for answer in answers[:4]]) == [True] * 4


def test_two_thousand_entries_in_one_batch(farm_db: psycopg.Connection, work: Work) -> None:
    rows = Rows(farm_db)
    hosts = [rows.host(work.alloc) for _ in range(9)]
    before = contents(farm_db)
    asked = [
        booking(work, core_units=place % 7 * 20, host=hosts[place % 9]) for place in range(2000)
    ]
    answers = book_many(farm_db, asked)
    assert errors(answers) == [None if entry.core_units else InvalidBookingError for entry in asked]
    assert drift(farm_db, work.show) == []
    assert all(release_many(farm_db, [answer.proc for answer in answers if answer.proc]))
    assert contents(farm_db) == before


def test_a_batch_for_hosts_that_take_half_of_it(farm_db: psycopg.Connection, work: Work) -> None:
    rows = Rows(farm_db)
    hosts = [rows.host(work.alloc, cores=1000) for _ in range(10)]
    asked = [booking(work, host=hosts[place % 10]) for place in range(200)]
    assert errors(book_many(farm_db, asked)) == [None] * 100 + [HostFullError] * 100
    assert [idle(farm_db, host)[0] for host in hosts] == [0] * 10
    assert drift(farm_db, work.show) == []
