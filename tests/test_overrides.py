"""The farm-wide override of the flag: per-show, all, none."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from concurrency import await_blocked, in_background
from dispatch_load import is_managed
from small_farm import Rows, Work, booking, contents, corrupt, drift, make_work, manage, stored

from retally.procedures import TOTALS
from retally.procedures.booking import book, release

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    """Three shows; the flag of the first was put on, that of the second off again."""
    rows = Rows(farm_db)
    works = [make_work(rows) for _ in range(3)]
    for work, wishes in zip(works, ([True], [True, False], []), strict=True):
        for managed in wishes:
            manage(farm_db, work, managed)
    return works


def override(conn: psycopg.Connection, value: str | None) -> tuple[Any, ...]:
    row = conn.execute("CALL retally.set_override(%s)", (value,)).fetchone()
    assert row is not None
    return tuple(row)


def flags(conn: psycopg.Connection, works: list[Work]) -> list[bool]:
    return [is_managed(conn, work.show) for work in works]


def cores(conn: psycopg.Connection, work: Work) -> set[int]:
    return {stored(conn, work, total)[0] for total in TOTALS}


def test_an_override_is_in_force_for_every_show_and_lets_go_of_them_again(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    own = [True, False, False]
    assert flags(farm_db, works) == own
    assert override(farm_db, "all") == (2, 0, [])
    assert flags(farm_db, works) == [True] * 3
    assert override(farm_db, "all") == (0, 0, [])
    assert override(farm_db, "none") == (3, 0, [])
    assert flags(farm_db, works) == [False] * 3
    assert override(farm_db, "per-show") == (1, 0, [])
    assert flags(farm_db, works) == own


def test_what_is_asked_for_under_an_override_is_in_force_once_it_is_gone(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    override(farm_db, "none")
    manage(farm_db, works[2], True)
    assert flags(farm_db, works) == [False] * 3
    override(farm_db, "all")
    manage(farm_db, works[0], False)
    assert flags(farm_db, works) == [True] * 3
    override(farm_db, "per-show")
    assert flags(farm_db, works) == [False, False, True]


def test_a_show_that_is_new_under_an_override_follows_it(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    override(farm_db, "all")
    new = make_work(Rows(farm_db))
    assert is_managed(farm_db, new.show)
    book(farm_db, booking(new))
    assert cores(farm_db, new) == {0}
    assert override(farm_db, "per-show") == (3, 0, [])
    assert cores(farm_db, new) == {100}
    assert not is_managed(farm_db, new.show)
    assert drift(farm_db, new.show, *(work.show for work in works)) == []


def test_each_show_that_is_flipped_is_exact_and_no_other_is_touched(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    for work in works:
        book(farm_db, booking(work))
    corrupt(farm_db)
    override(farm_db, "all")
    assert [cores(farm_db, work) for work in works] == [{-7}, {100}, {100}]
    procs = [book(farm_db, booking(work, core_units=20)) for work in works]
    assert [cores(farm_db, work) for work in works] == [{-7}, {100}, {100}]
    override(farm_db, "none")
    assert [cores(farm_db, work) for work in works] == [{120}] * 3
    for proc in procs:
        release(farm_db, proc)
    assert drift(farm_db, *(work.show for work in works)) == []


def test_an_override_waits_for_bookings_in_flight_and_counts_them(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    booker, caller = connect(), connect()
    with booker.transaction():
        book(booker, booking(works[0]))
        running = in_background(lambda: override(caller, "none"))
        await_blocked(farm_db, caller)
    assert running.result(60) == (1, 0, [])
    assert cores(farm_db, works[0]) == {100}


def test_a_show_that_cannot_be_flipped_is_left_as_it_is_and_flipped_by_the_next_call(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    farm_db.execute("UPDATE retally.setting SET longest_flip = '20 ms'")
    booker = connect()
    booker.execute("BEGIN")
    book(booker, booking(works[1]))
    said: list[str] = []
    farm_db.add_notice_handler(lambda notice: said.append(str(notice.message_primary)))
    shows, left, problems = override(farm_db, "all")
    assert (shows, left) == (1, 1)
    assert [works[1].show in problem and "RT005" in problem for problem in problems] == [True]
    assert said == problems
    assert flags(farm_db, works) == [True, False, True]
    booker.execute("COMMIT")
    # as the flag in force says, until it is flipped
    book(farm_db, booking(works[1]))
    assert drift(farm_db, works[1].show) == []
    assert override(farm_db, "all") == (1, 0, [])
    assert flags(farm_db, works) == [True] * 3


@pytest.mark.parametrize("value", ["", "ALL", "it's 5%", None])
def test_another_value_is_refused_and_changes_nothing(
    farm_db: psycopg.Connection, works: list[Work], value: str | None
) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no override") as caught:
        override(farm_db, value)
    assert caught.value.diag.message_hint == "Say per-show, all or none."
    assert flags(farm_db, works) == [True, False, False]
    assert farm_db.execute("SELECT override FROM retally.setting").fetchone() == ("per-show",)


def test_inside_a_transaction_block_it_fails_before_any_work_is_done(
    farm_db: psycopg.Connection, works: list[Work]
) -> None:
    before = contents(farm_db)
    with (
        pytest.raises(psycopg.errors.InvalidTransactionTermination),
        farm_db.transaction(),
    ):
        override(farm_db, "all")
    assert flags(farm_db, works) == [True, False, False]
    assert contents(farm_db) == before


def test_the_flag_of_a_show_that_is_gone_can_be_taken_down_by_its_id(
    farm_db: psycopg.Connection,
) -> None:
    show = Rows(farm_db).show()
    farm_db.execute("CALL retally.set_managed(%s, true)", (show,))
    farm_db.execute("DELETE FROM show WHERE pk_show = %s", (show,))
    override(farm_db, "none")
    override(farm_db, "per-show")
    farm_db.execute("CALL retally.set_managed(%s, false)", (show,))
    assert farm_db.execute("SELECT FROM retally.scope_flag").fetchall() == []
    with pytest.raises(psycopg.Error) as caught:
        farm_db.execute("CALL retally.set_managed(%s, false)", (show,))
    assert caught.value.sqlstate == "RT001"
