"""A worker's metrics to which things happen, served over HTTP and read as Prometheus does."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families
from worker_process import PATIENCE

from retally.procedures import TOTALS, Pass
from retally.worker.health import Health
from retally.worker.http import Address, serve
from retally.worker.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Iterator

INTERVALS = {"subscription": 3.0, "resource": 10.0}

Sample = tuple[str, tuple[tuple[str, str], ...]]


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


@dataclass
class Scene:
    """A worker's metrics, served, and the clock by which its gauges grow stale."""

    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        self.metrics = Metrics(INTERVALS, clock=self.clock)
        self.health = Health(INTERVALS)

    address: Address = field(init=False)

    def get(self, path: str, method: str = "GET", **headers: str) -> bytes:
        request = Request(self.address.url + path, method=method, headers=headers)
        with urlopen(request, timeout=PATIENCE) as answer:
            return bytes(answer.read())

    def scrape(self) -> dict[Sample, float]:
        return samples(self.get("/metrics").decode())

    def value(self, name: str, **labels: str) -> float | None:
        return self.scrape().get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def scene() -> Iterator[Scene]:
    scene = Scene()
    with serve(scene.metrics, scene.health, "127.0.0.1", 0) as scene.address:
        yield scene


def samples(text: str) -> dict[Sample, float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def gauges(told: dict[Sample, float], label: str, value: str) -> set[str]:
    """The names of the gauges that have this label with this value."""
    counted = ("_total", "_count", "_sum", "_bucket")
    return {
        name for name, labels in told if (label, value) in labels and not name.endswith(counted)
    }


def found(total: str, **amounts: int) -> Pass:
    numbers = dict.fromkeys(
        ("rows_adrift", "rows_changed", "rows_deferred", "rows_failed", "core_units", "gpus"), 0
    )
    return Pass("id", total, **(numbers | amounts), seconds=0.01, problems=())


def exercised() -> Metrics:
    """Metrics to which all has happened that can happen: every name is exported, with labels."""
    metrics = Metrics(INTERVALS)
    for tick in INTERVALS:
        metrics.claimed(tick, 3, 2)
        for action in ("rebuilt", "watched", "repaired"):
            metrics.served(tick, "comet", action, [found(total) for total in TOTALS], 0.1)
        metrics.show_failed(tick, "comet", "refused")
        metrics.repair_refused(tick, "comet", [found(total) for total in TOTALS])
        metrics.deferred(tick, "comet")
        metrics.deferred(tick, None)
        metrics.pass_failed(tick, "refused")
        metrics.pass_over(tick, 2, 0.5, late=False)
        metrics.pass_over(tick, 2, 5.0, late=True)
    metrics.repaired("comet", "job", 3)
    metrics.fault("disk_full")
    metrics.database_up(True)
    metrics.reloaded(True)
    metrics.reloaded(False)
    metrics.watch_pool(lambda: {"pool_max": 4})
    return metrics
