"""Counts the passes of a soak against those that were due.

Due times lie on a grid, the multiples of a tick's interval. Between two moments in the middle of
the grid a show is due once for each grid point in between; retally.pass counts its passes. Where
the database was away (from its stop to the first pass after its start) a pass may be lost or made
up for, so ``ratio`` is the distance from both ends of that range.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import psycopg


@dataclass(frozen=True)
class Claim:
    """What has to hold, whether it does, and what was seen."""

    name: str
    holds: bool
    seen: str


@dataclass
class Count:
    """The passes of one tick over each show, by total, at a moment in the middle of the grid."""

    point: int
    passes: dict[tuple[str, str], int]


class PassCounter:
    """Counts the passes of one tick in a window, and the grid points at which nothing ran."""

    def __init__(self, tick: str, interval: float) -> None:
        self.tick = tick
        self.interval = interval
        self.first: Count | None = None
        self.last: Count | None = None
        self.away: set[int] = set()

    def in_the_middle(self) -> bool:
        return 0.4 <= time.time() / self.interval % 1 <= 0.6

    def look(self, conn: psycopg.Connection) -> Count:
        query = "SELECT scope, total, passes FROM retally.pass WHERE tick = %s"
        rows = conn.execute(query, (self.tick,)).fetchall()
        return Count(int(time.time() // self.interval), {(r[0], r[1]): r[2] for r in rows})

    def was_away(self, since: float, until: float) -> None:
        """The database was away; Unix times."""
        first, last = int(since // self.interval) + 1, int(until // self.interval)
        self.away |= set(range(first, last + 1))

    @property
    def due(self) -> int:
        assert self.first
        assert self.last
        return self.last.point - self.first.point

    @property
    def lost(self) -> int:
        assert self.first
        assert self.last
        return len([p for p in self.away if self.first.point < p <= self.last.point])

    def counts(self) -> list[int]:
        """Passes over each total of each show in the window."""
        assert self.first
        assert self.last
        return [n - self.first.passes.get(key, 0) for key, n in self.last.passes.items()]

    def ratio(self, passes: int) -> float:
        """1 for as many as were due, with or without those lost while the database was away."""
        if passes < self.due - self.lost:
            return passes / max(1, self.due - self.lost)
        return max(1.0, passes / max(1, self.due))

    def claim(self) -> Claim:
        name = f"passes per show and {self.interval:g} s ({self.tick}): 1 ± 5 %"
        counts = self.counts() if self.first and self.last else []
        if not counts or not self.due:
            return Claim(name, False, "no pass was counted")
        ratios = sorted(self.ratio(n) for n in counts)
        mean = sum(ratios) / len(ratios)
        seen = (
            f"{mean:.3f} in the mean, {ratios[0]:.3f} to {ratios[-1]:.3f}; {self.due} due,"
            f" {self.lost} of them while the database was away; {min(counts)} to {max(counts)} seen"
        )
        return Claim(name, ratios[0] >= 0.95 and ratios[-1] <= 1.05, seen)
