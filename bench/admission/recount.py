"""A recount of a big store: how long its lock is held, and how long whoever books beside waits."""

from __future__ import annotations

import contextlib
import gc
import threading
import time
from itertools import cycle
from typing import TYPE_CHECKING, Self, cast

from retally.bench.admission.memory import (
    CORE_UNITS,
    ROOM,
    SHOW,
    SUBSCRIPTIONS,
    counts_of,
    seeded,
)
from retally.bench.admission.records import RecountCell
from retally.bench.beside import beside
from retally.bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retally.bench.admission.memory import Book
    from retally.dispatch.admission import Store

_JOBS_EACH = 100  # of a folder
_WARM_BOOKINGS = 1_000
_WARM_SECONDS = 10.0


def measured_recount(vertices: int, number: int, *, booked_beside: bool) -> RecountCell:
    """Count a store of so many vertices anew, round ``number``, with bookings beside it or not.

    Raises BenchError when the recount comes to nothing.
    """
    folders = max(vertices // _JOBS_EACH, 1)
    jobs = max(vertices - folders - SUBSCRIPTIONS, 1)
    store, draws = seeded(folders, jobs, burst=ROOM)
    with Watch() as watch, TimedLock(store, watch) as lock, contextlib.ExitStack() as stack:
        booker = Booker(store, draws, watch)
        if booked_beside:
            stack.enter_context(beside(booker))
            booker.settle()
        _recount(store, watch, folders, jobs)
    return RecountCell(
        vertices=folders + jobs + SUBSCRIPTIONS,
        round=number,
        seconds=watch.watched / 1e9,
        hold_ms=lock.longest / 1e6,
        hold_but_gc_ms=lock.longest_but_gc / 1e6,
        gc_ms=watch.longest_pause / 1e6,
        wait_ms=booker.longest / 1e6 if booked_beside else None,
        bookings=booker.bookings if booked_beside else None,
    )


class Watch:
    """How long something took: what is done in ``on`` blocks is ``watched``; all times in ns.

    A context manager: inside of it, ``paused`` adds up the pauses of Python's garbage collector,
    which hold up every thread; ``longest_pause`` is that of an ``on`` block. ``turns``: how often
    such a block has begun or ended.
    """

    def __init__(self) -> None:
        self.is_on = False
        self.turns = 0
        self.watched = self.paused = self.longest_pause = 0
        self._since = 0

    def __enter__(self) -> Self:
        """Be told of pauses."""
        gc.callbacks.append(self._collected)
        return self

    def __exit__(self, *_: object) -> None:
        """Not any more."""
        gc.callbacks.remove(self._collected)

    @contextlib.contextmanager
    def on(self) -> Iterator[None]:
        """The block is watched."""
        since = time.perf_counter_ns()
        self.turns += 1
        self.is_on = True
        yield
        self.is_on = False
        self.turns += 1
        self.watched += time.perf_counter_ns() - since

    def _collected(self, phase: str, _info: object) -> None:
        now = time.perf_counter_ns()
        if phase == "start":
            self._since = now
            return
        pause = now - self._since
        self.paused += pause
        if self.is_on:
            self.longest_pause = max(self.longest_pause, pause)


class TimedLock:
    """Watches the lock of a store: for how long this thread has held it at most, in ns.

    A context manager. ``longest_but_gc``: without the pauses of Python's garbage collector.
    """

    def __init__(self, store: Store, watch: Watch) -> None:
        self._store = store
        self._watch = watch
        self._lock = store._lock
        self._owner = threading.get_ident()
        self._since = self._paused = 0
        self.longest = self.longest_but_gc = 0

    def __enter__(self) -> Self:
        """Take the place of the lock."""
        self._store._lock = cast("threading.Lock", _Held(self))
        return self

    def __exit__(self, *_: object) -> None:
        """Leave it."""
        self._store._lock = self._lock

    def acquire(self) -> None:
        """Wait for the lock."""
        self._lock.acquire()
        self._paused = self._watch.paused
        self._since = time.perf_counter_ns()

    def release(self) -> None:
        """Let it go."""
        if threading.get_ident() == self._owner:
            held = time.perf_counter_ns() - self._since
            self.longest = max(self.longest, held)
            but_gc = held - (self._watch.paused - self._paused)
            self.longest_but_gc = max(self.longest_but_gc, but_gc)
        self._lock.release()


class _Held:
    """The block of ``with store._lock``."""

    def __init__(self, lock: TimedLock) -> None:
        self._lock = lock

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


class Booker:
    """Books and confirms again and again; while the watch is on, how often, and how slowly.

    ``longest``: from the end of one booking to the end of the next at most, in ns.
    """

    def __init__(self, store: Store, draws: Sequence[tuple[str, str]], watch: Watch) -> None:
        self._book = cast("Book", store.book)
        self._confirm = store.confirm
        self._draws = draws
        self._watch = watch
        self._warm = 0
        self.bookings = 0
        self.longest = 0

    def __call__(self, stop: threading.Event) -> None:
        """Go on until ``stop`` is set."""
        clock, watch = time.perf_counter_ns, self._watch
        before, turns = clock(), watch.turns
        for alloc, job in cycle(self._draws):
            self._confirm(self._book(SHOW, alloc, job, CORE_UNITS, 0))
            after = clock()
            self._warm += 1
            if watch.is_on or watch.turns != turns:
                turns = watch.turns
                self.bookings += 1
                self.longest = max(self.longest, after - before)
            # last, so that none is forgotten which was held up until the end
            if stop.is_set():
                return
            before = after

    def settle(self) -> None:
        """Wait until it is at work. Raises BenchError when it does not begin."""
        until = time.monotonic() + _WARM_SECONDS
        while self._warm < _WARM_BOOKINGS:
            if time.monotonic() > until:
                raise BenchError("nothing is booked beside the recount")
            time.sleep(0.001)


def _recount(store: Store, watch: Watch, folders: int, jobs: int) -> None:
    """Begin and end it; what a database would say in between is made up unwatched."""
    with watch.on():
        recount = store.begin_recount(SHOW)
    found = counts_of(folders, jobs, burst=ROOM, cores=CORE_UNITS)
    with watch.on():
        ended = recount is not None and store.end_recount(recount, found)
    if not ended:
        raise BenchError("the recount came to nothing")
