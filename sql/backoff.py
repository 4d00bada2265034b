"""How long to leave alone what has just failed."""

from __future__ import annotations

import random
import time

#: The longest pause, seconds.
LONGEST = 300.0


def pause_after(failures: int, first: float, longest: float = LONGEST) -> float:
    """Seconds to pause after so many failures running: ``first`` at most, then twice as long each.

    Never longer than ``longest``, or ``first`` where that is more.

    Drawn from the upper half of its length, so that several workers, or shows that failed
    together, do not come back together.
    """
    # the exponent is bounded, since 2.0 ** 1024 does not fit a float
    pause = min(first * 2.0 ** min(failures - 1, 32), max(longest, first))
    return random.uniform(pause / 2, pause)  # noqa: S311 - nothing secret


class Backoff:
    """The pauses of one thing that fails and recovers, in memory: a restart tries it again."""

    def __init__(self, first: float, longest: float = LONGEST) -> None:
        self._first = first
        self._longest = longest
        self._failures = 0
        self._until = 0.0

    def holds(self) -> bool:
        """Whether the pause is still on."""
        return time.monotonic() < self._until

    def failed(self) -> float:
        """Note a failure; answers with the pause in seconds."""
        self._failures += 1
        pause = pause_after(self._failures, self._first, self._longest)
        self._until = time.monotonic() + pause
        return pause

    def succeeded(self) -> None:
        """Forget the failures."""
        self._failures = 0
        self._until = 0.0
