"""Runs the cells of ``retally bench recompute``: size by size, scenario by scenario, in rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.place import SHOWN, own_database, place, server
from retally.bench.recompute.bars import bars
from retally.bench.recompute.cell import measured
from retally.bench.recompute.counters import Counters
from retally.bench.recompute.farm import SETTINGS, Farm
from retally.bench.recompute.records import Method, Run, Scenario, Spec
from retally.bench.recompute.summary import lines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retally.bench.recompute.records import Cell, Plan, Size
    from retally.bench.records import Place

    #: Called before each step: its number from 0, how many there are, and what it does.
    Tell = Callable[[int, int, str], None]

# No vacuum falls into a cell; by hand there is one before each.
_SERVER = {"autovacuum": "off"}
_SHOWN = (*SHOWN, *SETTINGS, "random_page_cost")
# So that the procs of a big farm stay in memory.
_BIG = 1_000_000
_BIG_BUFFERS = "4GB"

# A journal knows what has changed since it was switched on, and not which totals were wrong before.
_ONLY = {
    Method.ONE: frozenset({Scenario.QUIET}),
    Method.JOURNAL: frozenset(Scenario) - {Scenario.COLD},
}
# The others would take hours there, or a gigabyte of views.
_ON_BIG_FARMS = frozenset(
    {Method.ALL, Method.ONE, Method.JOURNAL, Method.TABLES, Method.LIMIT, Method.LIMIT_BY_LAYER}
)
# What the scenario is for.
_ON_FEW_CHANGES = frozenset({Method.ALL, Method.JOURNAL, Method.LIMIT})


def run(dsn: str | None, plan: Plan, tell: Tell) -> Run:
    """Measure, in databases of our own that are dropped afterwards, and answer with all of it.

    ``dsn``: the server; None starts an embedded one, durable and on disk. Raises BenchError,
    EmbeddedServerError and the typed errors of the database.
    """
    sizes: list[Size] = []
    cells: list[Cell] = []
    where: Place | None = None
    buffers = {"shared_buffers": _BIG_BUFFERS} if max(plan.procs) >= _BIG else {}
    with server(dsn, settings=_SERVER | buffers) as there:
        for procs in plan.procs:
            tell(0, 1, f"{procs:,} procs: making a farm")
            with own_database(there) as database:
                farm = Farm(database, procs, plan.seed)
                sizes.append(farm.size)
                cells += _cells(farm, plan, tell)
                with farm.session() as conn:
                    where = place(conn, _SHOWN)
    assert where is not None  # noqa: S101 - a plan has at least one size
    summed = lines(cells)
    return Run(
        plan=plan,
        place=where,
        sizes=tuple(sizes),
        cells=tuple(cells),
        lines=summed,
        bars=bars(cells, sizes),
    )


def specs(
    procs: int, scenario: Scenario, number: int, methods: Sequence[Method] = tuple(Method)
) -> list[Spec]:
    """The cells of round ``number``, from 0: the methods take turns in being the first."""
    wanted = [m for m in methods if scenario in _ONLY.get(m, Scenario)]
    if procs >= _BIG:
        wanted = [m for m in wanted if m in _ON_BIG_FARMS]
    if scenario is Scenario.CHANGED_1000:
        wanted = [m for m in wanted if m in _ON_FEW_CHANGES]
    shift = number % len(wanted)
    return [
        Spec(procs=procs, scenario=scenario, method=method)
        for method in wanted[shift:] + wanted[:shift]
    ]


def _cells(farm: Farm, plan: Plan, tell: Tell) -> Iterator[Cell]:
    methods = [method for method in Method if farm.has(method)]
    counters = Counters(farm)
    procs = farm.size.procs
    total = plan.rounds * sum(len(specs(procs, s, 0, methods)) for s in plan.scenarios)
    done = 0
    for scenario in plan.scenarios:
        tell(done, total, f"{procs:,} procs, {scenario}: getting there")
        farm.enter(scenario)
        for number in range(plan.rounds):
            for spec in specs(procs, scenario, number, methods):
                tell(done, total, f"{procs:,} procs, {scenario}: {spec.method}")
                yield measured(farm, counters, spec, number + 1)
                done += 1
