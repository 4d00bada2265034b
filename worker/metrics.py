"""What Prometheus is told of this worker: with gauges.py the one place that knows names.

The methods are named for what happens; any thread may call them. Amounts are in the slot's stored
unit, core units being 1/100 core. No label holds a key: series are bounded by shows and totals.
"""

from __future__ import annotations

import threading
import time
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector

from retally.worker.gauges import PoolUse, ShowGauges

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from retally.procedures import Pass

#: Faults that are exported from the start, as 0: `increase()` does not see a series that begins
#: with 1. Others may be told as well.
FAULTS = (
    "clock_stepped",
    "connection_cut",
    "connection_lost",
    "database_lost",
    "disk_full",
    "journal_drift",
    "lock_timeout",
    "statement_timeout",
)

#: What becomes of the passes of a tick; each is one of them.
PASS_OUTCOMES = ("on_time", "late", "failed", "deferred")

_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


class Metrics:
    """The metrics of one worker, in a ``registry`` of their own.

    ``intervals``: seconds between two passes, by tick. A show's gauges vanish when this worker has
    not served it for three of them, so that shows may move between workers; counters stay.
    ``clock`` counts seconds, like time.monotonic.
    """

    def __init__(
        self, intervals: Mapping[str, float], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # auto_describe: two collectors of one name are refused, and ?name[]= finds ours
        self.registry = _Registry(auto_describe=True)
        self._counters = _Counters(self.registry)
        self._ticks = _Ticks(self.registry)
        self._shows = ShowGauges(clock)
        self._pool = PoolUse()
        self.registry.register(self._shows)
        self.registry.register(self._pool)
        ProcessCollector(registry=self.registry)
        Info("retally_build", "The worker's version.", registry=self.registry).info(
            {"version": version("retally")}
        )
        self._database_up = Gauge(
            "retally_database_up", "1: the database answers.", registry=self.registry
        )
        self._reload_ok = Gauge(
            "retally_last_reload_successful",
            "1: the settings were taken over when they were last read.",
            registry=self.registry,
        )
        self._reload_ok.set(1)
        Gauge(
            "retally_worker_start_time_seconds",
            "When the worker started, Unix time.",
            registry=self.registry,
        ).set_to_current_time()
        for kind in FAULTS:
            self._counters.faults.labels(kind)
        self.set_intervals(intervals)

    def set_intervals(self, intervals: Mapping[str, float]) -> None:
        """From now on these are the ticks; what is no tick any more loses its gauges."""
        self._shows.set_intervals(intervals)
        self._ticks.set_intervals(intervals)
        for tick in intervals:
            for outcome in PASS_OUTCOMES:
                self._counters.passes.labels(tick, outcome)

    def claimed(self, tick: str, due: int, claimed: int) -> None:
        """``due`` shows were due, ``claimed`` of them are ours; a pass may claim several times."""
        self._ticks.claimed(tick, due, claimed)

    def served(
        self, tick: str, show: str, action: str, passes: Sequence[Pass], seconds: float
    ) -> None:
        """A show was served; ``action``: what was done to it; ``seconds``: its turn."""
        counters = self._counters
        for each in passes:
            counters.rows_changed.labels(show, each.total).inc(each.rows_changed)
            counters.rows_deferred.labels(show, each.total).inc(each.rows_deferred)
        counters.show_passes.labels(tick, show, action).inc()
        if action == "repaired":
            counters.show_passes.labels(tick, show, "refused")  # 0, for the alert's increase()
        counters.show_seconds.labels(tick).observe(seconds)
        self._shows.served(tick, show, action, passes)

    def show_failed(self, tick: str, show: str, kind: str) -> None:
        """A show failed, and is left alone for a while; ``kind``: of what sort, one of a few."""
        self._counters.show_passes.labels(tick, show, "failed").inc()
        self._counters.show_failures.labels(tick, show, kind).inc()
        self._shows.attempted(tick, show, failed=True)

    def pass_failed(self, tick: str, kind: str) -> None:
        """A whole pass failed; ``kind``: of what sort, one of a few."""
        self._counters.passes.labels(tick, "failed").inc()
        self._counters.pass_failures.labels(tick, kind).inc()
        self._ticks.over(tick)

    def deferred(self, tick: str, show: str | None) -> None:
        """Somebody else held the show, or with None what the whole pass needs."""
        if show is None:
            self._counters.passes.labels(tick, "deferred").inc()
            self._ticks.over(tick)
            return
        self._counters.show_passes.labels(tick, show, "deferred").inc()
        self._shows.attempted(tick, show, failed=False)

    def pass_over(self, tick: str, shows: int, seconds: float, late: bool) -> None:
        """A pass over so many shows is over; ``late``: it took longer than the interval."""
        self._counters.passes.labels(tick, "late" if late else "on_time").inc()
        self._counters.pass_seconds.labels(tick).observe(seconds)
        self._counters.pass_shows.labels(tick).inc(shows)
        self._ticks.over(tick)

    def repair_refused(self, tick: str, show: str, passes: Sequence[Pass]) -> None:
        """A repair would have changed too much, and changed nothing; ``passes``: what it found."""
        self._counters.show_passes.labels(tick, show, "refused").inc()
        self._shows.refused(tick, show, passes)

    def repaired(self, show: str, total: str, rows: int) -> None:
        """A repair changed so many rows of an unmanaged show."""
        self._counters.rows_repaired.labels(show, total).inc(rows)

    def fault(self, kind: str) -> None:
        """Something around the worker broke; ``kind``: one of FAULTS, or another of a few."""
        self._counters.faults.labels(kind).inc()

    def database_up(self, up: bool) -> None:
        """Whether the database answers; when it does not, the passes are broken off."""
        self._database_up.set(up)
        if not up:
            self._ticks.over()

    def reloaded(self, ok: bool) -> None:
        """The settings were read again; ``ok``: and taken over."""
        self._counters.reloads.labels("ok" if ok else "failed").inc()
        self._reload_ok.set(ok)

    def watch_pool(self, stats: Callable[[], Mapping[str, int]]) -> None:
        """Export what ``stats``, psycopg_pool's get_stats, says whenever somebody scrapes."""
        self._pool.stats = stats


class _Registry(CollectorRegistry):
    """Without the series that tell when each counter began: they would double the number."""

    def collect(self) -> Iterator[Metric]:
        for metric in super().collect():
            metric.samples = [s for s in metric.samples if not s.name.endswith("_created")]
            yield metric


class _Counters:
    """What only grows, and the histograms."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(f"retally_{name}", text, labels, registry=registry)

        def histogram(name: str, text: str) -> Histogram:
            return Histogram(
                f"retally_{name}", text, ("tick",), buckets=_BUCKETS, registry=registry
            )

        self.passes = counter("passes_total", "Passes.", "tick", "outcome")
        self.pass_failures = counter("pass_failures_total", "Passes that failed.", "tick", "kind")
        self.pass_seconds = histogram("pass_duration_seconds", "Duration of passes.")
        self.pass_shows = counter("pass_shows_total", "Shows in the passes that are over.", "tick")
        self.show_passes = counter(
            "show_passes_total", "What became of shows in passes.", "tick", "show", "outcome"
        )
        self.show_failures = counter(
            "show_failures_total", "Shows that failed in passes.", "tick", "show", "kind"
        )
        self.show_seconds = histogram(
            "show_pass_duration_seconds", "Time for one show in a pass, its wait included."
        )
        self.rows_changed = counter(
            "rows_changed_total", "Rows of totals that were written.", "show", "total"
        )
        self.rows_deferred = counter(
            "rows_deferred_total", "Rows left for the next pass, being busy.", "show", "total"
        )
        self.rows_repaired = counter(
            "rows_repaired_total", "Rows written in shows that are not managed.", "show", "total"
        )
        self.faults = counter("faults_total", "What broke around the worker.", "kind")
        self.reloads = counter("reloads_total", "Settings read again.", "outcome")


class _Ticks:
    """Shows due and claimed, by tick, as of the latest pass that began."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str) -> Gauge:
            return Gauge(f"retally_{name}", text, ("tick",), registry=registry)

        self._due = gauge("shows_due", "Shows that were due when the latest pass began.")
        self._claimed = gauge("shows_claimed", "Shows that this worker took in its latest pass.")
        self._interval = gauge("tick_interval_seconds", "Time between two passes over a show.")
        self._under_way: set[str] = set()
        self._known: set[str] = set()
        self._lock = threading.Lock()

    def set_intervals(self, intervals: Mapping[str, float]) -> None:
        with self._lock:
            for tick in self._known - set(intervals):
                for gauge in (self._due, self._claimed, self._interval):
                    gauge.remove(tick)
            for tick, seconds in intervals.items():
                self._interval.labels(tick).set(seconds)
                if tick not in self._known:
                    self._due.labels(tick)
                    self._claimed.labels(tick)
            self._known = set(intervals)

    def claimed(self, tick: str, due: int, claimed: int) -> None:
        """The first claim of a pass says what was due, the others add to what is ours."""
        with self._lock:
            if tick not in self._known:
                return
            if tick not in self._under_way:
                self._due.labels(tick).set(due)
                self._claimed.labels(tick).set(0)
            self._claimed.labels(tick).inc(claimed)
            # a pass that gets nothing is not told to be over
            if claimed:
                self._under_way.add(tick)

    def over(self, *ticks: str) -> None:
        """Their passes are over; without a name, those of all."""
        with self._lock:
            self._under_way.difference_update(ticks or tuple(self._under_way))
