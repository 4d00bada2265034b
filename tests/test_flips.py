"""A flip of the flag: it waits for bookings in flight, and the totals are exact at that instant."""

from __future__ import annotations

import itertools
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, in_background, run_in_background
from dispatch_load import REFUSALS, Client, is_managed, two_shows
from small_farm import Rows, Work, booking, corrupt, drift, make_work, stored

from retally.procedures import TOTALS
from retally.procedures.booking import book, book_many, release, release_many
from retally.sql.errors import ShowBusyError, translated

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]

CLIENTS = 16
SECONDS = 30


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    return make_work(Rows(farm_db))


def manage(conn: psycopg.Connection, work: Work, managed: bool) -> None:
    with translated():
        conn.execute("CALL retally.set_managed(%s, %s)", (work.show, managed))


def cores(conn: psycopg.Connection, work: Work) -> set[int]:
    """The cores in the five totals: one number where they agree."""
    return {stored(conn, work, total)[0] for total in TOTALS}


def test_the_totals_are_exact_after_a_flip_in_both_directions(
    farm_db: psycopg.Connection, work: Work
) -> None:
    Rows(farm_db).local_share(work.host, work.job)
    corrupt(farm_db)
    book(farm_db, booking(work))
    manage(farm_db, work, True)
    assert cores(farm_db, work) == {100}
    gone = book(farm_db, booking(work, core_units=70, local=True))
    book(farm_db, booking(work, core_units=30))
    assert cores(farm_db, work) == {100}
    assert {row[0] for row in drift(farm_db, work.show)} == set(TOTALS)
    manage(farm_db, work, False)
    assert drift(farm_db, work.show) == []
    release(farm_db, gone)
    assert cores(farm_db, work) == {130}
    assert drift(farm_db, work.show) == []


def test_a_flip_may_leave_totals_above_their_caps(farm_db: psycopg.Connection, work: Work) -> None:
    farm_db.execute("UPDATE subscription SET int_burst = 0")
    farm_db.execute("UPDATE job_resource SET int_max_cores = 0, int_max_gpus = 0")
    manage(farm_db, work, True)
    book(farm_db, booking(work, gpus=1))
    manage(farm_db, work, False)
    assert cores(farm_db, work) == {100}


@pytest.mark.parametrize("managed", [True, False])
@pytest.mark.parametrize("batch", [False, True])
def test_a_flip_waits_for_a_booking_in_flight_and_counts_it(
    farm_db: psycopg.Connection, connect: Connect, work: Work, managed: bool, batch: bool
) -> None:
    manage(farm_db, work, not managed)
    booker, flipper = connect(), connect()
    with booker.transaction():
        if batch:
            book_many(booker, [booking(work)])
        else:
            book(booker, booking(work))
        flipping = in_background(lambda: manage(flipper, work, managed))
        await_blocked(farm_db, flipper)
    flipping.result(60)
    assert is_managed(farm_db, work.show) == managed
    assert cores(farm_db, work) == {100}


