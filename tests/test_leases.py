"""Leases: one dispatcher at a time, and no booking under another one's, whoever was asleep."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from concurrency import await_blocked, in_background
from small_farm import Rows, Work, booking, drift, make_work, manage

from retally.procedures import admission
from retally.procedures.booking import Counted, book, book_many
from retally.sql.errors import (
    MovedError,
    OverCapError,
    ServedElsewhereError,
    ShowBusyError,
)

if TYPE_CHECKING:
    import psycopg
    from conftest import Connect

LONG = 600.0


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show."""
    made = make_work(Rows(farm_db))
    manage(farm_db, made, True)
    return made


def take(
    conn: psycopg.Connection, work: Work, holder: str, seconds: float = LONG
) -> admission.Taking:
    return admission.take_lease(conn, work.show, work.show, holder, seconds)


def token(conn: psycopg.Connection, work: Work, holder: str, seconds: float = LONG) -> int:
    taken = take(conn, work, holder, seconds).token
    assert taken is not None
    return taken


def expire(conn: psycopg.Connection) -> None:
    """As if all leases had not been renewed for long."""
    conn.execute("UPDATE retally.lease SET expires_at = clock_timestamp() - interval '1 second'")


def unwish(conn: psycopg.Connection) -> None:
    """As if those who were refused had not asked again for long."""
    conn.execute("UPDATE retally.lease SET wanted_at = clock_timestamp() - interval '1 minute'")


def test_a_show_has_one_holder_who_is_named_to_the_others(
    farm_db: psycopg.Connection, work: Work
) -> None:
    assert take(farm_db, work, "first").token
    refused = take(farm_db, work, "second")
    assert (refused.token, refused.managed, refused.served_by) == (None, True, "first")
    assert refused.expires_in == pytest.approx(LONG, rel=0.1)
    (lease,) = admission.leases(farm_db)
    assert (lease.name, lease.holder, lease.live, lease.wanted_by) == (
        work.show,
        "first",
        True,
        "second",
    )


def test_each_taking_has_a_higher_token_also_by_the_holder_and_after_the_row_was_deleted(
    farm_db: psycopg.Connection, work: Work
) -> None:
    tokens = [token(farm_db, work, "me"), token(farm_db, work, "me")]
    farm_db.execute("DELETE FROM retally.lease")
    tokens.append(token(farm_db, work, "you"))
    expire(farm_db)
    tokens.append(token(farm_db, work, "me"))
    assert tokens == sorted(set(tokens))


def test_a_show_that_is_not_managed_needs_no_lease(farm_db: psycopg.Connection, work: Work) -> None:
    manage(farm_db, work, False)
    assert take(farm_db, work, "me") == admission.Taking(None, False, None, None)
    assert admission.leases(farm_db) == []


def test_bookings_are_let_in_under_the_token_of_the_lease_and_no_other(
    farm_db: psycopg.Connection, work: Work
) -> None:
    book(farm_db, booking(work))  # nobody holds a lease, nobody counts
    with pytest.raises(ServedElsewhereError, match="nobody serves it"):
        book(farm_db, booking(work), Counted(0))
    first = token(farm_db, work, "first")
    book(farm_db, booking(work), Counted(first, work.alloc, work.folder))
    for counted in (Counted(None), Counted(0), Counted(first - 1)):
        with pytest.raises(ServedElsewhereError, match="first"):
            book(farm_db, booking(work), counted)
    second = token(farm_db, work, "first")
    with pytest.raises(ServedElsewhereError, match="under another lease"):
        book(farm_db, booking(work), Counted(first))
    expire(farm_db)
    with pytest.raises(ServedElsewhereError, match="has ended"):
        book(farm_db, booking(work), Counted(second))
    third = token(farm_db, work, "third")
    admission.end_leases(farm_db, "third", {work.show: third})
    with pytest.raises(ServedElsewhereError, match="nobody serves it"):
        book(farm_db, booking(work), Counted(third))
    book(farm_db, booking(work))
    assert farm_db.execute("SELECT count(*) FROM proc").fetchone() == (3,)
    assert drift(farm_db) == []


def test_an_expired_lease_still_keeps_out_who_counts_nothing_until_it_is_ended_by_hand(
    farm_db: psycopg.Connection, work: Work
) -> None:
    mine = token(farm_db, work, "dead")
    expire(farm_db)
    with pytest.raises(ServedElsewhereError, match="served by dispatcher dead"):
        book(farm_db, booking(work))
    admission.end_lease(farm_db, work.show)
    book(farm_db, booking(work))
    # who was dead cannot come back under it
    assert admission.keep_leases(farm_db, "dead", {work.show: mine}, LONG) == {}


def test_local_work_needs_the_lease_as_well(farm_db: psycopg.Connection, work: Work) -> None:
    Rows(farm_db).local_share(work.host, work.job)
    mine = token(farm_db, work, "me")
    with pytest.raises(ServedElsewhereError):
        book(farm_db, booking(work, local=True))
    book(farm_db, booking(work, local=True), Counted(mine))


