"""Who gets which shows when: claims by many workers, with the time chosen by the test."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from concurrency import await_blocked, run_in_background
from hypothesis import given, settings
from hypothesis import strategies as st

from retally.procedures import routines

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    Connect = Callable[[], psycopg.Connection]

START = datetime(2026, 1, 1, tzinfo=UTC)  # a multiple of every interval that is used here
INTERVAL = 10.0
LATE = 0.5  # seconds after the beginning of a slot
EARLY = 1.0  # seconds before it


class Claims:
    """Claims by workers at times that are given in seconds after START."""

    def __init__(self, conn: psycopg.Connection, shows: int) -> None:
        self.conn = conn
        self.shows = [f"show{n:05d}" for n in range(shows)]

    def claim(self, worker: str, at: float, interval: float = INTERVAL) -> list[str]:
        return list(self.answer(worker, at, interval)[0])

    def answer(self, worker: str, at: float, interval: float = INTERVAL) -> tuple[Any, ...]:
        """What it claimed, how many are due, and in how many seconds late and next are."""
        row = self.conn.execute(
            "SELECT c.claimed, c.due, c.late_in, c.next_in FROM retally.claim_due("
            "'tick', make_interval(secs => %s), %s, %s, %s) AS c",
            (interval, self.shows, worker, START + timedelta(seconds=at)),
        ).fetchone()
        assert row is not None
        return row

    def slot(self, workers: Sequence[str], at: float) -> dict[str, list[str]]:
        """All claims of a slot: in time by each, and late by each until nothing is due."""
        got = {worker: self.claim(worker, at) for worker in workers}
        while any(late := {worker: self.claim(worker, at + LATE) for worker in workers}.values()):
            for worker, more in zip(workers, late, strict=True):
                got[worker] += more
        return got

    def owned(self) -> Counter[str]:
        return Counter(
            worker for (worker,) in self.conn.execute("SELECT claimed_by FROM retally.due")
        )


@pytest.fixture
def twenty(farm_db: psycopg.Connection) -> Claims:
    return Claims(farm_db, 20)


_EVENTS = st.lists(
    st.tuples(st.sampled_from("ABCD"), st.floats(0, 15), st.booleans()), min_size=1, max_size=60
)


def test_whoever_claims_when_no_show_is_claimed_twice_in_a_slot(
    farm_db: psycopg.Connection,
) -> None:
    @settings(deadline=None, max_examples=60)
    @given(events=_EVENTS, shows=st.integers(0, 9))
    def holds(events: list[tuple[str, float, bool]], shows: int) -> None:
        farm_db.execute("TRUNCATE retally.due, retally.worker")
        claims, at, got = Claims(farm_db, shows), 0.0, Counter[tuple[int, str]]()
        for worker, pause, dies in events:
            at += pause
            slot = int((at + EARLY) // INTERVAL)
            got.update((slot, show) for show in claims.claim(worker, at))
            if dies:
                farm_db.execute("SELECT retally.forget_worker(%s)", (worker,))
        assert set(got.values()) <= {1}

    holds()


def test_whoever_claims_when_every_show_is_claimed_in_each_slot_that_a_worker_ends(
    farm_db: psycopg.Connection,
) -> None:
    @settings(deadline=None, max_examples=40)
    @given(
        slots=st.lists(st.sets(st.sampled_from("ABCDE"), min_size=1), min_size=1, max_size=8),
        shows=st.integers(0, 11),
    )
    def holds(slots: list[set[str]], shows: int) -> None:
        farm_db.execute("TRUNCATE retally.due, retally.worker")
        claims = Claims(farm_db, shows)
        for number, workers in enumerate(slots):
            got = claims.slot(sorted(workers), number * INTERVAL)
            assert sorted(show for mine in got.values() for show in mine) == claims.shows

    holds()


@pytest.mark.parametrize("workers", ["A", "AB", "ABC", "ABCDEFG"])
@pytest.mark.parametrize("shows", [1, 3, 20, 100])
def test_after_two_slots_the_shares_of_live_workers_differ_by_one_at_most(
    farm_db: psycopg.Connection, workers: str, shows: int
) -> None:
    claims = Claims(farm_db, shows)
    claims.slot(workers, 0)

    got = claims.slot(workers, INTERVAL)

    sizes = [len(got[worker]) for worker in workers]
    assert sum(sizes) == shows
    assert max(sizes) - min(sizes) <= 1


def test_shares_are_even_whatever_worker_comes_first(twenty: Claims) -> None:
    for number, order in enumerate(["ABC", "CBA", "BCA", "CAB"]):
        got = twenty.slot(order, number * INTERVAL)
    assert sorted(map(len, got.values())) == [6, 7, 7]


def test_a_worker_keeps_its_shows_while_the_workers_are_the_same(twenty: Claims) -> None:
    twenty.slot("ABC", 0)
    before = twenty.slot("ABC", INTERVAL)

    assert [twenty.slot(order, (2 + n) * INTERVAL) for n, order in enumerate(["CBA", "BAC"])] == [
        before,
        before,
    ]


def test_the_shows_of_a_dead_worker_are_taken_by_the_others_in_the_next_slot(
    twenty: Claims,
) -> None:
    twenty.slot("ABC", 0)
    lost = twenty.slot("ABC", INTERVAL)["C"]
    assert lost

    got = twenty.slot("AB", 2 * INTERVAL)

    assert set(lost) <= {*got["A"], *got["B"]}


def test_a_dead_worker_is_forgotten_and_the_others_share_evenly(twenty: Claims) -> None:
    for number in range(2):
        twenty.slot("ABC", number * INTERVAL)
    for number in range(2, 5):
        twenty.slot("AB", number * INTERVAL)
    # in time by now: nobody waits for the dead one
    assert [len(twenty.claim(worker, 5 * INTERVAL)) for worker in "AB"] == [10, 10]


def test_the_shows_of_a_worker_that_stops_are_taken_up_in_time(
    farm_db: psycopg.Connection, twenty: Claims
) -> None:
    for number in range(2):
        twenty.slot("ABC", number * INTERVAL)
    farm_db.execute("SELECT retally.forget_worker('C')")

    assert sum(len(twenty.claim(worker, 2 * INTERVAL)) for worker in "AB") >= 19
    assert twenty.claim("A", 2 * INTERVAL + LATE) == []


def test_a_worker_that_joins_has_its_share_in_the_next_slot(twenty: Claims) -> None:
    twenty.slot("AB", 0)
    twenty.slot("AB", INTERVAL)
    assert twenty.claim("C", INTERVAL + 2) == []

    got = twenty.slot("ABC", 2 * INTERVAL)

    assert sorted(map(len, got.values())) == [6, 7, 7]


def test_before_it_is_late_a_worker_gets_its_share_only_and_is_told_when_more_is_to_be_had(
    twenty: Claims,
) -> None:
    twenty.slot("AB", 0)
    assert len(twenty.claim("A", INTERVAL)) == 10

    claimed, due, late_in, next_in = twenty.answer("A", INTERVAL + 0.2)

    assert (claimed, due) == ([], 10)
    assert late_in == pytest.approx(LATE - 0.2)
    assert next_in == pytest.approx(INTERVAL - 0.2)
    assert len(twenty.claim("A", INTERVAL + 0.2 + late_in)) == 10


def test_who_comes_a_little_early_is_served_and_not_again_in_time(twenty: Claims) -> None:
    twenty.claim("A", 0)
    assert len(twenty.claim("A", INTERVAL - EARLY)) == 20
    assert twenty.claim("A", INTERVAL) == []
    assert len(twenty.claim("A", 2 * INTERVAL)) == 20


def test_who_comes_too_early_is_not_served(twenty: Claims) -> None:
    twenty.claim("A", 0)
    assert twenty.claim("A", INTERVAL - EARLY - 0.01) == []


def test_slots_that_nobody_served_are_made_up_for_by_one_pass(twenty: Claims) -> None:
    twenty.claim("A", 0)
    assert len(twenty.claim("A", 7 * INTERVAL)) == 20
    assert twenty.claim("A", 7 * INTERVAL + 1) == []


@pytest.mark.parametrize("step", [-86_400.0, -3600.0, -21.0, 3600.0, 86_400.0])
def test_a_clock_that_steps_costs_two_intervals_at_most_and_no_pass_too_many(
    twenty: Claims, step: float
) -> None:
    for number in range(3):
        twenty.slot("AB", number * INTERVAL)
    counts = []
    for number in range(3, 7):
        got = twenty.slot("AB", number * INTERVAL + step)
        counts.append(sum(map(len, got.values())))
    assert counts[0] in (0, 20)
    assert counts[1] in (0, 20)
    assert counts[2:] == [20, 20]
    assert sorted(twenty.owned().values()) == [10, 10]


def test_a_show_follows_the_interval_of_the_worker_that_has_it(
    farm_db: psycopg.Connection,
) -> None:
    claims = Claims(farm_db, 4)
    claims.claim("slow", 0, 10)
    claims.claim("fast", 0, 2)
    got: dict[str, Counter[str]] = {"slow": Counter(), "fast": Counter()}
    for second in range(20, 60, 2):
        if second == 30:  # both are known by now, and come for their shares
            got = {"slow": Counter(), "fast": Counter()}
        if second % 10 == 0:
            got["slow"].update(claims.claim("slow", second, 10))
        got["fast"].update(claims.claim("fast", second, 2))
    assert sorted(got["slow"].values()) == [3, 3]
    assert sorted(got["fast"].values()) == [15, 15]


def test_a_failing_show_is_left_alone_by_all_until_its_pause_is_over(
    farm_db: psycopg.Connection, twenty: Claims
) -> None:
    twenty.claim("A", 0)
    farm_db.execute("SELECT retally.note_failure('tick', 'show00007', '35 s', 'on fire')")
    # the pause counts from the server's present: move it to the test's
    farm_db.execute(
        "UPDATE retally.due SET due_at = %s WHERE failures > 0", (START + timedelta(seconds=35),)
    )
    for number in range(1, 4):
        got = twenty.slot("AB", number * INTERVAL)
        assert "show00007" not in [*got["A"], *got["B"]]
        assert len(got["A"]) + len(got["B"]) == 19
    got = twenty.slot("AB", 4 * INTERVAL)
    assert len(got["A"]) + len(got["B"]) == 20


def test_failures_are_counted_for_whoever_claims_next_and_forgotten_after_a_recovery(
    farm_db: psycopg.Connection,
) -> None:
    shows = ["show1", "show2"]
    for _ in range(2):
        routines.claim_due(farm_db, "tick", 10, shows, "A")
        routines.note_failure(farm_db, "tick", "show1", 0, "on fire")
    later = datetime.now(UTC) + timedelta(hours=1)
    claimed = farm_db.execute(
        "SELECT c.claimed, c.failures FROM retally.claim_due('tick', '10 s', %s, 'B', %s) AS c",
        (shows, later),
    ).fetchone()
    assert claimed == (shows, [2, 0])

    routines.note_recovery(farm_db, "tick", shows)

    kept = farm_db.execute("SELECT failures, error FROM retally.due").fetchall()
    assert kept == [(0, None)] * 2


def test_a_failure_in_one_tick_does_not_hold_up_another_one(farm_db: psycopg.Connection) -> None:
    for tick in ("one", "other"):
        routines.claim_due(farm_db, tick, 10, ["show1"], "A")
    routines.note_failure(farm_db, "one", "show1", 60, "on fire")
    found = farm_db.execute("SELECT tick FROM retally.due WHERE failures > 0").fetchall()
    assert found == [("one",)]


def test_a_claim_that_is_not_committed_is_not_waited_for(
    farm_db: psycopg.Connection, connect: Connect, twenty: Claims
) -> None:
    twenty.claim("A", 0)
    twenty.claim("B", 0)
    other = connect()
    other.autocommit = False
    theirs = Claims(other, 20).claim("B", INTERVAL)
    farm_db.execute("SET lock_timeout = '1 ms'")

    mine = [*twenty.claim("A", INTERVAL), *twenty.claim("A", INTERVAL + LATE)]

    other.commit()
    assert sorted([*mine, *theirs]) == twenty.shows


def test_claims_at_the_same_instant_never_overlap_nor_meet_in_a_deadlock(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    workers = 4
    together = threading.Barrier(workers)
    sessions = [Claims(connect(), 300) for _ in range(workers)]
    for number, session in enumerate(sessions):
        # new shows are added by whoever comes first, in whatever order each names them
        session.shows = session.shows[number:] + session.shows[:number]

    def claim(number: int, slot: int) -> list[str]:
        together.wait(60)
        mine = sessions[number].claim(f"worker{number}", slot * INTERVAL)
        together.wait(60)
        while more := sessions[number].claim(f"worker{number}", slot * INTERVAL + LATE):
            mine += more
        return mine

    with ThreadPoolExecutor(workers) as threads:
        for slot in range(10):
            done = [threads.submit(claim, number, slot) for number in range(workers)]
            claimed = [show for each in done for show in each.result(60)]
            assert len(claimed) == len(set(claimed))
            if slot > 0:
                assert len(claimed) == 300
    assert sorted(Claims(farm_db, 300).owned().values()) == [75] * workers


def test_recoveries_come_to_the_same_shows_in_the_same_order(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    for show in ("show2", "show1"):
        routines.claim_due(farm_db, "tick", 10, [show], "A")
    farm_db.execute("UPDATE retally.due SET failures = 1")
    holder, waiter = connect(), connect()
    holder.autocommit = False
    holder.execute("SELECT FROM retally.due WHERE scope = 'show1' FOR UPDATE")
    # a plan that comes to show2 first
    waiter.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
    waiting = run_in_background(waiter, "SELECT retally.note_recovery('tick', '{show2,show1}')")
    await_blocked(farm_db, waiter)
    # whoever waits for the first one has not the second one: no two can wait for each other
    free = farm_db.execute("SELECT scope FROM retally.due FOR UPDATE SKIP LOCKED").fetchall()
    assert free == [("show2",)]
    holder.commit()
    waiting.result(60)
    assert farm_db.execute("SELECT max(failures) FROM retally.due").fetchone() == (0,)


def test_new_shows_are_added_in_the_same_order_by_all(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    holder, waiter = connect(), connect()
    holder.autocommit = False
    routines.claim_due(holder, "tick", 10, ["show1"], "A")
    waiting = run_in_background(
        waiter, "SELECT retally.claim_due('tick', '10 s', '{show2,show1}', 'B')"
    )
    await_blocked(farm_db, waiter)
    farm_db.execute("SET lock_timeout = '100 ms'")
    # it waits for show1 and has not added show2 before
    assert list(routines.claim_due(farm_db, "tick", 10, ["show2"], "C").failures) == ["show2"]
    holder.commit()
    waiting.result(60)


def test_claiming_writes_next_to_no_wal(farm_db: psycopg.Connection, twenty: Claims) -> None:
    twenty.claim("A", 0)
    row = farm_db.execute(
        "EXPLAIN (ANALYZE, WAL, FORMAT JSON) SELECT retally.claim_due('tick', '10 s', %s, 'A', %s)",
        (twenty.shows, START + timedelta(seconds=INTERVAL)),
    ).fetchone()
    assert row is not None
    # 20 rows that were logged would be some 3,000; a page of the catalog may be tidied meanwhile
    assert row[0][0]["Plan"]["WAL Bytes"] < 500
    # it did write: the next slot has nothing left
    assert twenty.claim("A", INTERVAL + LATE) == []
