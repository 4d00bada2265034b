"""The plot of a run: bookings a second with and without admission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.admission.records import Part
from retally.bench.style import BLUE, GREY, drawn, plain

if TYPE_CHECKING:
    from pathlib import Path

    from retally.bench.admission.records import Run

_WIDTH = 0.36


def draw(run: Run, path: Path) -> None:
    """Draw the run's bookings; the file's suffix, .svg or .png, says as what."""
    lines = [line for line in run.lines if line.part is Part.BOOK]
    clients = sorted({line.clients or 0 for line in lines})
    kinds = dict.fromkeys(line.what for line in lines)
    with drawn(path, 7.2, 4.4) as figure:
        axes = figure.subplots()
        for nr, (what, colour) in enumerate(zip(kinds, (GREY, BLUE), strict=False)):
            rates = {line.clients: line.per_second or 0.0 for line in lines if line.what == what}
            places = [place + (nr - 0.5) * _WIDTH for place in range(len(clients))]
            heights = [rates.get(count, 0.0) for count in clients]
            axes.bar(places, heights, _WIDTH, label=what, color=colour)
        axes.set_xticks(range(len(clients)), [str(count) for count in clients])
        axes.set_xlabel("clients")
        axes.set_ylabel("bookings per second")
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.legend(frameon=False)
        plain(axes)
        figure.suptitle(
            f"{run.place.server}, {run.place.cpus} CPUs, {run.plan.seconds:g} s a cell,"
            f" rounds: {run.plan.rounds}",
            fontsize=11,
        )
