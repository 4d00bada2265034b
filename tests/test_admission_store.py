"""The store by itself: what it counts, and what it refuses."""

from __future__ import annotations

import pytest

from retally.dispatch.admission.store import Store
from retally.dispatch.admission.tickets import Missing, Refusal, Ticket
from retally.dispatch.admission.wire import LimitChange, Release
from retally.procedures.admission import Counts, Snapshot, VertexRow
from retally.sql.errors import RetallyError

SHOW, ALLOC, FOLDER, JOB = "show", "alloc", "folder", "job"


def rows(
    burst: int = 1000,
    folder: tuple[int, int] = (-1, -1),
    job: tuple[int, int] = (-1, -1),
    booked: tuple[int, int] = (0, 0),
) -> list[VertexRow]:
    """A show of one of each; caps and what is booked in core units and GPUs."""
    return [
        VertexRow("subscription", ALLOC, "studio.alloc", "", burst, -1, *booked),
        VertexRow("folder", FOLDER, "shots", "", *folder, *booked),
        VertexRow("job", JOB, "comp", FOLDER, *job, *booked),
    ]


def counts(found: list[VertexRow], xmax: int = 100, running: set[int] | None = None) -> Counts:
    return Counts(Snapshot(xmax, frozenset(running or ())), tuple(found))


def served(found: list[VertexRow]) -> Store:
    store = Store()
    store.seed(SHOW, 1, counts(found))
    return store


def book(store: Store, cores: int = 100, gpus: int = 0) -> Ticket:
    ticket = store.book(SHOW, ALLOC, JOB, cores, gpus)
    assert isinstance(ticket, Ticket), ticket
    store.send([ticket])
    return ticket


def booked(store: Store, xact: int | None = None, cores: int = 100, gpus: int = 0) -> None:
    store.confirm(book(store, cores, gpus), xact)


def in_use(store: Store) -> set[tuple[int, int]]:
    """Core units and GPUs; one pair where all three vertices agree."""
    return set(store.in_use(SHOW).values())


def release(cores: int, xact: int | None, gpus: int = 0) -> Release:
    return Release(SHOW, ALLOC, FOLDER, JOB, cores, gpus, xact)


def test_the_first_vertex_that_refuses_is_named_with_what_is_in_use_and_nothing_is_counted() -> (
    None
):
    for found, refusal in (
        (rows(250), Refusal("subscription", ALLOC, "studio.alloc", "cores", 200, 250, 100)),
        (rows(folder=(299, -1)), Refusal("folder", FOLDER, "shots", "cores", 200, 299, 100)),
        (rows(folder=(-1, 2)), Refusal("folder", FOLDER, "shots", "gpus", 2, 2, 1)),
        (rows(job=(250, -1)), Refusal("job", JOB, "comp", "cores", 200, 250, 100)),
        (rows(job=(-1, 2)), Refusal("job", JOB, "comp", "gpus", 2, 2, 1)),
    ):
        store = served(found)
        booked(store, cores=200, gpus=2)
        assert store.book(SHOW, ALLOC, JOB, 100, 1) == refusal
        assert in_use(store) == {(200, 2)}
        assert store.counts().refused == {refusal.vertex: 1}


@pytest.mark.parametrize("burst", [0, -5])
def test_a_burst_of_zero_or_less_books_nothing(burst: int) -> None:
    refusal = served(rows(burst)).book(SHOW, ALLOC, JOB, 1, 0)
    assert isinstance(refusal, Refusal)
    assert (refusal.vertex, refusal.limit) == ("subscription", burst)


def test_without_a_subscription_nothing_is_booked() -> None:
    refusal = served(rows()).book(SHOW, "other", JOB, 1, 0)
    assert refusal == Refusal("subscription", "other", "", "cores", 0, 0, 1)


@pytest.mark.parametrize("none", [0, -1])
def test_zero_and_minus_one_are_no_maximum(none: int) -> None:
    store = served(rows(2**62, folder=(none, none), job=(none, none)))
    booked(store, cores=2**61, gpus=2**30)
    booked(store, cores=2**60, gpus=2**30)


def test_shares_of_a_core_count() -> None:
    store = served(rows(200))
    booked(store, cores=150)
    booked(store, cores=50)
    assert isinstance(store.book(SHOW, ALLOC, JOB, 1, 0), Refusal)


def test_what_is_not_served_or_not_known_has_to_be_loaded() -> None:
    store = served(rows())
    assert store.book("other", ALLOC, JOB, 1, 0) is Missing.SHOW
    assert store.book(SHOW, ALLOC, "new", 1, 0) is Missing.JOB
    new = VertexRow("job", "new", "new", FOLDER, 300, -1, 200, 0)
    assert store.add_job(SHOW, new, Snapshot(100, frozenset()))
    assert isinstance(store.book(SHOW, ALLOC, "new", 101, 0), Refusal)
    # one that is known stays as it is counted
    assert store.add_job(
        SHOW, VertexRow("job", JOB, "", FOLDER, 1, 1, 9, 9), Snapshot(1, frozenset())
    )
    assert in_use(store) == {(0, 0), (200, 0)}
    lost = VertexRow("job", "lost", "lost", "new folder", 300, -1, 0, 0)
    assert not store.add_job(SHOW, lost, Snapshot(100, frozenset()))


def test_a_ticket_is_used_once() -> None:
    store = served(rows())
    for use in (store.confirm, store.rollback, store.doubt):
        ticket = book(store)
        use(ticket)
        for again in (store.confirm, store.rollback, store.doubt):
            with pytest.raises(RetallyError, match="used before"):
                again(ticket)
    found = store.counts()
    assert (found.booked, found.rolled_back, found.in_doubt, found.in_flight) == (1, 1, 1, 0)
    # what is in doubt goes on counting
    assert in_use(store) == {(200, 0)}


def test_a_show_is_dropped_under_its_own_token_only() -> None:
    store = served(rows())
    assert not store.drop(SHOW, 2)
    assert store.token(SHOW) == 1
    assert store.drop(SHOW, 1)
    assert not store.drop(SHOW)
    assert store.begin_recount(SHOW) is None


def test_tickets_of_a_former_lease_change_nothing_of_the_next() -> None:
    store = served(rows())
    tickets = [book(store) for _ in range(3)]
    store.seed(SHOW, 2, counts(rows(booked=(100, 0))))
    for use, ticket in zip((store.confirm, store.rollback, store.doubt), tickets, strict=True):
        use(ticket)
    assert in_use(store) == {(100, 0)}
    assert store.counts().in_flight == 0


def test_a_recount_keeps_what_its_snapshot_cannot_have_and_counts_nothing_twice() -> None:
    store = served(rows())
    booked(store, 101)
    in_flight = book(store)
    recount = store.begin_recount(SHOW)
    assert recount
    booked(store, 103)  # the snapshot has it
    booked(store, 105)  # it was running
    booked(store, None)  # nobody knows
    booked(store, 107)  # it began later
    found = counts(rows(booked=(200, 0)), xmax=106, running={102, 105})
    assert store.end_recount(recount, found)
    # read: 101, 103; in flight; 105, the unknown one, 107
    assert in_use(store) == {(600, 0)}
    store.confirm(in_flight, 104)  # the snapshot had it, too, so it was in what was read
    assert in_use(store) == {(500, 0)}
    again = store.begin_recount(SHOW)
    assert again
    assert store.end_recount(again, counts(rows(booked=(500, 0)), xmax=120))
    assert in_use(store) == {(500, 0)}


def test_a_booking_that_was_sent_after_the_read_is_in_no_snapshot_whatever_its_number_is() -> None:
    store = served(rows())
    waiting = store.book(SHOW, ALLOC, JOB, 100, 0)
    assert isinstance(waiting, Ticket)
    for late in (waiting, None):
        recount = store.begin_recount(SHOW)
        assert recount
        held = 100 if late is None else 0
        assert store.end_recount(recount, counts(rows(booked=(held, 0)), xmax=5000))
        # the server has crashed meanwhile, and its numbers begin lower
        ticket = late or book(store)
        if late:
            store.send([late])
        store.confirm(ticket, 4000 + held)
    assert in_use(store) == {(200, 0)}


def test_a_job_that_moves_while_it_is_booked_makes_no_room_where_nobody_has_counted() -> None:
    store = served(rows())
    late = book(store)
    recount = store.begin_recount(SHOW)
    assert recount
    there = VertexRow("folder", "there", "there", "", 1000, -1, 400, 0)
    job = VertexRow("job", JOB, "comp", "there", -1, -1, 400, 0)
    found = [*rows()[:2], there, job]
    assert store.end_recount(recount, counts(found, xmax=120, running={110}))
    store.confirm(late, 110)  # counted in the former folder
    gone = Release(SHOW, ALLOC, "there", JOB, 100, 0, 130)
    assert not store.release(gone)
    assert store.in_use(SHOW)["folder", "there"] == (400, 0)
    again = store.begin_recount(SHOW)
    assert again
    assert store.end_recount(again, counts(found, xmax=140))
    assert store.release(Release(SHOW, ALLOC, "there", JOB, 100, 0, 150))
    assert store.in_use(SHOW)["folder", "there"] == (300, 0)


