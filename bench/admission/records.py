"""What is measured and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.bench.dispatch.records import Action
    from retally.bench.records import Bar, Place


class Part(StrEnum):
    """What can be measured by itself."""

    STORE = "store"
    RECOUNT = "recount"
    BOOK = "book"
    RELEASE = "release"
    CAPS = "caps"


#: The parts that need a server.
SERVED = frozenset({Part.BOOK, Part.RELEASE, Part.CAPS})


class Call(StrEnum):
    """What is asked of the store alone."""

    PAIR = "Store.book and confirm"
    GPU_PAIR = "Store.book and confirm, with GPUs"
    REFUSAL = "Store.book, refused"


@dataclass(frozen=True, kw_only=True)
class StoreCell:
    """So many calls, of ``confirm`` as well where it is part of them, in one thread."""

    call: Call
    round: int
    calls: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Calls a second."""
        return self.calls / self.seconds


@dataclass(frozen=True, kw_only=True)
class RecountCell:
    """A recount of a store with ``vertices``, begun and ended in ``seconds``.

    ``hold_ms``: the longest time that it held the store's lock, ``hold_but_gc_ms`` without the
    pauses of Python's garbage collector, of which ``gc_ms`` was the longest, whoever had the lock.
    ``wait_ms``: how long a thread that books beside it had to wait for the end of its next booking
    at most, ``bookings``: how many ended; None where none did.
    """

    vertices: int
    round: int
    seconds: float
    hold_ms: float
    hold_but_gc_ms: float
    gc_ms: float
    wait_ms: float | None
    bookings: int | None


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One kind of cell on a server: ``batch`` procs a call, by ``clients`` threads at a time.

    ``admission``: their dispatchers have one. ``notify``: releases are told.
    """

    action: Action
    clients: int
    batch: int = 1
    admission: bool = True
    notify: bool = True


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell on a server measured.

    ``procs`` were booked or released in ``seconds``, with a latency per call of ``p50_ms`` and
    ``p99_ms``. ``deadlocks``: as the server counted them in this database; ``errors``: all that
    the clients met, as "SQLSTATE times n". ``slots_adrift``: idle amounts of hosts that were wrong
    afterwards.
    """

    spec: Spec
    round: int
    procs: int
    seconds: float
    p50_ms: float
    p99_ms: float
    deadlocks: int
    errors: tuple[str, ...]
    slots_adrift: int

    @property
    def per_second(self) -> float:
        """Procs a second."""
        return self.procs / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class CapsCell:
    """What became of shows that ran into their caps all the time.

    ``bookings`` of the ``asked`` were confirmed, ``per_second`` while all clients were at work;
    ``refusals``: bookings that a cap kept out. ``looks`` at all caps, each of one snapshot, have
    found ``over_bookings``: caps that were passed, ``examples`` of them in words. The others as in
    ``Cell``.
    """

    asked: int
    clients: int
    shows: int
    bookings: int
    per_second: float
    refusals: int
    looks: int
    over_bookings: int
    examples: tuple[str, ...]
    deadlocks: int
    errors: tuple[str, ...]
    slots_adrift: int


@dataclass(frozen=True, kw_only=True)
class Cells:
    """All that was measured, every round of it."""

    store: tuple[StoreCell, ...] = ()
    recounts: tuple[RecountCell, ...] = ()
    served: tuple[Cell, ...] = ()
    caps: tuple[CapsCell, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Line:
    """All cells of one kind: medians over the rounds, of holds, pauses and waits the longest.

    ``times``: how many times the throughput of the same without admission, or without
    notifications, it has, the median of the ratios within each round. ``errors``, ``deadlocks``,
    ``looks`` and so on are sums. None: no figure of this kind.
    """

    part: Part
    what: str
    clients: int | None = None
    per_second: float | None = None
    times: float | None = None
    p50_ms: float | None = None
    p99_ms: float | None = None
    seconds: float | None = None
    hold_ms: float | None = None
    hold_but_gc_ms: float | None = None
    gc_ms: float | None = None
    wait_ms: float | None = None
    bookings: int | None = None
    refusals: int | None = None
    looks: int | None = None
    over_bookings: int | None = None
    deadlocks: int | None = None
    errors: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. ``seconds``: measured time of each cell; ``bookings``: of the part caps."""

    parts: tuple[Part, ...] = tuple(Part)
    clients: tuple[int, ...] = (1, 16, 64)
    seconds: float = 3.0
    rounds: int = 3
    hosts: int = 2000
    vertices: int = 100_000
    bookings: int = 100_000
    seed: int = 1

    @property
    def ramp(self) -> float:
        """Seconds that the clients run before they are measured."""
        return self.seconds / 10


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole run."""

    plan: Plan
    place: Place
    cells: Cells
    lines: tuple[Line, ...]
    bars: tuple[Bar, ...]
