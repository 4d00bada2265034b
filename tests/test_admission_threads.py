"""32 threads at one burst: exactly as many bookings as fit, while the show is counted anew."""

from __future__ import annotations

import random
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from test_admission_store import ALLOC, JOB, SHOW, counts, in_use, rows, served

from retally.dispatch.admission.tickets import Ticket

if TYPE_CHECKING:
    from retally.procedures.admission import Counts

THREADS = 32
CORES = 100
FIT = 500
BURST = FIT * CORES + CORES // 2


class Race:
    """A store, and what the threads have committed, as the database would have it."""

    def __init__(self) -> None:
        self.store = served(rows(BURST))
        self.start = threading.Barrier(THREADS + 1)
        self.over = threading.Event()
        self.procs = self.most = 0
        self._xact = 100
        self._lock = threading.Lock()

    def commit(self) -> int:
        """A proc more; its transaction."""
        with self._lock:
            self.procs += 1
            self.most = max(self.most, self.procs)
            self._xact += 1
            return self._xact

    def read(self) -> Counts:
        with self._lock:
            return counts(rows(BURST, booked=(CORES * self.procs, 0)), self._xact + 1)

    def run(self, seed: int) -> None:
        """Book until nothing fits; who is refused tries again, as a rollback may make room."""
        draw = random.Random(seed)
        self.start.wait(60)
        refused = 0
        while refused < 20:
            ticket = self.store.book(SHOW, ALLOC, JOB, CORES, 0)
            if not isinstance(ticket, Ticket):
                refused += 1
            elif draw.random() < 0.3:
                self.store.rollback(ticket)
            else:
                xact = self.commit()
                self.store.confirm(ticket, draw.choice((xact, None)))

    def fill(self) -> None:
        """Book what still fits."""
        while isinstance(ticket := self.store.book(SHOW, ALLOC, JOB, CORES, 0), Ticket):
            self.store.confirm(ticket, self.commit())

    def recount(self) -> None:
        begun = self.store.begin_recount(SHOW)
        assert begun
        assert self.store.end_recount(begun, self.read())

    def recount_all_the_while(self) -> int:
        self.start.wait(60)
        done = 0
        while not self.over.is_set():
            self.recount()
            done += 1
        return done


def test_32_threads_at_one_burst_book_exactly_as_many_as_fit() -> None:
    race = Race()
    with ThreadPoolExecutor(THREADS + 1) as pool:
        recounting = pool.submit(race.recount_all_the_while)
        for each in [pool.submit(race.run, seed) for seed in range(THREADS)]:
            each.result(120)
        race.over.set()
        assert recounting.result(60) > 0
    # what a recount has counted high for a moment, and what rollbacks have left
    race.recount()
    race.fill()
    assert (race.procs, race.most) == (FIT, FIT)
    assert in_use(race.store) == {(FIT * CORES, 0)}
