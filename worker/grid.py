"""When a tick runs: at the instants at which the database says that its shows are due."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from math import floor

from apscheduler.triggers.base import BaseTrigger


class GridTrigger(BaseTrigger):  # type: ignore[misc]
    """Fires at multiples of the interval, by the database's clock as far as it is known.

    So all workers come to a tick at the same time, and share it out. ``seconds``: the interval.
    """

    def __init__(self, seconds: float) -> None:
        self.interval = timedelta(seconds=seconds)
        self._seconds = seconds
        self._phase = 0.0

    def meet(self, next_in: float) -> None:
        """The database says that the next instant is in so many seconds."""
        self._phase = (time.time() + next_in) % self._seconds

    def get_next_fire_time(self, _previous: datetime | None, now: datetime) -> datetime:
        """The first instant after ``now`` that is not just about to come: APScheduler's method."""
        at = now.timestamp()
        # a timer that fired a moment early has done this instant already
        soon = self._seconds / 10
        count = floor((at + soon - self._phase) / self._seconds) + 1
        return datetime.fromtimestamp(self._phase + count * self._seconds, UTC)
