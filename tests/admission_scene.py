"""An admission store beside the database that it counts, and what has to be true of the two."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from admission_model import ALLOCS, BOUNDLESS, JOBS, SHOWS, Database, Key, Proc, total

from retally.dispatch.admission.store import Store
from retally.dispatch.admission.tickets import Refusal, Ticket
from retally.dispatch.admission.wire import LimitChange, Release

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Set

    from admission_model import Booking, Change, Pair, Read

    from retally.dispatch.admission.recount import Recount

#: What can be asked for, a little of it.
ANY = [Proc(alloc, job, 1, 0) for alloc in ALLOCS for job in JOBS]


@dataclass
class Recounting:
    """A recount under way, and what it has read; ``known``: what there was when it began."""

    recount: Recount
    known: Set[Key]
    read: Read | None = None


class Scene:
    """What is on its way between the store and the database waits in lists."""

    def __init__(self) -> None:
        super().__init__()
        self.db, self.store = Database.new(), Store()
        self.bookings: list[Booking] = []
        self.changes: list[Change] = []  # which have not committed yet
        self.limits: list[tuple[int, Change]] = []  # messages, with the time of the commit
        self.releases: list[Change] = []
        self.tokens = dict.fromkeys(SHOWS, 0)
        self.taken: dict[str, Read] = {}  # leases that are taken, and their shows read
        self.recounts: dict[str, Recounting] = {}
        self.given_up: list[tuple[Recount, Read]] = []
        self.looked_up: list[tuple[Key, Read]] = []
        # since when the store has the caps of each vertex that it has read: cores and GPUs
        self.told: dict[Key, list[int]] = {}
        # caps that were told, of whatever vertex
        self.heard: dict[Key, list[int]] = {}
        # where something was missed, so that only a recount makes it exact
        self.blurred: set[Key] = set()

    # what has to be true

    def is_never_too_low(self) -> None:
        used, known = self.used(), self.known()
        for key in self.db.caps:
            if key[0] in self.store.tokens() and (key in self.told or key[1] != "subscription"):
                for slot in (0, 1):
                    assert known.get(key, (0, 0))[slot] >= used[key, slot], (key, slot)

    def keeps_the_caps(self, proc: Proc) -> None:
        """Of a booking that was just let in: it fits the highest of the caps that may count."""
        used = self.used()
        for key in proc.vertices:
            for slot in (0, 1):
                assert used[key, slot] <= self.db.limit(key, slot, self.told[key][slot])

    def would_keep_the_caps(self) -> None:
        """Whoever asks for one more than these caps leave is refused."""
        used = self.used()
        left = {
            (key, slot): self.db.limit(key, slot, self.told[key][slot]) - used[key, slot]
            for key in self.known().keys() & self.told.keys()
            for slot in (0, 1)
        }
        for proc in ANY:
            if all((key, 0) in left for key in proc.vertices):
                cores, gpus = (min(left[key, slot] for key in proc.vertices) for slot in (0, 1))
                for asked in ((max(cores, 0) + 1, 0), (1, max(gpus, 0) + 1)):
                    if max(asked) < BOUNDLESS // 2:
                        answer = self.store.book(proc.show, proc.alloc, proc.job, *asked)
                        assert isinstance(answer, Refusal)

    def is_exact(self) -> None:
        """What was read is, where nothing was missed, when nothing is on its way."""
        if self.pending() or self.releases:
            return
        used, known = total(self.db.procs), self.known()
        for key in known.keys() & self.told.keys() - self.blurred:
            if key[0] not in self.taken:
                assert known[key] == (used[key, 0], used[key, 1]), key

    def fits_exactly(self) -> None:
        """Asked for what is left and for one more, it answers as the model does."""
        used, known = total(self.db.procs), self.known()
        for proc in ANY:
            if proc.vertices[-1] in known:
                cores, gpus = (
                    max(0, min(self._cap(key, slot) - used[key, slot] for key in proc.vertices))
                    for slot in (0, 1)
                )
                for asked in ((max(cores, 1), 0), (cores + 1, 0), (1, gpus), (1, gpus + 1)):
                    if max(asked) < BOUNDLESS // 2:
                        self._fits_exactly(proc, asked, used)

    def _fits_exactly(self, proc: Proc, asked: Pair, used: Counter[tuple[Key, int]]) -> None:
        answer = self.store.book(proc.show, proc.alloc, proc.job, *asked)
        if isinstance(answer, Ticket):
            self.store.rollback(answer)
            assert self._refusal(proc, asked, used) is None
        else:
            assert answer == self._refusal(proc, asked, used)

    def _refusal(self, proc: Proc, asked: Pair, used: Counter[tuple[Key, int]]) -> Refusal | None:
        for key in proc.vertices:
            _, kind, name = key
            for slot, what in enumerate(("cores", "gpus")):
                # what runs without a subscription is not counted
                has = used[key, slot] if key in self.db.caps else 0
                if has + asked[slot] > self._cap(key, slot):
                    called = name.upper() if key in self.db.caps else ""
                    return Refusal(kind, name, called, what, has, self._cap(key, slot), asked[slot])
        return None

    def _cap(self, key: Key, slot: int) -> int:
        if key in self.db.caps:
            return self.db.limit(key, slot)
        return BOUNDLESS if slot else 0

    # messages

    def tell_release(self, change: Change, proc: Proc, heard: bool) -> None:
        is_taken = heard and self.store.release(released(proc, change.xact))
        if not is_taken or proc.show in self.taken or proc.show not in self.store.tokens():
            self.blurred.update(proc.vertices)

    def tell_limit(self, time: int, change: Change, heard: bool) -> None:
        if not heard:
            return
        show, kind, key = change.key
        cores, gpus = change.caps
        told_show, xact = show if kind == "subscription" else None, change.xact
        is_taken = self.store.change_limit(
            LimitChange(kind, key, told_show, cores, gpus, None if change.foreign else xact)
        )
        if change.foreign or not is_taken:
            return  # it takes a recount
        times = [0 if new is None else time for new in change.caps]
        self.heard[change.key] = _latest(self.heard.get(change.key), times)
        if change.key in self.told and change.key in self.known():
            self.told[change.key] = _latest(self.told[change.key], times)

    def took_over(self, show: str, read: Read, but: Set[Key] = frozenset()) -> None:
        """The store has taken over what was read, but of these."""
        for row in read.counts.rows:
            if (key := (show, row.vertex, row.key)) not in but:
                since = self.told.get(key) if key in self.known() else None
                times = _latest(self.heard.get(key), [read.time] * 2)
                self.told[key] = _latest(since, times)

    # what is so

    def known(self) -> dict[Key, Pair]:
        """What the store counts."""
        return {
            (show, *key): held for show in SHOWS for key, held in self.store.in_use(show).items()
        }

    def used(self) -> Counter[tuple[Key, int]]:
        """What is booked in truth, or may yet be."""
        coming = [b.proc for b in self.bookings if b.committed is None and not self.is_fenced(b)]
        return total([*self.db.procs, *coming])

    def pending(self) -> list[Booking]:
        return [booking for booking in self.bookings if not booking.is_over]

    def is_fenced(self, booking: Booking) -> bool:
        """Whether the server lets it in no more: its lease is another one's."""
        token = booking.ticket.tenure.token
        return booking.xact is None and token != self.tokens[booking.proc.show]


def _latest(one: list[int] | None, other: list[int]) -> list[int]:
    return [max(times) for times in zip(one or other, other, strict=True)]


def released(proc: Proc, xact: int | None) -> Release:
    return Release(proc.show, proc.alloc, proc.folder, proc.job, proc.cores, proc.gpus, xact)
