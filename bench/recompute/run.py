"""Runs the cells of ``retally bench recompute``: size by size, scenario by scenario, in rounds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.place import SHOWN, own_database, place, server
from retally.bench.recompute.bars import bars
from retally.bench.recompute.cell import measured
from retally.bench.recompute.counters import Counters
from retally.bench.recompute.farm import SET, Farm
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
_SHOWN = (*SHOWN, *SET, "random_page_cost")
# A table of up to a quarter of the server's memory stays in it; a proc takes 400 bytes.
_BUFFERS_PER_PROC = 2 * 1024
_LEAST_BUFFERS_MB = 512

# A journal knows what has changed since it was switched on, and not which totals were wrong before.
_ONLY = {
    Method.ONE: frozenset({Scenario.QUIET}),
    Method.JOURNAL: frozenset(Scenario) - {Scenario.COLD},
}
#: With more procs than that the other methods take long, and have to be asked for by name.
BIG = 500_000
_ON_BIG_FARMS = frozenset(
    {Method.ALL, Method.ONE, Method.JOURNAL, Method.TABLES, Method.LIMIT, Method.LIMIT_BY_LAYER}
)
# What takes longer than this is measured in the first round only, but for what is measured here.
_SLOW_SECONDS = 10.0
# What this scenario is for.
_ON_FEW_CHANGES = frozenset({Method.ALL, Method.JOURNAL, Method.LIMIT})


def run(dsn: str | None, plan: Plan, tell: Tell) -> Run:
    """Measure, in databases of our own that are dropped afterwards, and answer with all of it.

    ``dsn``: the server; None starts an embedded one, durable and on disk. Raises BenchError,
    EmbeddedServerError and the typed errors of the database.
    """
    sizes: list[Size] = []
    cells: list[Cell] = []
    where: Place | None = None
    with server(dsn, settings=_SERVER | {"shared_buffers": _buffers(max(plan.procs))}) as there:
        for procs in plan.procs:
            tell(0, 1, f"{procs:,} procs: making a farm")
            with own_database(there) as database:
                farm = Farm(database, procs, plan.seed, plan.parallel)
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


def methods_for(plan: Plan, procs: int) -> tuple[Method, ...]:
    """The methods that are measured on a farm of so many procs."""
    if plan.methods is not None:
        return plan.methods
    return tuple(method for method in Method if procs <= BIG or method in _ON_BIG_FARMS)


def takes_part(method: Method, scenario: Scenario) -> bool:
    """Whether the method can be measured in this scenario."""
    few = scenario is Scenario.CHANGED_1000
    return scenario in _ONLY.get(method, Scenario) and (not few or method in _ON_FEW_CHANGES)


def specs(
    procs: int, scenario: Scenario, number: int, methods: Sequence[Method] = tuple(Method)
) -> list[Spec]:
    """The cells of round ``number``, from 0: the methods take turns in being the first."""
    wanted = [method for method in methods if takes_part(method, scenario)]
    shift = number % max(len(wanted), 1)
    return [
        Spec(procs=procs, scenario=scenario, method=method)
        for method in wanted[shift:] + wanted[:shift]
    ]


def _cells(farm: Farm, plan: Plan, tell: Tell) -> Iterator[Cell]:
    procs = farm.size.procs
    methods = [method for method in methods_for(plan, procs) if farm.has(method)]
    counters = Counters(farm)
    total = plan.rounds * sum(len(specs(procs, s, 0, methods)) for s in plan.scenarios)
    done = 0
    slow: set[Spec] = set()
    for scenario in plan.scenarios:
        tell(done, total, f"{procs:,} procs, {scenario}: getting there")
        farm.enter(scenario)
        for number in range(plan.rounds):
            for spec in specs(procs, scenario, number, methods):
                tell(done, total, f"{procs:,} procs, {scenario}: {spec.method}")
                if spec not in slow:
                    cell = measured(farm, counters, spec, number + 1)
                    if cell.seconds > _SLOW_SECONDS and spec.method is not Method.ALL:
                        slow.add(spec)
                    yield cell
                done += 1


def _buffers(procs: int) -> str:
    return f"{max(_LEAST_BUFFERS_MB, procs * _BUFFERS_PER_PROC >> 20)}MB"
