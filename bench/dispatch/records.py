"""What is measured and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.bench.records import Bar, Place


class Mode(StrEnum):
    """How a proc is booked or released."""

    FLAG_ON = "flag on"
    FLAG_OFF = "flag off"
    BARE = "bare statements"
    INLINE = "inline, statement by statement"


class Action(StrEnum):
    """What a cell does."""

    BOOK = "book"
    RELEASE = "release"


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One kind of cell: ``batch`` procs a call, by ``clients`` connections at a time.

    ``recompute``: the show is recomputed in a loop beside it. ``notify``: releases send
    acct_release, and somebody listens. ``prepared``: the statements are, on the server.
    ``own_hosts``: each client draws from a part of the hosts of its own, not from all of them.
    ``journaled``: the show is, so that each booking leaves an entry in the journal.
    """

    mode: Mode
    clients: int
    action: Action = Action.BOOK
    batch: int = 1
    recompute: bool = False
    notify: bool = False
    prepared: bool = True
    own_hosts: bool = False
    journaled: bool = False


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell measured.

    ``procs`` were booked or released in ``seconds``, with a latency per call of ``p50_ms`` and
    ``p99_ms``. ``deadlocks``: as the server counted them in this database; ``errors``: all that
    the clients met, as "SQLSTATE times n". ``recomputes``: calls that ended beside it.
    ``rows_adrift``: rows of totals that were wrong afterwards, of a journaled show once its journal
    is folded, None of other managed ones; ``slots_adrift``: idle amounts of hosts that were.
    """

    spec: Spec
    round: int
    procs: int
    seconds: float
    p50_ms: float
    p99_ms: float
    deadlocks: int
    errors: tuple[str, ...]
    recomputes: int
    rows_adrift: int | None
    slots_adrift: int

    @property
    def per_second(self) -> float:
        """Procs a second."""
        return self.procs / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True, kw_only=True)
class Line:
    """All cells of one kind: medians over the rounds, and sums of what went wrong.

    ``flag_on_times``: how many times its throughput the flag has with as many clients, the median
    of the ratios within each round; None where there is nothing to compare.
    """

    spec: Spec
    per_second: float
    p50_ms: float
    p99_ms: float
    deadlocks: int
    errors: int
    flag_on_times: float | None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run. ``seconds``: measured time of each cell."""

    clients: tuple[int, ...] = (1, 4, 16, 64, 256)
    seconds: float = 5.0
    rounds: int = 3
    hosts: int = 2000
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
    cells: tuple[Cell, ...]
    lines: tuple[Line, ...]
    bars: tuple[Bar, ...]
