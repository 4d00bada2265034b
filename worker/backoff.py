"""How long to leave alone what has just failed."""

from __future__ import annotations

import random
import time

#: The longest pause, seconds.
LONGEST = 300.0


class Backoff:
    """Pauses by key: one ``first`` (seconds) at most, then twice as long with every failure.

    Each pause is drawn from the upper half of its length, so that several workers, or shows that
    failed together, do not come back together. In memory: a restart tries everything again.
    """

    def __init__(self, first: float) -> None:
        self._first = first
        self._failures: dict[str, int] = {}
        self._until: dict[str, float] = {}

    def holds(self, key: str) -> bool:
        """Whether the pause of ``key`` is still on."""
        return time.monotonic() < self._until.get(key, 0.0)

    def failed(self, key: str) -> float:
        """Note a failure; answers with the pause in seconds."""
        failures = self._failures.get(key, 0)
        self._failures[key] = failures + 1
        # the exponent is bounded, since 2.0 ** 1024 does not fit a float
        longest = min(self._first * 2.0 ** min(failures, 32), max(LONGEST, self._first))
        pause = random.uniform(longest / 2, longest)  # noqa: S311 - nothing secret
        self._until[key] = time.monotonic() + pause
        return pause

    def succeeded(self, key: str) -> None:
        """Forget the failures of ``key``."""
        self._failures.pop(key, None)
        self._until.pop(key, None)
