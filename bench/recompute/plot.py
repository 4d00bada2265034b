"""The plot of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.recompute.records import LIMITS, RETALLY, Method, Scenario
from retally.bench.style import BLUE, GREEN, GREY, ORANGE, PINK, SKY, YELLOW, drawn, plain

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.axes import Axes

    from retally.bench.recompute.records import Line, Run

# Told apart by marker and dash as well: in print, and by who does not see the colours.
_STYLES = {
    Method.ALL: (BLUE, "o", "-"),
    Method.BY_SHOW: (SKY, "v", "--"),
    Method.ONE: (SKY, "<", ":"),
    Method.JOURNAL: (BLUE, "*", ":"),
    Method.ROWS: (PINK, "X", "-"),
    Method.TABLES: (ORANGE, "^", "-"),
    Method.VIEWS: (YELLOW, "P", "--"),
    Method.VIEWS_BESIDE: (YELLOW, "p", ":"),
    Method.LIMIT: (GREEN, "s", "-"),
    Method.LIMIT_BY_LAYER: (GREY, "D", ":"),
}


def draw(run: Run, path: Path) -> None:
    """Draw the run: quiet passes against the size, or for one size every scenario.

    The file's suffix, .svg or .png, says as what.
    """
    if len(run.sizes) > 1:
        _by_size(run, path)
    else:
        _by_scenario(run, path)


def _by_size(run: Run, path: Path) -> None:
    quiet = [line for line in run.lines if line.spec.scenario is run.plan.scenarios[0]]
    with drawn(path, 10.5, 5.4) as figure:
        cost, above = figure.subplots(1, 2)
        label = f"seconds of a pass, {run.plan.scenarios[0]}"
        _panel(cost, quiet, label, lambda line: line.seconds)
        compared = [line for line in quiet if line.limit_times is not None]
        _panel(above, compared, "times as long as the limit", lambda line: line.limit_times or 0)
        handles, labels = cost.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
        figure.suptitle(_title(run), fontsize=11)


def _panel(axes: Axes, lines: list[Line], label: str, value: Callable[[Line], float]) -> None:
    sizes = sorted({line.spec.procs for line in lines})
    for method, (colour, marker, dash) in _STYLES.items():
        own = [line for line in lines if line.spec.method is method]
        if own:
            axes.plot(
                [line.spec.procs for line in own],
                [value(line) for line in own],
                label=method.value,
                color=colour,
                marker=marker,
                linestyle=dash,
                linewidth=2.4 if method is Method.ALL else 1.4,
            )
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:,g}")
    axes.set_xlabel("procs")
    axes.set_ylabel(label)
    plain(axes)


def _by_scenario(run: Run, path: Path) -> None:
    scenarios = [s for s in Scenario if any(line.spec.scenario is s for line in run.lines)]
    methods = [m for m in Method if any(line.spec.method is m for line in run.lines)]
    with drawn(path, 4.2 + 2.6 * len(scenarios), 1.4 + 0.36 * len(methods)) as figure:
        panels = figure.subplots(1, len(scenarios), sharey=True, sharex=True, squeeze=False)[0]
        for axes, scenario in zip(panels, scenarios, strict=True):
            own = {line.spec.method: line for line in run.lines if line.spec.scenario is scenario}
            _points(axes, own, methods)
            axes.set_title(scenario.value, fontsize=11)
        figure.supxlabel("seconds of a pass, log scale", fontsize=10)
        # else the last tick of a panel meets the first of the next
        figure.set_layout_engine("constrained", wspace=0.05)
        figure.suptitle(_title(run), fontsize=11)


def _points(axes: Axes, lines: dict[Method, Line], methods: list[Method]) -> None:
    """A point for each method, with its figure beside it, and a line down from the limit."""
    places = {method: len(methods) - index for index, method in enumerate(methods)}
    if limit := lines.get(Method.LIMIT):
        axes.axvline(limit.seconds, color=GREEN, linewidth=1.0, linestyle="--", zorder=1)
    for method, line in lines.items():
        colour = BLUE if method in RETALLY else GREEN if method in LIMITS else ORANGE
        axes.plot(line.seconds, places[method], marker="o", color=colour, markersize=7)
        axes.annotate(
            f"{line.seconds:,.3f}" if line.seconds < 1 else f"{line.seconds:,.2f}",
            (line.seconds, places[method]),
            xytext=(7, 0),
            textcoords="offset points",
            va="center",
            fontsize=8.5,
        )
    axes.set_xscale("log")
    axes.margins(x=0.25)
    axes.set_yticks([*places.values()], [method.value for method in places])
    axes.set_ylim(0.4, len(methods) + 0.6)
    axes.xaxis.set_major_formatter("{x:,g}")
    plain(axes)
    axes.tick_params(axis="y", length=0)


def _title(run: Run) -> str:
    procs = " to ".join(
        f"{size.procs:,}" for size in (run.sizes[0], run.sizes[-1])[: len(run.sizes)]
    )
    return (
        f"Rebuilding all totals: {procs} procs, {run.place.server}, {run.place.cpus} CPUs,"
        f" rounds: {run.plan.rounds}"
    )
