"""The admission of one dispatcher, for Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from retally.procedures.admission import VERTICES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric

    from retally.dispatch.admission.records import AdmissionStats


class AdmissionCollector(Collector):
    """Tells Prometheus of a dispatcher: ``registry.register(AdmissionCollector(d.stats))``.

    Nothing while the dispatcher is not open.
    """

    def __init__(self, stats: Callable[[], AdmissionStats | None]) -> None:
        self._stats = stats

    def collect(self) -> Iterator[Metric]:
        """The metrics as they are now."""
        stats = self._stats()
        if stats is None:
            return
        outcomes = CounterMetricFamily(
            "retally_admission_bookings", "Bookings by what became of them.", labels=["outcome"]
        )
        for outcome in ("booked", "rolled_back", "in_doubt"):
            outcomes.add_metric([outcome], getattr(stats, outcome))
        yield outcomes
        refused = CounterMetricFamily(
            "retally_admission_refused", "Bookings refused, by vertex.", labels=["vertex"]
        )
        for vertex in VERTICES:  # so that a counter is there before the first refusal
            refused.add_metric([vertex], stats.refused.get(vertex, 0))
        yield refused
        yield GaugeMetricFamily(
            "retally_admission_in_flight", "Bookings under way.", value=stats.in_flight
        )
        ages = GaugeMetricFamily(
            "retally_admission_seed_age_seconds",
            "Seconds since the counters of a served show were read.",
            labels=["show", "show_id"],
        )
        for show in stats.served:
            ages.add_metric([show.name, show.show_id], show.seed_age)
        yield ages
        yield CounterMetricFamily(
            "retally_admission_recounts", "Recounts of served shows.", value=stats.recounts
        )
        yield CounterMetricFamily(
            "retally_admission_failures",
            "Recounts and heartbeats that failed.",
            value=stats.failures,
        )
        yield GaugeMetricFamily(
            "retally_admission_listening",
            "1: releases and changes of caps are heard.",
            value=float(stats.listener == "listening"),
        )
        yield CounterMetricFamily(
            "retally_admission_listener_connects",
            "How often the listener had to connect.",
            value=stats.connects,
        )
        heard = CounterMetricFamily(
            "retally_admission_notifications", "Notifications heard.", labels=["kind"]
        )
        heard.add_metric(["release"], stats.releases)
        heard.add_metric(["limit_change"], stats.limit_changes)
        heard.add_metric(["malformed"], stats.malformed)
        yield heard