def test_a_release_counts_where_what_was_read_has_it_not() -> None:
    store = served(rows(booked=(500, 5)))
    store.release(release(100, 99, 1))  # read after it
    assert in_use(store) == {(500, 5)}
    store.release(release(100, 100, 1))
    assert in_use(store) == {(400, 4)}
    recount = store.begin_recount(SHOW)
    assert recount
    store.release(release(100, 101, 1))  # the next snapshot has it
    store.release(release(100, 105, 1))  # and this one not
    assert store.end_recount(recount, counts(rows(booked=(300, 3)), xmax=103))
    assert in_use(store) == {(200, 2)}
    store.release(release(100, 102, 1))  # late
    store.release(release(100, 103, 1))
    assert in_use(store) == {(100, 1)}
    store.release(release(100, None))  # a hint
    store.release(Release("other", ALLOC, FOLDER, JOB, 1, 0, 110))
    assert in_use(store) == {(100, 1)}


def test_caps_that_are_told_hold_unless_what_was_read_is_newer() -> None:
    def change(cores: int, xact: int | None) -> None:
        store.change_limit(LimitChange("subscription", ALLOC, SHOW, cores, None, xact))

    def fits(cores: int) -> bool:
        answer = store.book(SHOW, ALLOC, JOB, cores, 0)
        if isinstance(answer, Ticket):
            store.rollback(answer)
        return isinstance(answer, Ticket)

    def recounted(burst: int, xmax: int, told: list[tuple[int, int | None]]) -> None:
        recount = store.begin_recount(SHOW)
        assert recount
        for each in told:
            change(*each)
        assert store.end_recount(recount, counts(rows(burst), xmax))

    store = served(rows(1000))
    change(5000, 99)  # was read already
    assert not fits(1001)
    change(2000, 100)
    assert fits(2000)
    # told while it was read: 300 came after it, 3000 before
    recounted(800, 150, [(3000, 120), (800, 130)])
    assert (fits(800), fits(801)) == (True, False)
    recounted(800, 160, [(300, 165)])
    assert (fits(300), fits(301)) == (True, False)
    recounted(100, 200, [(500, 170)])  # and then 100, of which we hear later
    change(100, 180)
    assert (fits(100), fits(101)) == (True, False)
    # nothing says when: it may lower, and never raise
    change(9999, None)
    assert not fits(101)
    change(50, None)
    assert (fits(50), fits(51)) == (True, False)
    recounted(700, 210, [])
    assert fits(700)


def test_a_recount_is_given_up_when_another_begins_or_the_show_is_dropped() -> None:
    store = served(rows())
    first, second = store.begin_recount(SHOW), store.begin_recount(SHOW)
    assert first
    assert second
    assert not store.end_recount(first, counts(rows(booked=(900, 0))))
    assert in_use(store) == {(0, 0)}
    store.seed(SHOW, 2, counts(rows()))
    assert not store.end_recount(second, counts(rows(booked=(900, 0))))
    assert in_use(store) == {(0, 0)}


def test_a_recount_brings_what_is_new_and_forgets_jobs_that_are_over() -> None:
    store = served(rows(booked=(100, 0)))
    in_flight = book(store)
    for _ in range(2):
        recount = store.begin_recount(SHOW)
        assert recount
        # the job is over, its folder has got a maximum, and there is another job
        found = rows(folder=(400, -1))[:2]
        found.append(VertexRow("job", "next", "next", FOLDER, -1, -1, 0, 0))
        assert store.end_recount(recount, counts(found, xmax=110))
        known = ("job", JOB) in store.in_use(SHOW)
        assert known == in_flight.is_open  # what is in flight keeps its job
        if known:
            store.rollback(in_flight)
    assert store.book(SHOW, ALLOC, JOB, 1, 0) is Missing.JOB
    assert isinstance(store.book(SHOW, ALLOC, "next", 401, 0), Refusal)


def test_a_subscription_that_is_gone_books_nothing_any_more() -> None:
    store = served(rows())
    recount = store.begin_recount(SHOW)
    assert recount
    assert store.end_recount(recount, counts(rows()[1:], xmax=110))
    assert isinstance(store.book(SHOW, ALLOC, JOB, 1, 0), Refusal)
