"""Why a proc is not booked: a typed error that names the thing, and nothing has changed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, in_background
from small_farm import Rows, Work, booking, contents, drift, make_work, manage

from retally.procedures.booking import book, book_many, release, release_many
from retally.sql.errors import (
    FrameBookedError,
    HostFullError,
    InvalidBookingError,
    JustTakenError,
    NoSubscriptionError,
    OverCapError,
    RetallyError,
    UnknownWorkError,
    WrongIsolationError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    return make_work(Rows(farm_db), 'it\'s 100% "new"')


#: What is asked for, and what the refusal has to say.
NONSENSE: list[tuple[type[RetallyError], dict[str, object], str]] = [
    (InvalidBookingError, {"core_units": 0}, "0 core units"),
    (InvalidBookingError, {"core_units": -(2**63)}, "core units"),
    (InvalidBookingError, {"mem_kb": -1}, "-1 kB"),
    (InvalidBookingError, {"gpus": -1}, "-1 GPUs"),
    (InvalidBookingError, {"gpu_mem_kb": -5}, "-5 kB of GPU memory"),
    (InvalidBookingError, {"core_units": None}, "null core units"),
    (InvalidBookingError, {"mem_kb": None}, "null kB"),
    (InvalidBookingError, {"local": None}, "local null"),
    (InvalidBookingError, {"core_units": 2**63}, "core units"),
    (InvalidBookingError, {"gpus": 2**31}, "GPUs"),
    (InvalidBookingError, {"core_units": 4.5}, "4.5 core units"),
    (InvalidBookingError, {"local": "no"}, "'no'"),
    (InvalidBookingError, {"frame": "a\0b"}, r"a\x00b"),
    (InvalidBookingError, {"layer": "\ud800"}, r"\ud800"),
    (UnknownWorkError, {"job": "it's 5% {x}"}, "it's 5% {x}"),
    (UnknownWorkError, {"job": None}, "no job"),
    (UnknownWorkError, {"layer": "L"}, '"L"'),
    (UnknownWorkError, {"frame": "F"}, '"F"'),
    (UnknownWorkError, {"host": "H"}, '"H"'),
    (UnknownWorkError, {"host": None}, "no host"),
    (UnknownWorkError, {"host": "h" * 40}, "h" * 40),
    (UnknownWorkError, {"local": True}, "no local share"),
    (HostFullError, {"core_units": 100_001}, "100000 core units idle, not 100001"),
    (HostFullError, {"mem_kb": 10**9 + 1}, "1000000000 kB of memory idle"),
    (HostFullError, {"gpus": 1001}, "1000 GPUs idle, not 1001"),
    (HostFullError, {"gpu_mem_kb": 1}, "0 kB of GPU memory idle, not 1"),
    (HostFullError, {"core_units": 2**63 - 1}, "100000 core units idle"),
]


@pytest.mark.parametrize("managed", [False, True])
def test_nonsense_is_refused_with_the_thing_named_and_nothing_changed(
    farm_db: psycopg.Connection, work: Work, managed: bool
) -> None:
    manage(farm_db, work, managed)
    before = contents(farm_db)
    for error, changes, says in NONSENSE:
        with pytest.raises(error, match=re.escape(says)) as caught:
            book(farm_db, booking(work, **changes))
        assert caught.value.hint
    assert contents(farm_db) == before


def test_nonsense_in_a_batch_is_refused_as_it_is_alone(
    farm_db: psycopg.Connection, work: Work
) -> None:
    good = booking(work)
    asked = [booking(work, **changes) for _, changes, _ in NONSENSE]
    answers = book_many(farm_db, [entry for bad in asked for entry in (bad, good)])
    for (error, _, says), answer in zip(NONSENSE, answers[::2], strict=True):
        assert (type(answer.error), answer.proc) == (error, None)
        # what is idle on the host is less by then
        assert says in str(answer.error) or error is HostFullError
    assert all(answer.proc for answer in answers[1::2])
    assert drift(farm_db, work.show) == []


def test_a_layer_of_another_job_and_a_frame_of_another_layer_are_refused(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    other = make_work(rows)
    mine, frame = rows.layer(work.job), rows.frame(work.layer)
    for wrong in (
        booking(work, layer=other.layer),
        booking(other, job=work.job),
        booking(work, layer=mine, frame=frame),
        booking(other, frame=frame),
    ):
        with pytest.raises(UnknownWorkError, match=r"has no (layer|frame)"):
            book(farm_db, wrong)


@pytest.mark.parametrize("managed", [False, True])
def test_a_frame_is_booked_once_and_the_refusal_names_its_proc(
    farm_db: psycopg.Connection, work: Work, managed: bool
) -> None:
    manage(farm_db, work, managed)
    asked = booking(work, frame=Rows(farm_db).frame(work.layer))
    proc = book(farm_db, asked)
    before = contents(farm_db)
    with pytest.raises(FrameBookedError, match=f"{asked.frame}.*{proc}.*{work.host}") as caught:
        book(farm_db, asked)
    (answer,) = book_many(farm_db, iter([asked]))
    assert isinstance(answer.error, FrameBookedError)
    assert caught.value.proc == answer.error.proc == proc
    assert contents(farm_db) == before
    release(farm_db, proc)
    assert book(farm_db, asked) != proc


def test_a_local_share_that_is_too_small_is_refused(
    farm_db: psycopg.Connection, work: Work
) -> None:
    Rows(farm_db).local_share(work.host, work.job, cores=100, mem=2000, gpus=0)
    before = contents(farm_db)
    for changes, says in (
        ({"core_units": 101}, "100 core units idle, not 101"),
        ({"mem_kb": 2001}, "2000 kB of memory idle, not 2001"),
        ({"gpus": 1}, "0 GPUs idle, not 1"),
    ):
        with pytest.raises(HostFullError, match=f"own host {work.host} has {says}"):
            book(farm_db, booking(work, local=True, **changes))
    assert contents(farm_db) == before


def cap(conn: psycopg.Connection, column: str, value: int) -> None:
    table = "subscription" if column == "int_burst" else "job_resource"
    conn.execute(f"UPDATE public.{table} SET {column} = %s", (value,))


CAPS = {"int_burst": "burst of", "int_max_cores": "maximum of", "int_max_gpus": "maximum of"}


@pytest.mark.parametrize("column", CAPS)
def test_a_cap_holds_for_an_unmanaged_show_only(
    farm_db: psycopg.Connection, work: Work, column: str
) -> None:
    asked = booking(work, core_units=300, gpus=300)
    cap(farm_db, column, 300)
    release(farm_db, book(farm_db, asked))
    for value in (-1, 0, 299):
        cap(farm_db, column, value)
        before = contents(farm_db)
        with pytest.raises(OverCapError, match=f"300 .* {CAPS[column]} {value}, 0 are") as caught:
            book(farm_db, asked)
        assert "raise the" in caught.value.hint
        assert contents(farm_db) == before
    manage(farm_db, work, True)
    assert book(farm_db, asked)
    manage(farm_db, work, False)
    assert drift(farm_db, work.show) == []


def test_caps_do_not_hold_for_local_work_and_never_hinder_a_release(
    farm_db: psycopg.Connection, work: Work
) -> None:
    Rows(farm_db).local_share(work.host, work.job)
    procs = [book(farm_db, booking(work, gpus=1)) for _ in range(2)]
    for column in CAPS:
        cap(farm_db, column, 0)
    procs.append(book(farm_db, booking(work, local=True)))
    assert [release(farm_db, proc) for proc in procs] == [True, True, True]
    assert drift(farm_db, work.show) == []


def test_a_show_books_only_where_it_has_a_subscription(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    alloc = rows.alloc()
    asked = booking(work, host=rows.host(alloc))
    before = contents(farm_db)
    with pytest.raises(NoSubscriptionError, match=alloc) as caught:
        book(farm_db, asked)
    assert 'show "it\'s 100% "new"" has no' in str(caught.value)
    assert "Subscribe the show" in caught.value.hint
    assert contents(farm_db) == before


def test_who_was_late_for_a_host_that_is_free_again_is_told_to_try_again(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    rows = Rows(farm_db)
    asked = booking(work, host=rows.host(work.alloc, cores=100), frame=rows.frame(work.layer))
    proc = book(farm_db, asked)
    first, second = connect(), connect()
    with first.transaction():
        release(first, proc)
        running = in_background(lambda: book(second, asked))
        await_blocked(farm_db, second)
    with pytest.raises(JustTakenError, match=asked.host) as caught:
        running.result(60)
    assert "try again" in caught.value.hint
    assert release(farm_db, book(farm_db, asked)) is True
    assert drift(farm_db, work.show) == []


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_isolation_level_that_hides_a_flip_is_refused(
    farm_db: psycopg.Connection, connect: Connect, work: Work, level: str
) -> None:
    other = connect()
    procs: list[str] = []
    calls: tuple[Callable[[], object], ...] = (
        lambda: book(farm_db, booking(work)),
        # a proc that the old snapshot does not show is not gone
        lambda: release(farm_db, procs[-1]),
        lambda: release_many(farm_db, procs),
    )
    for call in calls:
        farm_db.execute(f"BEGIN ISOLATION LEVEL {level}")
        farm_db.execute("SELECT")  # takes the snapshot
        procs.append(book(other, booking(work)))
        with pytest.raises(WrongIsolationError, match=level.lower()) as caught:
            call()
        farm_db.execute("ROLLBACK")
        assert "READ COMMITTED" in caught.value.hint
    assert drift(farm_db, work.show) == []
