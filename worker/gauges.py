"""What is made up when somebody scrapes: the gauges of shows, and the use of the pool."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from retally.procedures.records import WRITING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from retally.procedures import Pass

# Intervals after which what a pass found is not known any more: another worker may serve the show.
_STALE_AFTER = 3
# A show that failed is left alone for five minutes at most: until then its failure is the news.
_FAILURE_SECONDS = 600.0

_POOL_GAUGES = {
    "pool_max": ("connections_max", "Connections that the pool may hold."),
    "pool_size": ("connections", "Connections that the pool holds."),
    "pool_available": ("connections_idle", "Connections of the pool that nobody uses."),
    "requests_waiting": ("requests_waiting", "Threads that wait for a connection."),
}
# the last one: what one unit of it is, in base units
_POOL_COUNTERS = {
    "requests_num": ("requests", "Connections asked for.", 1),
    "requests_queued": ("requests_queued", "Connections that had to be waited for.", 1),
    "requests_errors": ("request_errors", "Connections not had in time.", 1),
    "requests_wait_ms": ("wait_seconds", "Time spent waiting for a connection.", 0.001),
    "usage_ms": ("usage_seconds", "Time for which connections were in use.", 0.001),
    "connections_num": ("connections_opened", "Attempts to connect to the database.", 1),
    "connections_errors": ("connection_errors", "Attempts to connect that failed.", 1),
    "connections_lost": ("connections_lost", "Connections that were found broken.", 1),
}


@dataclass
class _Tried:
    """When this worker last tried a show, and last managed it, Unix time; stale at ``until``."""

    until: float
    attempt: float
    success: float | None = None


@dataclass(frozen=True)
class _Found:
    """What the latest pass over one total found, ``rows_left`` after it; stale at ``until``."""

    until: float
    tick: str
    found: Pass
    rows_left: int


def _left(known: _Found, until: float) -> _Found:
    """What stands of a finding once others have been folded."""
    found = replace(known.found, rows_adrift=known.rows_left)
    if not known.rows_left:
        found = replace(found, core_units=0, gpus=0)
    return replace(known, found=found, until=max(known.until, until))


class ShowGauges(Collector):
    """The gauges of shows, made up when somebody scrapes, without what is stale by then."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._intervals: Mapping[str, float] = {}
        self._tried: dict[tuple[str, str], _Tried] = {}
        self._found: dict[tuple[str, str], _Found] = {}
        self._lock = threading.Lock()

    def set_intervals(self, intervals: Mapping[str, float]) -> None:
        """From now on these are the ticks; the shows of others are stale."""
        with self._lock:
            self._intervals = dict(intervals)

    def attempted(self, tick: str, show: str, *, failed: bool) -> None:
        """Tried without success; after a failure the next attempt may be long in coming."""
        with self._lock:
            self._try(tick, show, _FAILURE_SECONDS if failed else 0.0)

    def served(self, tick: str, show: str, action: str, passes: Sequence[Pass]) -> None:
        """Tried with success; ``passes``: what it found and did, by total."""
        with self._lock:
            tried = self._try(tick, show, 0.0)
            tried.success = tried.attempt
            self._find(tick, show, action, passes, tried.until)

    def refused(self, tick: str, show: str, passes: Sequence[Pass]) -> None:
        """Tried, and nothing may be written; ``passes``: what it found, by total."""
        with self._lock:
            tried = self._try(tick, show, _FAILURE_SECONDS)
            self._find(tick, show, "refused", passes, tried.until)

    def collect(self) -> Iterator[Metric]:
        """What is not stale; forgets the rest."""
        with self._lock:
            now = self._clock()
            self._tried = {
                key: each
                for key, each in self._tried.items()
                if each.until > now and key[0] in self._intervals
            }
            self._found = {
                key: each
                for key, each in self._found.items()
                if each.until > now and each.tick in self._intervals
            }
            tried = [(key, each.attempt, each.success) for key, each in self._tried.items()]
            found = list(self._found.items())
        yield _gauge(
            "last_attempt_timestamp_seconds",
            "When a pass last took the show on, whatever became of it, Unix time.",
            ("tick", "show"),
            ((key, attempt) for key, attempt, _ in tried),
        )
        yield _gauge(
            "last_success_timestamp_seconds",
            "When a pass over the show last succeeded, Unix time.",
            ("tick", "show"),
            ((key, success) for key, _, success in tried if success is not None),
        )
        for name, text, value in _FOUND:
            values = ((key, value(each)) for key, each in found)
            yield _gauge(name, text, ("show", "total"), values)

    def _find(
        self, tick: str, show: str, action: str, passes: Sequence[Pass], until: float
    ) -> None:
        for each in passes:
            known = self._found.get((show, each.total))
            if action == "folded" and not each.rows_failed:
                # it has looked for nothing: what was left before stands
                if known:
                    self._found[show, each.total] = _left(known, until)
                continue
            # who writes leaves what was busy, or cannot be made exact; others leave all of it
            busy = each.rows_deferred + each.rows_failed
            left = busy if action in WRITING else each.rows_adrift
            self._found[show, each.total] = _Found(until, tick, each, left)

    def _try(self, tick: str, show: str, at_least: float) -> _Tried:
        lasts = max(_STALE_AFTER * self._intervals.get(tick, 0.0), at_least)
        tried = self._tried.setdefault((tick, show), _Tried(0.0, 0.0))
        tried.until = self._clock() + lasts
        tried.attempt = time.time()
        return tried


_FOUND: tuple[tuple[str, str, Callable[[_Found], float]], ...] = (
    ("drift_rows", "Rows that the latest pass found adrift.", lambda f: f.found.rows_adrift),
    (
        "drift_core_units",
        "Drift that the latest pass found, as an absolute sum; 100 are a core.",
        lambda f: f.found.core_units,
    ),
    ("drift_gpus", "Drift that the latest pass found, as an absolute sum.", lambda f: f.found.gpus),
    (
        "rows_left",
        "Rows still adrift after the latest pass: watched only, busy, or impossible.",
        lambda f: f.rows_left,
    ),
    (
        "rows_failed",
        "Rows that the latest pass could not make exact.",
        lambda f: f.found.rows_failed,
    ),
)


class PoolUse(Collector):
    """The use of the connection pool, as it is when somebody scrapes."""

    def __init__(self) -> None:
        self.stats: Callable[[], Mapping[str, int]] | None = None

    def collect(self) -> Iterator[Metric]:
        """What the pool says of itself; no samples where there is none yet."""
        stats = None if self.stats is None else self.stats()
        for key, (name, text) in _POOL_GAUGES.items():
            gauge = GaugeMetricFamily(f"retally_pool_{name}", text)
            if stats is not None:
                gauge.add_metric((), stats.get(key, 0))
            yield gauge
        for key, (name, text, unit) in _POOL_COUNTERS.items():
            counter = CounterMetricFamily(f"retally_pool_{name}", text)
            if stats is not None:
                counter.add_metric((), stats.get(key, 0) * unit)
            yield counter


def _gauge(
    name: str,
    text: str,
    labels: Sequence[str],
    values: Iterable[tuple[tuple[str, str], float]],
) -> Metric:
    family = GaugeMetricFamily(f"retally_{name}", text, labels=labels)
    for key, value in values:
        family.add_metric(key, value)
    return family
