"""What is measured and what came out of it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.bench.records import Bar, Place


class Method(StrEnum):
    """How the totals are rebuilt; see ``methods`` for what each one sends."""

    ALL = "retally, all shows"
    BY_SHOW = "retally, show by show"
    ONE = "retally, one show"
    JOURNAL = "retally, journal"
    ROWS = "row by row"
    TABLES = "one UPDATE per table"
    VIEWS = "materialized views"
    VIEWS_BESIDE = "materialized views, refreshed concurrently"
    LIMIT = "the limit"
    LIMIT_BY_LAYER = "the limit by layer"


#: The methods whose totals are promised to be right.
RETALLY = frozenset({Method.ALL, Method.BY_SHOW, Method.ONE, Method.JOURNAL})
#: Those that only read the procs: what no method can be faster than.
LIMITS = frozenset({Method.LIMIT, Method.LIMIT_BY_LAYER})
#: Those that keep views instead of the farm's totals.
IN_VIEWS = frozenset({Method.VIEWS, Method.VIEWS_BESIDE})


class Scenario(StrEnum):
    """What has happened since the last pass."""

    QUIET = "quiet"
    BUSY_1 = "busy 1 %"
    BUSY_10 = "busy 10 %"
    COLD = "cold"
    CHANGED_1000 = "1,000 procs changed"

    def changed(self, procs: int) -> int:
        """How many of so many procs have changed, half of them released and half booked."""
        share = {Scenario.BUSY_1: 0.01, Scenario.BUSY_10: 0.1}.get(self, 0.0)
        return min(1000, procs) if self is Scenario.CHANGED_1000 else round(procs * share)


@dataclass(frozen=True, kw_only=True)
class Spec:
    """One kind of cell: this method on a farm of ``procs``, after what the scenario says."""

    procs: int
    scenario: Scenario
    method: Method


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What one cell measured; each figure is that of one call.

    ``seconds``: around the call, in the client: the median when it was called several times
    (``calls``). ``wal_bytes``: of everything that was written. ``rows_written`` and ``dead_rows``:
    of the five totals, or of the views that stand for them. ``buffers``: pages of 8 kB that were
    looked at, in memory or not. ``rows_wrong``: rows of totals that are wrong afterwards, None
    where none are kept. ``slots_adrift``: as retally.drift() counts, None for other methods.
    """

    spec: Spec
    round: int
    seconds: float
    calls: int
    wal_bytes: int
    rows_written: int
    dead_rows: int
    buffers: int
    rows_wrong: int | None
    slots_adrift: int | None


@dataclass(frozen=True, kw_only=True)
class Line:
    """All cells of one kind: medians over the rounds, and the most rows that were left wrong.

    ``limit_times``: how many times as long as the limit it took, and ``retally_times`` as
    "retally, all shows": the median of the ratios within each round, None where that one was not
    measured.
    """

    spec: Spec
    seconds: float
    limit_times: float | None
    retally_times: float | None
    wal_bytes: int
    rows_written: int
    dead_rows: int
    buffers: int
    rows_wrong: int | None


@dataclass(frozen=True, kw_only=True)
class Size:
    """A farm that was measured; ``layers`` are all of them, ``one_show`` the one show's procs."""

    procs: int
    hosts: int
    shows: int
    jobs: int
    finished_jobs: int
    layers: int
    one_show: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: every scenario on a farm of each size, ``procs``.

    ``methods`` None: all that end soon enough on a farm of that size. ``parallel``: how many
    workers a plan may have beside the session's own process.
    """

    procs: tuple[int, ...] = (200_000,)
    scenarios: tuple[Scenario, ...] = tuple(Scenario)
    methods: tuple[Method, ...] | None = None
    parallel: int = 0
    rounds: int = 3
    seed: int = 1


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole run."""

    plan: Plan
    place: Place
    sizes: tuple[Size, ...]
    cells: tuple[Cell, ...]
    lines: tuple[Line, ...]
    bars: tuple[Bar, ...]
