"""The cells on a server: reset, warm up, run, look at what is left."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from retally.bench.admission.caps import CapsTask, Looks
from retally.bench.admission.clients import Task
from retally.bench.admission.records import CapsCell, Cell
from retally.bench.beside import beside
from retally.bench.logs import latencies, percentile, procs_within, spelled
from retally.dispatch.admission import Admission
from retally.sql.errors import OverCapError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retally.bench.admission.ground import Ground, TightGround
    from retally.bench.admission.records import Plan, Spec
    from retally.bench.crew import Crew
    from retally.bench.logs import Log

#: Clients of a process in the part caps; shows that its dispatcher serves; bookings a call.
CAPS_CLIENTS, CAPS_SHOWS, CAPS_BATCH = 4, 2, 25
# Often enough to fall into the midst of many bookings.
_CAPS_RECOUNT_SECONDS = 1.0
# At worst: seconds, and bookings a second.
_CAPS_SECONDS, _CAPS_PER_SECOND = 60.0, 100


def measured(
    ground: Ground, crew: Crew[Task | CapsTask], plan: Plan, spec: Spec, number: int
) -> Cell:
    """Run the cell in round ``number``. Raises BenchError and the typed errors of the database."""
    ground.reset(spec)
    deadlocks = ground.deadlocks()
    crew.ready(_tasks(ground, crew, plan, spec, number))
    window, logs = crew.run(plan.seconds, plan.ramp)
    took = latencies(window, logs)
    return Cell(
        spec=spec,
        round=number,
        procs=procs_within(window, logs),
        seconds=window.seconds,
        p50_ms=percentile(took, 0.50),
        p99_ms=percentile(took, 0.99),
        deadlocks=ground.deadlocks() - deadlocks,
        errors=spelled(_errors(logs)),
        slots_adrift=ground.slots_adrift(),
    )


def measured_caps(ground: TightGround, crew: Crew[Task | CapsTask], plan: Plan) -> CapsCell:
    """Book until all of ``plan.bookings`` are confirmed. Raises as ``measured``."""
    clients = CAPS_CLIENTS * len(ground.shows) // CAPS_SHOWS
    deadlocks = ground.deadlocks()
    looks = Looks(ground.dsn)
    crew.ready(_caps_tasks(ground, crew, plan, clients))
    with beside(looks):
        window, logs = crew.run(_CAPS_SECONDS + plan.bookings / _CAPS_PER_SECOND, 0)
    refused = sum((log.refused for log in logs), Counter[str]())
    refusals = refused.pop(OverCapError.__name__, 0)
    return CapsCell(
        asked=plan.bookings,
        clients=clients,
        shows=len(ground.shows),
        bookings=sum(sum(log.procs) for log in logs),
        per_second=procs_within(window, logs) / max(window.seconds, 1e-9),
        refusals=refusals,
        looks=looks.looks,
        over_bookings=looks.over_bookings,
        examples=tuple(looks.examples),
        deadlocks=ground.deadlocks() - deadlocks,
        errors=spelled(_errors(logs) + refused),
        slots_adrift=ground.slots_adrift(),
    )


def _tasks(
    ground: Ground, crew: Crew[Task | CapsTask], plan: Plan, spec: Spec, number: int
) -> list[Task | CapsTask]:
    # a cell is shorter than the time between two recounts: one of them falls into each all the same
    recount_seconds = min(Admission().recount_seconds, plan.seconds)
    return [
        Task(
            spec=spec,
            show=show,
            clients=len(numbers),
            frames=ground.frames_for(spec),
            recount_seconds=recount_seconds,
            seed=f"{plan.seed} {number} {nr}",
        )
        for nr, (show, numbers) in enumerate(
            zip(ground.shows, crew.dealt(spec.clients), strict=True)
        )
    ]


def _caps_tasks(
    ground: TightGround, crew: Crew[Task | CapsTask], plan: Plan, clients: int
) -> list[Task | CapsTask]:
    parts = crew.dealt(clients)
    return [
        CapsTask(
            shows=ground.shows[nr * CAPS_SHOWS : (nr + 1) * CAPS_SHOWS],
            clients=len(numbers),
            bookings=-(-plan.bookings // len(parts)),
            batch=CAPS_BATCH,
            recount_seconds=_CAPS_RECOUNT_SECONDS,
            seed=f"{plan.seed} {nr}",
        )
        for nr, numbers in enumerate(parts)
    ]


def _errors(logs: Sequence[Log]) -> Counter[str]:
    return sum((log.errors for log in logs), Counter[str]())
