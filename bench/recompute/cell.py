"""One cell: put everything back, call the method, look at what it cost and left."""

from __future__ import annotations

import time
from statistics import median
from typing import TYPE_CHECKING

from retally.bench.recompute.counters import wal_bytes
from retally.bench.recompute.methods import WAYS
from retally.bench.recompute.records import LIMITS, Cell, Scenario

if TYPE_CHECKING:
    from collections.abc import Callable

    from retally.bench.recompute.counters import Counters
    from retally.bench.recompute.farm import Farm
    from retally.bench.recompute.records import Spec

#: A call shorter than this, in seconds, is made again, up to so many calls in all.
_QUICK_SECONDS = 1.0
_CALLS = 5


def measured(farm: Farm, counters: Counters, spec: Spec, number: int) -> Cell:
    """Run the cell in round ``number``. Raises BenchError and the typed errors of the database."""
    farm.prepare(spec)
    before = counters.read()
    with farm.session() as conn:
        # a second call would find nothing left to do, unless there was nothing before
        again = spec.scenario is Scenario.QUIET or spec.method in LIMITS
        start = wal_bytes(conn)
        seconds = _timed(lambda: WAYS[spec.method].call(conn, farm), _CALLS if again else 1)
        wal = wal_bytes(conn) - start
    cost = counters.read().since(before)
    calls = len(seconds)
    wrong = None if spec.method in LIMITS else farm.rows_wrong(spec.method)
    adrift = farm.slots_adrift(spec.method)
    farm.leave(spec)
    return Cell(
        spec=spec,
        round=number,
        seconds=median(seconds),
        calls=calls,
        wal_bytes=_share(wal, calls),
        rows_written=_share(cost.rows, calls),
        dead_rows=_share(cost.dead, calls),
        buffers=_share(max(cost.buffers - counters.overhead, 0), calls),
        rows_wrong=wrong,
        slots_adrift=adrift,
    )


def _timed(call: Callable[[], None], most: int) -> list[float]:
    """The seconds of each call: of one that is long, of several quick ones."""
    seconds: list[float] = []
    while not seconds or (len(seconds) < most and seconds[0] < _QUICK_SECONDS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return seconds


def _share(total: int, calls: int) -> int:
    """The part of one call, rounded up: what is not nothing does not look like nothing."""
    return -(-total // calls)
