"""Whether the worker says truly that it is alive, and that it is ready."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from retally.worker.health import Answer, Health
from retally.worker.http import serve
from retally.worker.metrics import Metrics

if TYPE_CHECKING:
    from collections.abc import Mapping

_YES = Answer(True)
_STEP = 100.0  # seconds that one show may take
_INTERVALS = {"subscription": 3.0, "resource": 10.0}


@dataclass
class Scene:
    """A worker's health, and its clock."""

    intervals: Mapping[str, float] = field(default_factory=lambda: _INTERVALS)
    now: float = 1000.0

    def __post_init__(self) -> None:
        self.health = Health(self.intervals, step=_STEP, clock=lambda: self.now)

    def run(self, ok: bool = True) -> None:
        """Every tick runs once."""
        for tick in self.intervals:
            self.health.begun(tick)
            self.health.ended(tick, ok)


def test_a_worker_that_has_just_started_is_alive_and_not_ready() -> None:
    scene = Scene()
    assert scene.health.alive() == _YES
    assert scene.health.ready() == Answer(
        False,
        (
            "the database has not been reached yet",
            "the subscription tick has not claimed anything yet",
            "the resource tick has not claimed anything yet",
        ),
    )


def test_it_is_ready_once_every_tick_has_claimed() -> None:
    scene = Scene()
    scene.health.database(True)
    scene.health.begun("subscription")
    scene.health.ended("subscription", True)
    assert not scene.health.ready().ok
    scene.run()
    assert scene.health.ready() == _YES


def test_a_lost_database_makes_it_unready_at_once_and_never_dead() -> None:
    scene = Scene()
    scene.health.database(True)
    scene.run()
    scene.health.database(False)
    assert scene.health.ready() == Answer(False, ("the database has been lost",))
    for _ in range(1000):
        scene.now += 3
        scene.run(ok=False)
    assert scene.health.alive() == _YES
    assert len(scene.health.ready().reasons) == 3
    scene.health.database(True)
    scene.run()
    assert scene.health.ready() == _YES


def test_claims_that_fail_for_a_few_intervals_make_it_unready() -> None:
    scene = Scene({"resource": 10.0})
    scene.health.database(True)
    scene.run()
    scene.now += 50
    scene.run(ok=False)
    assert scene.health.ready() == _YES
    scene.now += 1
    assert scene.health.ready() == Answer(
        False, ("the resource tick has not claimed anything for 51 s",)
    )


@pytest.mark.parametrize("running", [True, False])
def test_a_tick_that_says_nothing_for_too_long_makes_it_dead(running: bool) -> None:
    scene = Scene({"resource": 10.0})
    scene.run()
    if running:
        scene.health.begun("resource")
    scene.now += _STEP + 100
    assert scene.health.alive() == _YES
    scene.now += 1
    what = "hangs" if running else "has not run"
    assert scene.health.alive() == Answer(False, (f"the resource tick {what} for 201 s",))
    scene.run()
    assert scene.health.alive() == _YES


def test_a_long_pass_that_moves_on_is_alive_and_ready() -> None:
    scene = Scene({"resource": 10.0})
    scene.health.database(True)
    scene.health.begun("resource")
    for _ in range(50):
        scene.health.moved("resource")
        scene.now += 40
        assert scene.health.alive() == _YES
        assert scene.health.ready() == _YES


def test_one_tick_that_hangs_is_not_hidden_by_the_other() -> None:
    scene = Scene()
    scene.health.begun("resource")
    for _ in range(100):
        scene.now += 3
        scene.health.begun("subscription")
        scene.health.ended("subscription", True)
    assert scene.health.alive() == Answer(False, ("the resource tick hangs for 300 s",))


def test_after_a_reload_the_new_intervals_count_from_then_on() -> None:
    scene = Scene({"resource": 600.0})
    scene.health.database(True)
    scene.run()
    scene.now += 500
    scene.health.set_intervals({"resource": 1.0, "subscription": 3.0})
    assert scene.health.alive() == _YES
    assert not scene.health.ready().ok
    scene.health.set_intervals({"subscription": 3.0})
    scene.health.ended("resource", True)  # its last run comes in late
    scene.health.ended("subscription", True)
    assert scene.health.ready() == _YES


def test_over_http_no_is_503_with_the_reasons() -> None:
    scene = Scene()
    with serve(Metrics(scene.intervals), scene.health, "127.0.0.1", 0) as address:

        def get(path: str) -> tuple[int, str]:
            try:
                with urlopen(address.url + path, timeout=60) as answer:
                    return answer.status, answer.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.read().decode()

        assert get("/healthz") == (200, "ok\n")
        code, text = get("/readyz")
        assert code == 503
        assert text.splitlines() == list(scene.health.ready().reasons)
        scene.health.database(True)
        scene.run()
        assert get("/readyz") == (200, "ok\n")
        scene.now += 10_000
        code, text = get("/healthz")
        assert code == 503
        assert "the subscription tick has not run for 10000 s" in text
