"""From cells to lines: medians over the rounds, ratios within each round."""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from retally.bench.recompute.records import Line, Method, Scenario, Spec

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retally.bench.recompute.records import Cell


def lines(cells: Sequence[Cell]) -> tuple[Line, ...]:
    """One line for each kind of cell, by size, scenario and method."""
    return tuple(_line(cells, spec) for spec in sorted({cell.spec for cell in cells}, key=_place))


def ratio(cells: Iterable[Cell], above: Spec, below: Spec) -> float | None:
    """How many times as long as ``below`` the method ``above`` takes.

    The median of the ratios within each round; None where one of them was not measured.
    """
    seconds = {(cell.spec, cell.round): cell.seconds for cell in cells}
    ratios = [
        took / seconds[below, number]
        for (spec, number), took in seconds.items()
        if spec == above and seconds.get((below, number))
    ]
    return median(ratios) if ratios else None


def _line(cells: Sequence[Cell], spec: Spec) -> Line:
    own = [cell for cell in cells if cell.spec == spec]
    wrong = [cell.rows_wrong for cell in own if cell.rows_wrong is not None]
    return Line(
        spec=spec,
        seconds=median(cell.seconds for cell in own),
        limit_times=_times(cells, spec, Method.LIMIT),
        retally_times=_times(cells, spec, Method.ALL),
        wal_bytes=_middle(cell.wal_bytes for cell in own),
        rows_written=_middle(cell.rows_written for cell in own),
        dead_rows=_middle(cell.dead_rows for cell in own),
        buffers=_middle(cell.buffers for cell in own),
        rows_wrong=max(wrong) if wrong else None,
    )


def _times(cells: Sequence[Cell], spec: Spec, method: Method) -> float | None:
    other = Spec(procs=spec.procs, scenario=spec.scenario, method=method)
    return None if other == spec else ratio(cells, spec, other)


def _middle(values: Iterable[int]) -> int:
    return round(median(values))


def _place(spec: Spec) -> tuple[int, int, int]:
    return spec.procs, [*Scenario].index(spec.scenario), [*Method].index(spec.method)
