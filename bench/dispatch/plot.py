"""The plot of a run: throughput and p99 latency against clients."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.dispatch.records import Mode, Spec
from retally.bench.style import BLUE, GREEN, GREY, ORANGE, drawn, plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from retally.bench.dispatch.records import Line, Run

# Told apart by marker and dash as well: in print, and by who does not see the colours.
_STYLES = {
    Mode.FLAG_ON: (BLUE, "o", "-"),
    Mode.BARE: (GREEN, "s", "--"),
    Mode.FLAG_OFF: (ORANGE, "^", "-"),
    Mode.INLINE: (GREY, "D", ":"),
}


def draw(run: Run, path: Path) -> None:
    """Draw the run's single bookings; the file's suffix, .svg or .png, says as what."""
    lines = [line for line in run.lines if _is_single(line)]
    with drawn(path, 9.6, 4.6) as figure:
        rate, wait = figure.subplots(1, 2)
        _panel(rate, lines, "bookings per second", lambda line: line.per_second)
        rate.set_ylim(bottom=0)
        rate.yaxis.set_major_formatter("{x:,.0f}")
        _panel(wait, lines, "99th percentile of a booking's latency, ms", lambda line: line.p99_ms)
        wait.set_yscale("log")
        wait.yaxis.set_major_formatter("{x:,g}")
        handles, labels = rate.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
        figure.suptitle(
            f"One subscription, {run.place.server}, {run.place.cpus} CPUs,"
            f" {run.plan.seconds:g} s a cell, rounds: {run.plan.rounds}",
            fontsize=11,
        )


def _panel(axes: Axes, lines: list[Line], label: str, value: Callable[[Line], float]) -> None:
    clients = sorted({line.spec.clients for line in lines})
    for mode, (colour, marker, dash) in _STYLES.items():
        own = [line for line in lines if line.spec.mode is mode]
        axes.plot(
            [line.spec.clients for line in own],
            [value(line) for line in own],
            label=mode.value,
            color=colour,
            marker=marker,
            linestyle=dash,
            linewidth=2.2 if mode is Mode.FLAG_ON else 1.5,
        )
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [str(count) for count in clients])
    axes.set_xlabel("clients")
    axes.set_ylabel(label)
    plain(axes)


def _is_single(line: Line) -> bool:
    return line.spec == Spec(mode=line.spec.mode, clients=line.spec.clients)
