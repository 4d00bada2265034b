"""Whatever happens in which order, no cap is passed, and a recount makes the store exact."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest
from admission_model import JOBS, LATER, SHOWS, Booking, Change, Key, Proc
from admission_scene import Recounting, Scene, released
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from retally.dispatch.admission.tickets import Missing, Ticket
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")

place = st.integers(0, 11)
shows = st.sampled_from(["s0", "s0", "s0", "s1"])
jobs = st.sampled_from(["j0", "j0", *JOBS])
mostly = st.sampled_from([True, True, True, False])
rarely = st.sampled_from([False, False, False, True])
core_caps = st.sampled_from([None, -1, 0, 200, 400, 600])
gpu_caps = st.sampled_from([None, -1, 0, 1, 2, 4])
#: Whose caps change.
CAPPED: list[Key] = [
    ("s0", "subscription", "a0"),
    ("s0", "folder", "f0"),
    ("s0", "job", "j0"),
    ("s0", "job", "j1"),
    ("s0", "subscription", "a1"),
]
RARE = ["lease", "drop", "doubt", "finish", "finish", "hear", "settle"]


class Admission(Scene, RuleBasedStateMachine):
    """Every event comes in any order and as late as it likes; each rule is one, or a few."""

    @initialize(loses=st.booleans())
    def serve_all(self, loses: bool) -> None:
        # whether messages are lost, and transactions of bookings not told
        self.loses = loses
        self.serve()
        self.serve()

    # bookings

    @rule(
        job=jobs,
        alloc=st.sampled_from(["a0", "a0", "a1"]),
        cores=st.sampled_from([50, 100, 150, 200, 300]),
        gpus=st.sampled_from([0, 0, 1, 2]),
    )
    def book(self, job: str, alloc: str, cores: int, gpus: int) -> None:
        proc = Proc(alloc, job, cores, gpus)
        key = proc.vertices[-1]
        answer = self.store.book(proc.show, alloc, job, cores, gpus)
        if answer is Missing.SHOW:
            assert proc.show not in self.store.tokens()
        elif answer is Missing.JOB:
            assert key not in self.known()
            if key in self.db.caps:
                self.looked_up.append((key, self.db.read_job(key)))
        elif isinstance(answer, Ticket):
            self.bookings.append(Booking(answer, proc))
            self.keeps_the_caps(proc)

    @precondition(lambda self: self.looked_up)
    @rule(place=place)
    def add_job(self, place: int) -> None:
        key, read = _pick(self.looked_up, place)
        is_new = key[0] in self.store.tokens() and key not in self.known()
        if self.store.add_job(key[0], read.counts.rows[0], read.counts.snapshot) and is_new:
            self.told.pop(key, None)
            self.took_over(key[0], read)

    @precondition(lambda self: self.pending())
    @rule(place=place, commits=mostly, steps=st.sampled_from([1, 2, 3, 3]))
    def go_on(self, place: int, commits: bool, steps: int) -> None:
        """A booking reaches the server, and ends there, and is answered; or not all of it yet."""
        booking = self.pending()[place % len(self.pending())]
        for _ in range(steps):
            if not booking.is_over:
                self.step(booking, commits)

    def step(self, booking: Booking, commits: bool) -> None:
        if booking.committed is not None:
            self.answer(booking)
        elif self.is_fenced(booking):
            booking.committed = False
        elif booking.xact is None:
            self.store.send([booking.ticket])
            booking.xact = self.db.begin()
        else:
            self.db.end(booking.xact)
            booking.committed = commits
            if commits:
                self.db.procs.append(booking.proc)

    def answer(self, booking: Booking) -> None:
        booking.answered = True
        if not booking.committed:
            self.store.rollback(booking.ticket)
        elif self.loses and (booking.xact or 0) % 2:
            self.store.confirm(booking.ticket)
            self.blurred.update(booking.proc.vertices)
        else:
            self.store.confirm(booking.ticket, booking.xact)
        before = self.known()
        for again in (self.store.confirm, self.store.rollback, self.store.doubt):
            with pytest.raises(RetallyError, match="used before"):
                again(booking.ticket)
        assert self.known() == before

    def lose_answer(self, place: int) -> None:
        unanswered = [booking for booking in self.bookings if not booking.answered]
        if not unanswered:
            return
        booking = unanswered[place % len(unanswered)]
        booking.answered = True
        tenure = booking.ticket.tenure
        self.store.doubt(booking.ticket)
        if self.store.drop(tenure.show, tenure.token):
            self.dropped(tenure.show)

    # recounts and leases

    @rule(show=shows, anew=rarely)
    def recount(self, show: str, anew: bool) -> None:
        """A recount begins, or has read, or ends; or another one begins."""
        if anew or show not in self.recounts:
            self.dropped(show)
            recount = self.store.begin_recount(show)
            assert (recount is None) == (show not in self.store.tokens())
            if recount:
                self.recounts[show] = Recounting(recount, self.known().keys())
        elif (recounting := self.recounts[show]).read is None:
            recounting.read = self.db.read(show)
        else:
            del self.recounts[show]
            came_since = self.known().keys() - recounting.known
            assert self.store.end_recount(recounting.recount, recounting.read.counts)
            self.took_over(show, recounting.read, came_since)
        for old, stale in self.given_up:
            assert not self.store.end_recount(old, stale.counts)
        self.given_up.clear()

    @precondition(lambda self: self.taken or len(self.store.tokens()) < len(SHOWS))
    @rule()
    def serve(self) -> None:
        """Leases are taken, or their shows seeded."""
        for show in SHOWS:
            if show in self.taken:
                self.seed(show)
            elif show not in self.store.tokens():
                self.take_lease(show)

    def take_lease(self, show: str) -> None:
        """The fence waits for the show's bookings that run; those to come are refused."""
        if show in self.taken or any(b.runs and b.proc.show == show for b in self.bookings):
            return
        self.tokens[show] += 1
        self.taken[show] = self.db.read(show)
        self.blurred = {key for key in self.blurred if key[0] != show}

    def seed(self, show: str) -> None:
        read = self.taken.pop(show)
        self.store.seed(show, self.tokens[show], read.counts)
        self.dropped(show)
        self.told = {key: times for key, times in self.told.items() if key[0] != show}
        self.took_over(show, read)

    def dropped(self, show: str) -> None:
        """The show's recount is of no use any more."""
        if show in self.recounts:
            recounting = self.recounts.pop(show)
            read = recounting.read or self.db.read(show)
            self.given_up.append((recounting.recount, read))

    # releases and caps

    @rule(place=place)
    def begin_release(self, place: int) -> None:
        ending = {change.proc for change in self.changes}
        if procs := [proc for proc in self.db.procs if proc not in ending]:
            self.changes.append(Change(self.db.begin(), procs[place % len(procs)]))

    @rule(
        key=st.sampled_from(CAPPED),
        cores=core_caps,
        gpus=gpu_caps,
        foreign=rarely,
        commits=st.booleans(),
    )
    def begin_limit(
        self, key: Key, cores: int | None, gpus: int | None, foreign: bool, commits: bool
    ) -> None:
        if key in self.db.caps:
            if key[1] == "subscription":
                cores, gpus = max(0, cores or 0), None
            self.changes.append(Change(self.db.begin(), None, key, (cores, gpus), foreign))
            if commits:
                self.commit(-1, False)

    @precondition(lambda self: self.changes)
    @rule(place=place, is_told=st.booleans())
    def commit(self, place: int, is_told: bool) -> None:
        change = _pick(self.changes, place)
        time = self.db.commit(change)
        if change.proc:
            self.releases.append(change)
        else:
            self.limits.append((time, change))
        if is_told:
            self.tell(-1, True)

    @precondition(lambda self: self.releases or self.limits)
    @rule(place=place, heard=mostly)
    def tell(self, place: int, heard: bool) -> None:
        """A message comes, or is lost. Those of caps come in the order of their commits."""
        heard = heard or not self.loses
        if self.releases and (place % 2 or not self.limits):
            change = _pick(self.releases, place)
            assert change.proc
            self.tell_release(change, change.proc, heard)
        else:
            self.tell_limit(*self.limits.pop(0), heard)

    # the rest

    @precondition(lambda self: not self.db.caps.keys() >= set(LATER))
    @rule(key=st.sampled_from(LATER))
    def create(self, key: Key) -> None:
        folder = (key[0], "folder", JOBS.get(key[2], ""))
        if key not in self.db.caps and (key[1] != "job" or folder in self.db.caps):
            self.db.create(key)

    @rule(what=st.sampled_from(RARE), job=jobs, place=place)
    def happens(self, what: str, job: str, place: int) -> None:
        """What is rare."""
        proc = Proc("a0", job, 100, 1)
        if what == "lease":
            self.take_lease(proc.show)
        elif what == "drop":
            self.store.drop(proc.show)
            self.dropped(proc.show)
        elif what == "doubt":
            self.lose_answer(place)
        elif what == "finish":
            self.db.finished.add(proc.vertices[-1])
        elif what == "hear":
            self.hear_foreign_release(proc)
        elif what == "settle" and not place:
            self.settle()

    def hear_foreign_release(self, proc: Proc) -> None:
        before = self.known()
        self.store.release(released(proc, None))
        assert self.known() == before

    def settle(self) -> None:
        """Everything comes to its end: then one recount makes all of it exact."""
        while self.pending():
            self.step(self.pending()[0], True)
        while self.changes:
            self.commit(0, False)
        while self.releases or self.limits:
            self.tell(0, True)
        self.bookings.clear()
        while self.taken or len(self.store.tokens()) < len(SHOWS):
            self.serve()
        self.is_exact()
        for show in SHOWS:
            for anew in (True, False, False):
                self.recount(show, anew)
        self.blurred.clear()
        self.is_exact()
        self.fits_exactly()

    def teardown(self) -> None:
        if sys.exc_info()[0] is None:
            self.settle()

    @invariant()
    def is_so(self) -> None:
        self.is_never_too_low()
        self.would_keep_the_caps()
        self.is_exact()


def _pick(waiting: list[T], place: int) -> T:
    return waiting.pop(place % len(waiting))


def test_no_cap_is_passed_whatever_the_order_and_a_recount_is_exact() -> None:
    run_state_machine_as_test(
        Admission,
        settings=settings(
            max_examples=1000,
            stateful_step_count=50,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )
