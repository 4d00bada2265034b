"""Flips and overrides beside sessions that hold what they need: every wait has a bound."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, run_in_background
from dispatch_load import is_managed
from small_farm import Rows, Work, booking, drift, make_work

from retally.procedures import routines
from retally.procedures.booking import book, release
from retally.sql.errors import ShowBusyError

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    rows = Rows(farm_db)
    return [make_work(rows, f"show{number}") for number in (1, 2, 3)]


def asked(conn: psycopg.Connection, work: Work) -> bool | None:
    row = conn.execute("SELECT asked FROM retally.scope_flag WHERE scope = %s", (work.show,))
    found = row.fetchone()
    return None if found is None else bool(found[0])


def test_a_flip_that_meets_a_locked_setting_does_not_wait_for_it(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    other = connect()
    other.execute("BEGIN; UPDATE retally.setting SET notify = true")
    routines.set_managed(farm_db, works[0].show, managed=True)
    assert is_managed(farm_db, works[0].show)


def test_a_flip_that_meets_a_locked_flag_gives_up_and_the_bookings_go_on(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    work = works[0]
    routines.set_managed(farm_db, work.show, managed=True)
    other = connect()
    other.execute("BEGIN; UPDATE retally.scope_flag SET set_by = 'me'")
    with pytest.raises(ShowBusyError, match="locked"):
        routines.set_managed(farm_db, work.show, managed=False)
    assert release(farm_db, book(farm_db, booking(work)))
    assert is_managed(farm_db, work.show)


def test_an_idle_flip_of_one_show_hinders_an_override_at_that_show_only(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    for work in works[1:]:
        routines.set_managed(farm_db, work.show, managed=True)
    idle = connect()
    idle.execute("BEGIN")
    idle.execute("CALL retally.set_managed('show1', true)")
    done = routines.set_override(farm_db, "none")
    assert (done.shows, done.shows_left) == (2, 1)
    assert "show1" in done.problems[0]
    idle.execute("COMMIT")
    assert routines.set_override(farm_db, "none").shows_left == 0
    assert not any(is_managed(farm_db, work.show) for work in works)
    # what was asked for meanwhile waits for the end of the override
    assert asked(farm_db, works[0]) is True


def test_an_override_loses_no_wish_that_is_uttered_while_it_works(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    routines.set_override(farm_db, "all")
    booker, flipper = connect(), connect()
    booker.execute("BEGIN")
    proc = book(booker, booking(works[0]))
    ending = run_in_background(flipper, "CALL retally.set_override('per-show')")
    await_blocked(farm_db, flipper)
    routines.set_managed(farm_db, works[2].show, managed=True)
    booker.execute("COMMIT")
    assert ending.result(60)[0][1] == 0
    assert [is_managed(farm_db, work.show) for work in works] == [False, False, True]
    assert release(farm_db, proc)
    assert drift(farm_db, works[0].show) == []


def test_two_overrides_at_once_leave_every_show_as_the_setting_says(
    farm_db: psycopg.Connection, connect: Connect, works: list[Work]
) -> None:
    conns = [connect() for _ in range(4)]
    for _ in range(10):
        running = [
            run_in_background(conn, "CALL retally.set_override(%s)", (value,))
            for conn, value in zip(conns, ("all", "none", "all", "none"), strict=True)
        ]
        # who meets another one that changes it just now gives way
        errors = [each.exception(60) for each in running]
        assert {getattr(error, "sqlstate", None) for error in errors} <= {None, "RT005"}
        assert None in errors
        in_force = routines.override(farm_db)
        routines.set_override(farm_db, in_force)
        assert {is_managed(farm_db, work.show) for work in works} == {in_force == "all"}