def test_in_a_show_that_is_not_managed_any_token_goes_and_caps_are_the_databases(
    farm_db: psycopg.Connection, work: Work
) -> None:
    mine = token(farm_db, work, "me")
    manage(farm_db, work, False)
    farm_db.execute("UPDATE subscription SET int_burst = 200")
    for counted in (Counted(mine), Counted(0)):
        book(farm_db, booking(work), counted)
    with pytest.raises(OverCapError):
        book(farm_db, booking(work), Counted(0))
    assert drift(farm_db, work.show) == []


def test_a_flip_ends_the_lease_so_that_what_was_booked_meanwhile_is_counted_by_the_next(
    farm_db: psycopg.Connection, work: Work
) -> None:
    mine = token(farm_db, work, "me")
    manage(farm_db, work, False)
    book(farm_db, booking(work), Counted(0))
    manage(farm_db, work, True)
    with pytest.raises(ServedElsewhereError):
        book(farm_db, booking(work), Counted(mine))
    assert admission.keep_leases(farm_db, "me", {work.show: mine}, LONG) == {}
    assert token(farm_db, work, "you") > mine


def test_an_override_ends_leases_and_shows_under_it_have_them(
    farm_db: psycopg.Connection, work: Work
) -> None:
    token(farm_db, work, "me")
    farm_db.execute("CALL retally.set_override('none')")
    assert admission.leases(farm_db) == []
    farm_db.execute("CALL retally.set_override('all')")
    late = make_work(Rows(farm_db))  # has no flag of its own
    mine = token(farm_db, late, "me")
    with pytest.raises(ServedElsewhereError):
        book(farm_db, booking(late))
    book(farm_db, booking(late), Counted(mine))


