"""Whether the worker is alive, and whether it does its work: two questions, two answers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

# Intervals within which a tick that is well has claimed again.
_FEW = 5
# Intervals of silence that no hiccup explains, on top of what one step may take.
_MANY = 10


@dataclass(frozen=True)
class Answer:
    """Yes or no; ``reasons`` say why not."""

    ok: bool
    reasons: tuple[str, ...] = ()


@dataclass
class _Tick:
    """By the clock: when something was last heard of it, and when it last made headway."""

    interval: float
    heard: float
    headway: float | None = None
    running: bool = False


class Health:
    """Hears of every run of every tick, from any thread.

    ``intervals``: seconds between two runs, by tick. ``step``: seconds that a worker which is well
    may spend on one show, or waiting for the database. ``clock`` counts seconds, like
    time.monotonic, which does not jump when the time of day is set.
    """

    def __init__(
        self,
        intervals: Mapping[str, float],
        *,
        step: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._step = step
        self._clock = clock
        self._ticks: dict[str, _Tick] = {}
        self._database: bool | None = None
        self._lock = threading.Lock()
        self.set_intervals(intervals)

    def set_intervals(self, intervals: Mapping[str, float], step: float | None = None) -> None:
        """From now on these are the ticks; those that stay keep what is known of them.

        ``step`` None: as before.
        """
        with self._lock:
            self._step = self._step if step is None else step
            now = self._clock()
            known, self._ticks = self._ticks, {}
            for name, interval in intervals.items():
                tick = self._ticks[name] = known.get(name, _Tick(interval, now))
                # a tick that was slower may have been silent for longer than it may be now
                tick.interval, tick.heard = interval, now

    def begun(self, tick: str) -> None:
        """A run of the tick begins, be it one that finds nothing to do."""
        self._hear(tick, running=True, headway=False)

    def moved(self, tick: str) -> None:
        """The run goes on: a claim succeeded, or one more show is over, for better or worse."""
        self._hear(tick, running=True, headway=True)

    def ended(self, tick: str, ok: bool) -> None:
        """The run is over; ``ok``: its claims succeeded, whatever became of single shows."""
        self._hear(tick, running=False, headway=ok)

    def database(self, up: bool) -> None:
        """Whether the database answers."""
        with self._lock:
            self._database = up

    def alive(self) -> Answer:
        """No: a tick hangs, or runs no more, and only a restart helps.

        A database that is lost does not matter here: a restart would not bring it back.
        """
        with self._lock:
            now = self._clock()
            return _answer(
                f"the {name} tick {'hangs' if tick.running else 'has not run'} "
                f"for {now - tick.heard:.0f} s"
                for name, tick in self._ticks.items()
                if now - tick.heard > self._step + _MANY * tick.interval
            )

    def ready(self) -> Answer:
        """Yes: the database answers, and each tick has claimed within a few intervals."""
        with self._lock:
            now = self._clock()
            reasons = [_unready(name, tick, now) for name, tick in self._ticks.items()]
            if not self._database:
                state = "not been reached yet" if self._database is None else "been lost"
                reasons.insert(0, f"the database has {state}")
            return _answer(filter(None, reasons))

    def _hear(self, name: str, *, running: bool, headway: bool) -> None:
        with self._lock:
            tick = self._ticks.get(name)
            if tick is None:
                return  # the last run of a tick that a reload has ended
            tick.heard, tick.running = self._clock(), running
            if headway:
                tick.headway = tick.heard


def _unready(name: str, tick: _Tick, now: float) -> str:
    if tick.headway is None:
        return f"the {name} tick has not claimed anything yet"
    if now - tick.headway > _FEW * tick.interval:
        return f"the {name} tick has not claimed anything for {now - tick.headway:.0f} s"
    return ""


def _answer(reasons: Iterable[str]) -> Answer:
    given = tuple(reasons)
    return Answer(not given, given)