def test_a_flip_waits_for_a_release_in_flight(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    manage(farm_db, work, True)
    procs = [book(farm_db, booking(work)) for _ in range(3)]
    releaser, flipper = connect(), connect()
    with releaser.transaction():
        release(releaser, procs[0])
        release_many(releaser, procs[1:2])
        flipping = in_background(lambda: manage(flipper, work, False))
        await_blocked(farm_db, flipper)
    flipping.result(60)
    assert cores(farm_db, work) == {100}


@pytest.mark.parametrize("managed", [True, False])
def test_new_bookings_wait_behind_a_flip_and_see_the_new_flag(
    farm_db: psycopg.Connection, connect: Connect, work: Work, managed: bool
) -> None:
    manage(farm_db, work, not managed)
    old = book(farm_db, booking(work))
    booker, flipper, late, leaver, other = (connect() for _ in range(5))
    with booker.transaction():
        book(booker, booking(work))
        flipping = in_background(lambda: manage(flipper, work, managed))
        await_blocked(farm_db, flipper)
        booking_late = in_background(lambda: book_many(late, [booking(work, core_units=10)]))
        leaving = in_background(lambda: release(leaver, old))
        await_blocked(farm_db, late)
        await_blocked(farm_db, leaver)
        # other shows do not wait
        book(other, booking(make_work(Rows(farm_db))))
    flipping.result(60)
    assert booking_late.result(60)[0].proc
    assert leaving.result(60)
    assert cores(farm_db, work) == {200 if managed else 110}


def test_a_booking_within_the_flips_own_transaction_waits_until_that_ends(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    late = connect()
    with farm_db.transaction():
        manage(farm_db, work, True)
        running = in_background(lambda: book(late, booking(work)))
        watcher = connect()
        await_blocked(watcher, late)
        book(farm_db, booking(work, core_units=7))
    running.result(60)
    assert cores(farm_db, work) == {0}


def test_a_flip_gives_up_after_the_longest_flip_and_leaves_all_as_it_was(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    manage(farm_db, work, True)
    farm_db.execute("UPDATE retally.setting SET longest_flip = '20 ms'")
    booker = connect()
    booker.execute("BEGIN")
    book(booker, booking(work))
    with pytest.raises(ShowBusyError, match="in flight") as caught:
        manage(farm_db, work, False)
    assert "long transaction" in caught.value.hint
    assert is_managed(farm_db, work.show)
    spare = booking(work, host=Rows(farm_db).host(work.alloc))
    assert release(farm_db, book(farm_db, spare))
    booker.execute("COMMIT")
    assert cores(farm_db, work) == {0}
    manage(farm_db, work, False)
    assert cores(farm_db, work) == {100}


def test_a_flip_in_a_transaction_that_has_written_gives_way_to_who_waits_for_it(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    # in time before a booking could be made the victim of a deadlock
    farm_db.execute("UPDATE retally.setting SET longest_flip = '1 hour'")
    booker, flipper = connect(), connect()
    flipper.execute("BEGIN")
    flipper.execute("UPDATE host SET str_tags = 'mine' WHERE pk_host = %s", (work.host,))
    booker.execute("BEGIN")
    spare = Rows(farm_db).host(work.alloc)
    book(booker, booking(work, host=spare))
    waiting = in_background(lambda: book(booker, booking(work)))
    await_blocked(farm_db, booker)
    with pytest.raises(ShowBusyError):
        manage(flipper, work, True)
    flipper.execute("ROLLBACK")
    assert waiting.result(60)
    booker.execute("COMMIT")
    assert drift(farm_db, work.show) == []


def test_two_flips_of_a_show_at_once_come_one_after_the_other(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    first, second = connect(), connect()
    second.execute("SET deadlock_timeout = '2 min'")
    farm_db.execute("UPDATE retally.setting SET longest_wait = '1 min'")
    with first.transaction():
        manage(first, work, True)
        running = run_in_background(second, "CALL retally.set_managed(%s, false)", (work.show,))
        await_blocked(farm_db, second)
    running.result(60)
    assert not is_managed(farm_db, work.show)


def test_flips_every_second_under_load_leave_no_drift_at_all(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    works, frames = two_shows(farm_db)
    farm_db.execute("UPDATE retally.setting SET longest_flip = '1 min'")
    # looked for soon, so that a deadlock would show up
    farm_db.execute(f"ALTER DATABASE {farm_db.info.dbname} SET deadlock_timeout = '50ms'")
    clients = [Client(connect(), works, seed) for seed in range(CLIENTS)]
    flipper, stop = connect(), threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        try:
            running = [pool.submit(client.run, stop, frames) for client in clients]
            until = time.monotonic() + SECONDS
            for second in itertools.count():
                stop.wait(1)
                manage(flipper, works[0], second % 2 == 0)
                if second % 5 == 4:
                    override = ("all", "none", "per-show")[second // 5 % 3]
                    answer = flipper.execute("CALL retally.set_override(%s)", (override,))
                    assert answer.fetchone()[1:] == (0, [])  # type: ignore[index]
                if time.monotonic() > until or any(future.done() for future in running):
                    break
            # off, each show by its own flag; and the load goes on
            flipper.execute("CALL retally.set_override('per-show')")
            for work in works:
                manage(flipper, work, False)
            before = [client.seen["booked"] for client in clients]
            while not any(future.done() for future in running) and any(
                client.seen["booked"] < count + 20
                for client, count in zip(clients, before, strict=True)
            ):
                farm_db.execute("SELECT * FROM retally.host_drift()")
        finally:
            stop.set()
        # a deadlock, or anything but a refusal, would have raised in one of them
        seen = sum((future.result(60) for future in running), Counter[str]())
    assert drift(farm_db, *(work.show for work in works)) == []
    assert min(seen["managed"], seen["unmanaged"], seen["released"]) > 100
    assert set(seen) <= REFUSALS | {"managed", "unmanaged", "released", "booked"}
    for client in clients:
        assert all(release_many(farm_db, client.procs))
    for work in works:
        assert cores(farm_db, work) == {0}
    assert drift(farm_db, *(work.show for work in works)) == []