def test_an_override_leaves_a_show_whose_lease_is_locked_as_it_is_and_names_it(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    farm_db.execute("CALL retally.set_override('all')")
    late = make_work(Rows(farm_db))  # has no flag of its own
    mine = token(farm_db, late, "me")
    stuck = connect()
    with stuck.transaction():
        stuck.execute("SELECT FROM retally.lease FOR UPDATE")
        row = farm_db.execute("CALL retally.set_override('none')").fetchone()
        assert row is not None
        assert row[1] == 1
        # a flip that nobody has waited for would let bookings go uncounted
        book(farm_db, booking(late), Counted(mine))
        with pytest.raises(ServedElsewhereError):
            book(farm_db, booking(late), Counted(0))
    farm_db.execute("CALL retally.set_override('none')")
    assert admission.leases(farm_db) == []
    book(farm_db, booking(late), Counted(0))
    assert drift(farm_db, late.show) == []


def test_a_takeover_waits_for_the_bookings_let_in_before_and_its_count_has_them(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    late, taker = connect(), connect()
    mine = token(farm_db, work, "first")
    late.execute("BEGIN")
    book(late, booking(work, core_units=700), Counted(mine))
    expire(farm_db)
    taking = in_background(lambda: take(taker, work, "second"))
    await_blocked(farm_db, taker)
    assert not taking.done()
    late.execute("COMMIT")
    assert taking.result(60).token
    counts = admission.counts(taker, work.show)
    assert {row.vertex: row.cores for row in counts.rows} == dict.fromkeys(
        ("subscription", "folder", "job"), 700
    )


def test_a_booking_that_comes_during_a_takeover_waits_and_is_refused(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    taker, late = connect(), connect()
    mine = token(farm_db, work, "first")
    expire(farm_db)
    taker.execute("BEGIN")
    assert take(taker, work, "second").token
    booked = in_background(lambda: book(late, booking(work), Counted(mine)))
    await_blocked(farm_db, late)
    taker.execute("COMMIT")
    with pytest.raises(ServedElsewhereError, match="second"):
        booked.result(60)


def test_a_takeover_gives_up_when_bookings_stay_in_flight(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    stuck = connect()
    farm_db.execute("UPDATE retally.setting SET longest_flip = '10 ms'")
    stuck.execute("BEGIN")
    book(stuck, booking(work))
    with pytest.raises(ShowBusyError):
        take(farm_db, work, "me")
    stuck.execute("ROLLBACK")
    assert take(farm_db, work, "me").token


def test_two_who_take_an_expired_lease_at_once_do_not_both_get_it(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    token(farm_db, work, "dead")
    expire(farm_db)
    one, other = connect(), connect()
    one.execute("BEGIN")
    assert take(one, work, "one").token
    second = in_background(lambda: take(other, work, "other"))
    await_blocked(farm_db, other)
    one.execute("COMMIT")
    assert second.result(60).served_by == "one"


def test_a_heartbeat_keeps_what_stands_and_brings_nothing_back(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    ended, taken, foreign = (make_work(rows) for _ in range(3))
    held = {}
    for each in (work, ended, taken):
        manage(farm_db, each, True)
        held[each.show] = token(farm_db, each, "me")
    manage(farm_db, foreign, True)
    held[foreign.show] = token(farm_db, foreign, "you")
    farm_db.execute(
        "UPDATE retally.lease SET expires_at = clock_timestamp() WHERE scope = ANY(%s)",
        ([ended.show, taken.show],),
    )
    token(farm_db, taken, "you")
    assert set(admission.keep_leases(farm_db, "me", held, 2 * LONG)) == {work.show}
    left = {lease.show_id: lease.expires_at for lease in admission.leases(farm_db)}
    assert left[work.show] > left[foreign.show] > left[ended.show]


def test_who_has_more_than_an_even_share_yields_what_others_want_and_no_more(
    farm_db: psycopg.Connection,
) -> None:
    rows = Rows(farm_db)
    works = [make_work(rows) for _ in range(4)]
    for each in works:
        manage(farm_db, each, True)
    held = {each.show: token(farm_db, each, "me") for each in works}
    assert set(admission.keep_leases(farm_db, "me", held, LONG).values()) == {False}
    for each in works[:3]:
        take(farm_db, each, "you")
    # two dispatchers, four shows: two each
    kept = admission.keep_leases(farm_db, "me", held, LONG)
    assert kept == {each.show: each in works[:2] for each in works}
    # what was given up, and is not taken yet, is somebody's share
    yielded = {show: mine for show, mine in held.items() if kept[show]}
    admission.end_leases(farm_db, "me", yielded)
    assert set(admission.keep_leases(farm_db, "me", held, LONG).values()) == {False}


def test_a_wish_is_forgotten_unless_it_is_said_again(farm_db: psycopg.Connection) -> None:
    rows = Rows(farm_db)
    held = {}
    for _ in range(3):
        each = make_work(rows)
        manage(farm_db, each, True)
        held[each.show] = token(farm_db, each, "me")
        take(farm_db, each, "you")
    assert any(admission.keep_leases(farm_db, "me", held, LONG).values())
    unwish(farm_db)
    assert set(admission.keep_leases(farm_db, "me", held, LONG).values()) == {False}


def test_what_was_given_up_for_somebody_is_kept_for_him_for_a_while(
    farm_db: psycopg.Connection, work: Work
) -> None:
    mine = token(farm_db, work, "me")
    take(farm_db, work, "you")
    admission.end_leases(farm_db, "me", {work.show: mine})
    refused = take(farm_db, work, "me")
    assert (refused.token, refused.served_by) == (None, "you")
    assert 0 < (refused.expires_in or 0) <= 3
    assert take(farm_db, work, "you").token
    take(farm_db, work, "me")
    expire(farm_db)
    unwish(farm_db)
    assert take(farm_db, work, "anybody").token


def test_a_booking_counted_where_its_job_or_host_is_not_is_refused(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    folder, alloc = rows.folder(work.show, work.dept), rows.alloc()
    rows.subscription(work.show, alloc)
    mine = token(farm_db, work, "me")
    here = Counted(mine, work.alloc, work.folder)
    for counted in (Counted(mine, work.alloc, folder), Counted(mine, alloc, work.folder)):
        with pytest.raises(MovedError, match=work.job):
            book(farm_db, booking(work), counted)
        answers = book_many(farm_db, [booking(work), booking(work)], [counted, here])
        assert [type(answer.error) for answer in answers] == [MovedError, type(None)]
    assert farm_db.execute("SELECT count(*) FROM proc").fetchone() == (2,)
    assert drift(farm_db) == []


def test_a_batch_keeps_out_what_has_no_lease_and_books_the_rest(
    farm_db: psycopg.Connection, work: Work
) -> None:
    rows = Rows(farm_db)
    other, inline = make_work(rows), make_work(rows)
    manage(farm_db, other, True)
    mine = token(farm_db, work, "me")
    token(farm_db, other, "you")
    asked = [booking(work), booking(other), booking(inline), booking(work), booking(work)]
    counted = [
        Counted(mine, work.alloc, work.folder),
        Counted(mine, other.alloc, other.folder),
        Counted(0),
        Counted(mine - 1, work.alloc, work.folder),
        Counted(None),
    ]
    answers = book_many(farm_db, asked, counted)
    assert [type(answer.error) for answer in answers] == [
        type(None),
        ServedElsewhereError,
        type(None),
        ServedElsewhereError,
        ServedElsewhereError,
    ]
    assert "dispatcher you" in str(answers[1].error)
    assert [bool(answer.proc) for answer in answers] == [True, False, True, False, False]
    # without a list nobody has counted
    assert [bool(a.proc) for a in book_many(farm_db, asked[:3])] == [False, False, True]
    assert drift(farm_db, inline.show) == []
