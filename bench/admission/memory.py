"""The store alone, without a database: what it does in a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, cast

from retally.bench.admission.records import Call, StoreCell
from retally.bench.errors import BenchError
from retally.dispatch.admission import Store
from retally.procedures.admission import Counts, Snapshot, VertexRow

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retally.dispatch.admission.tickets import Ticket

    Book = Callable[[str, str, str, int, int], Ticket]

SHOW = "show"
CORE_UNITS = 100
ROOM = 1 << 50  # core units: more than any run books
SUBSCRIPTIONS, _FOLDERS, _JOBS = 10, 20, 2_000


def measured_calls(call: Call, seconds: float, number: int) -> StoreCell:
    """How many of these calls one thread makes, round ``number``; every job has its turn.

    Raises BenchError where the store has not done what was asked of it.
    """
    store, draws = seeded(_FOLDERS, _JOBS, burst=0 if call is Call.REFUSAL else ROOM)
    turn = _refused if call is Call.REFUSAL else _paired
    gpus = 1 if call is Call.GPU_PAIR else 0
    turn(store, draws, gpus)
    turns, clock = 0, time.perf_counter
    start = now = clock()
    while now - start < seconds:
        turn(store, draws, gpus)
        turns += 1
        now = clock()
    counts = store.counts()
    done = sum(counts.refused.values()) if call is Call.REFUSAL else counts.booked
    if done != (turns + 1) * len(draws):
        raise BenchError("the store has let in what it should refuse, or the other way round")
    return StoreCell(call=call, round=number, calls=turns * len(draws), seconds=now - start)


def _paired(store: Store, draws: Sequence[tuple[str, str]], gpus: int) -> None:
    # it has room: what is no ticket would fail in confirm(), and a look at it takes time
    book, confirm = cast("Book", store.book), store.confirm
    for alloc, job in draws:
        confirm(book(SHOW, alloc, job, CORE_UNITS, gpus))


def _refused(store: Store, draws: Sequence[tuple[str, str]], gpus: int) -> None:
    book = store.book
    for alloc, job in draws:
        book(SHOW, alloc, job, CORE_UNITS, gpus)


def seeded(folders: int, jobs: int, *, burst: int) -> tuple[Store, list[tuple[str, str]]]:
    """A store that serves a show, and what to book in turn: allocation and job."""
    store = Store()
    store.seed(SHOW, 1, counts_of(folders, jobs, burst=burst, cores=0))
    return store, [(f"alloc{nr % SUBSCRIPTIONS}", f"job{nr}") for nr in range(jobs)]


def counts_of(folders: int, jobs: int, *, burst: int, cores: int) -> Counts:
    """What a database would say of such a show, each vertex of which has ``cores`` booked."""

    def row(vertex: str, nr: int, most: int, folder: str = "") -> VertexRow:
        name = {"subscription": "alloc"}.get(vertex, vertex) + str(nr)
        return VertexRow(vertex, name, name, folder, most, -1, cores, 0)

    rows = [row("subscription", nr, burst) for nr in range(SUBSCRIPTIONS)]
    rows += [row("folder", nr, ROOM) for nr in range(folders)]
    rows += [row("job", nr, ROOM, f"folder{nr % folders}") for nr in range(jobs)]
    return Counts(Snapshot(1 + cores, frozenset()), tuple(rows))
