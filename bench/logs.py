"""What the clients of a cell did, and the figures that come from it."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


@dataclass(frozen=True)
class Window:
    """When the clients run: from now until ``end``, measured from ``start``; perf_counter_ns."""

    start: int
    end: int

    @property
    def seconds(self) -> float:
        """How long is measured."""
        return (self.end - self.start) / 1e9


@dataclass
class Log:
    """What a client did: when each call ended, how long it took (both ns), with how many procs.

    ``errors``: calls that failed, by SQLSTATE or kind. ``refused``: bookings that were refused, by
    kind, where that is no failure. ``ran_out``: when its work ended before the window did.
    """

    ends: array[int] = field(default_factory=lambda: array("q"))
    took: array[int] = field(default_factory=lambda: array("q"))
    procs: array[int] = field(default_factory=lambda: array("q"))
    errors: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    ran_out: int | None = None


def procs_within(window: Window, logs: Sequence[Log]) -> int:
    """The procs of the calls that ended in the window."""
    return sum(procs for log in logs for _, procs in _within(window, log, log.procs))


def latencies(window: Window, logs: Sequence[Log]) -> list[int]:
    """How long the calls took that ended in the window, in ns, the shortest first."""
    return sorted(took for log in logs for _, took in _within(window, log, log.took))


def percentile(took: Sequence[int], share: float) -> float:
    """Of ``latencies``, in ms, by the nearest rank; 0 when nothing ended in the window."""
    return took[min(int(len(took) * share), len(took) - 1)] / 1e6 if took else 0.0


def spelled(errors: Counter[str]) -> tuple[str, ...]:
    """Each as "SQLSTATE times n"."""
    return tuple(f"{state} times {count}" for state, count in sorted(errors.items()))


def how_many(errors: Sequence[str]) -> int:
    """The errors that ``spelled`` has told of."""
    return sum(int(error.rpartition(" ")[2]) for error in errors)


def _within(window: Window, log: Log, values: array[int]) -> Iterator[tuple[int, int]]:
    return (
        (end, value)
        for end, value in zip(log.ends, values, strict=True)
        if window.start <= end < window.end
    )
