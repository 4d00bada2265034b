"""What the simulator draws: run times, who looks after which host, which frame goes where."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from retally.dispatch.simulator import Simulation
from retally.dispatch.simulator.choice import choose
from retally.dispatch.simulator.draws import bucket, draws, run_seconds
from retally.dispatch.simulator.farm import Share, Spot, Waiting
from retally.sql.errors import SimulationError

if TYPE_CHECKING:
    from retally.dispatch import Booking


def test_a_frame_runs_as_long_for_whoever_asks_and_the_mean_is_as_asked_for() -> None:
    procs = [f"proc{number}" for number in range(4000)]
    first = [run_seconds(7, proc, 10) for proc in procs]
    assert first == [run_seconds(7, proc, 10) for proc in procs]
    assert first != [run_seconds(8, proc, 10) for proc in procs]
    assert min(first) >= 0
    assert sum(first) / len(first) == pytest.approx(10, rel=0.1)


def test_every_host_is_looked_after_by_one_of_the_dispatchers() -> None:
    parts = Counter(bucket(f"host{number}", 3) for number in range(3000))
    assert sorted(parts) == [0, 1, 2]
    assert min(parts.values()) > 800


def waiting(job: str = "job1", cores: int = 100, gpus: int = 0) -> Waiting:
    return Waiting(f"frame-{job}", "layer1", job, "show1", cores, 1000, gpus, gpus * 1000)


def spot(host: str, alloc: str = "alloc1", cores: int = 400, gpus: int = 0) -> Spot:
    return Spot(host, alloc, cores, 10_000_000, gpus, gpus << 22)


_SUBSCRIBED = frozenset({("show1", "alloc1")})


def test_the_same_seed_books_the_same_and_another_one_something_else() -> None:
    frames = [waiting(f"job{number}") for number in range(20)]
    hosts = [spot(f"host{number}") for number in range(20)]
    shares = [Share("host3", "job3", 200, 500)]

    def chosen(seed: int, who: int) -> list[Booking]:
        return choose(draws(seed, who), frames, hosts, _SUBSCRIBED, shares)

    assert chosen(1, 0) == chosen(1, 0)
    assert chosen(1, 0) != chosen(2, 0)
    assert chosen(1, 0) != chosen(1, 1)


def test_a_frame_goes_only_where_it_fits_and_where_its_show_subscribes() -> None:
    hosts = [
        spot("small", cores=50),
        spot("strange", "alloc2", gpus=2),
        spot("right", gpus=2),
        spot("no GPUs"),
    ]
    frames = [waiting(f"job{number}", gpus=1) for number in range(5)]
    bookings = choose(draws(1, 1), frames, hosts, _SUBSCRIBED, [])
    assert [(b.host, b.gpus) for b in bookings] == [("right", 1), ("right", 1)]
    assert all(b.core_units >= 100 for b in bookings)


def test_a_job_with_a_local_share_runs_locally_now_and_then() -> None:
    shares = [Share("own", "job1", 60, 500)]
    bookings = [
        booking
        for seed in range(20)
        for booking in choose(draws(seed, 0), [waiting()], [spot("host1")], _SUBSCRIBED, shares)
    ]
    assert {booking.local for booking in bookings} == {True, False}
    own = next(booking for booking in bookings if booking.local)
    assert (own.host, own.core_units, own.mem_kb) == ("own", 60, 500)


def test_a_layer_that_asks_for_all_cores_but_one_gets_them() -> None:
    (booking,) = choose(draws(1, 0), [waiting(cores=-100)], [spot("host1")], _SUBSCRIBED, [])
    assert booking.core_units == 300


@pytest.mark.parametrize(
    "nonsense",
    [
        {"dispatchers": 0},
        {"seconds": 0},
        {"frame_seconds": -1},
        {"frame_seconds": float("nan")},
        {"arrivals": -1},
        {"batch_share": 1.1},
        {"caps_every": 0},
        {"kill_every": 1},
    ],
)
def test_what_cannot_be_simulated_is_refused_with_a_hint(nonsense: dict[str, float]) -> None:
    with pytest.raises(SimulationError) as refused:
        replace(Simulation(), **nonsense)  # type: ignore[arg-type]
    assert refused.value.hint


# -- runs
