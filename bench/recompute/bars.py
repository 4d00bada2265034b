"""The promises of a recompute, each with what a run says of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.recompute.records import RETALLY, Method, Scenario, Spec
from retally.bench.recompute.summary import ratio
from retally.bench.records import Bar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from retally.bench.recompute.records import Cell, Size

_WAL_BYTES = 10_000
_GROWTH = 1.3  # of the ratio to the limit
_FOLD = 1 / 50  # of a quiet full pass
_SMALL, _BIG = 100_000, 2_000_000  # of the promises about big farms
_ONE_SHOW = range(7_500, 12_501)  # procs of a show "of 10,000"


def bars(cells: Sequence[Cell], sizes: Sequence[Size]) -> tuple[Bar, ...]:
    """Every promise; one about a method or scenario that was not measured is not either.

    At several sizes a promise holds at each of them.
    """
    quiet, busy_1, busy_10, cold, _ = Scenario
    every = [size.procs for size in sizes]
    small = [size.procs for size in sizes if size.one_show in _ONE_SHOW]
    return (
        _times(cells, every, quiet, Method.ALL, Method.TABLES, 1 / 6),
        _times(cells, every, quiet, Method.ALL, Method.LIMIT, 6),
        _most(cells, quiet, "no row of a total written", 0, lambda cell: cell.rows_written),
        _most(cells, quiet, "WAL under 10 kB", _WAL_BYTES - 1, lambda cell: cell.wal_bytes),
        _times(cells, every, busy_1, Method.ALL, Method.TABLES, 1 / 4),
        _times(cells, every, busy_10, Method.ALL, Method.TABLES, 1 / 3),
        _times(cells, every, cold, Method.ALL, Method.TABLES, 1 / 2),
        _times(cells, every, cold, Method.ALL, Method.ROWS, 1),
        _steady(cells, every),
        _times(cells, small, quiet, Method.ONE, Method.ALL, 1 / 15),
        _folded(cells, every),
        _exact(cells),
    )


def _times(
    cells: Sequence[Cell],
    sizes: Sequence[int],
    scenario: Scenario,
    method: Method,
    other: Method,
    most: float,
) -> Bar:
    """The method takes at most so many times as long as the other one."""
    promise = f"{scenario}: {method} takes at most {_spelt(most)} {other}"
    found = {
        procs: times
        for procs in sizes
        if (times := _ratio(cells, procs, scenario, method, other)) is not None
    }
    if not found:
        return Bar(promise, "not measured", None)
    said = ", ".join(f"{_written(times, most)} at {procs:,}" for procs, times in found.items())
    return Bar(promise, said, max(found.values()) <= most)


def _folded(cells: Sequence[Cell], sizes: Sequence[int]) -> Bar:
    """A fold of 1,000 changes takes under a part of a quiet full pass: promised for big farms."""
    promise = (
        f"journaled, 1,000 changed procs: a tick under {_spelt(_FOLD)} the quiet full pass"
        f" at {_BIG:,} procs"
    )
    found = {}
    for procs in sizes:
        fold = Spec(procs=procs, scenario=Scenario.CHANGED_1000, method=Method.JOURNAL)
        full = Spec(procs=procs, scenario=Scenario.QUIET, method=Method.ALL)
        if (times := ratio(cells, fold, full)) is not None:
            found[procs] = times
    said = ", ".join(f"{_written(times, _FOLD)} at {procs:,}" for procs, times in found.items())
    big = [times for procs, times in found.items() if procs >= _BIG]
    if not big:
        return Bar(promise, f"not measured; {said}" if said else "not measured", None)
    return Bar(promise, said, max(big) < _FOLD)


def _most(
    cells: Sequence[Cell],
    scenario: Scenario,
    what: str,
    most: int,
    count: Callable[[Cell], int],
) -> Bar:
    """In each cell of retally over all shows the count is at most this."""
    promise = f"{scenario}: {Method.ALL}: {what}"
    own = [c for c in cells if c.spec.scenario is scenario and c.spec.method is Method.ALL]
    if not own:
        return Bar(promise, "not measured", None)
    found = max(map(count, own))
    return Bar(promise, f"at most {found:,} in {len(own)} cells", found <= most)


def _steady(cells: Sequence[Cell], sizes: Sequence[int]) -> Bar:
    promise = (
        f"quiet: the ratio of {Method.ALL} to {Method.LIMIT} grows by at most {_GROWTH:g}"
        " from 100,000 to 2,000,000 procs"
    )
    first, last = min(sizes, default=0), max(sizes, default=0)
    if first > _SMALL or last < _BIG:
        return Bar(promise, "not measured", None)
    ends = [
        _ratio(cells, procs, Scenario.QUIET, Method.ALL, Method.LIMIT) for procs in (first, last)
    ]
    if not ends[0] or not ends[1]:
        return Bar(promise, "not measured", None)
    growth = ends[1] / ends[0]
    said = f"{growth:.2f}: {ends[0]:.2f} at {first:,}, {ends[1]:.2f} at {last:,}"
    return Bar(promise, said, growth <= _GROWTH)


def _exact(cells: Sequence[Cell]) -> Bar:
    promise = "no total wrong after a pass of retally"
    own = [cell for cell in cells if cell.spec.method in RETALLY]
    if not own:
        return Bar(promise, "not measured", None)
    wrong = sum((cell.rows_wrong or 0) + (cell.slots_adrift or 0) for cell in own)
    return Bar(promise, f"{wrong:,} in {len(own)} cells", wrong == 0)


def _ratio(
    cells: Sequence[Cell], procs: int, scenario: Scenario, method: Method, other: Method
) -> float | None:
    above, below = (
        Spec(procs=procs, scenario=scenario, method=chosen) for chosen in (method, other)
    )
    return ratio(cells, above, below)


def _spelt(most: float) -> str:
    if most == 1:
        return "as long as"
    return f"{most:g} times" if most > 1 else f"1/{1 / most:.0f} of"


def _written(times: float, most: float) -> str:
    """A share as a share: 1/6.3."""
    return f"1/{1 / times:.1f}" if most < 1 and times < 1 else f"{times:.2f}"
