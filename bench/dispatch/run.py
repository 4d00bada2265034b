"""Runs the cells of ``retally bench dispatch``, round by round."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from retally.bench.crew import Crew
from retally.bench.dispatch.cell import measured
from retally.bench.dispatch.clients import opened
from retally.bench.dispatch.ground import Ground
from retally.bench.dispatch.records import Action, Mode, Run, Spec
from retally.bench.dispatch.summary import bars, lines
from retally.bench.ground import require_connections
from retally.bench.place import cpus, own_database, place, server
from retally.sql.connect import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retally.bench.dispatch.clients import Task
    from retally.bench.dispatch.records import Cell, Plan

    #: Called before each cell: its number from 1, how many there are, and what it is.
    Tell = Callable[[int, int, Spec], None]

#: Clients and batches of the batch cells; the bar is on batches of 100.
BATCH_CLIENTS = 8
BATCHES = (10, 100)
#: Clients of the single releases, with and without a notification.
RELEASE_CLIENTS = 16
#: Clients beside which the show is recomputed in a loop, of the calls that are not prepared, and
#: of bookings on a journaled show.
SOME_CLIENTS = (16, 64)

_SPARE_CONNECTIONS = 44
# More than a machine with 2 CPUs can use up; on a bigger one a cell may end early.
_FRAMES_PER_SECOND = 25_000


def specs(plan: Plan, number: int = 0) -> list[Spec]:
    """The kinds of cells of round ``number``: the modes take turns, and in which order, too."""
    shift = number % len(Mode)
    modes = [*Mode][shift:] + [*Mode][:shift]
    some = [clients for clients in SOME_CLIENTS if clients <= max(plan.clients)]
    single: list[Spec] = []
    for clients in plan.clients:
        for mode in modes:
            spec = Spec(mode=mode, clients=clients)
            paired = mode is Mode.FLAG_ON and clients in some
            single += _beside_its_journal(spec, number) if paired else [spec]
    beside = [Spec(mode=Mode.FLAG_OFF, clients=clients, recompute=True) for clients in some]
    unprepared = [Spec(mode=Mode.FLAG_ON, clients=clients, prepared=False) for clients in some]
    small, large = (Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, batch=n) for n in BATCHES)
    batches = [
        small,
        *_beside_its_journal(large, number),
        Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, batch=100, own_hosts=True),
        Spec(mode=Mode.FLAG_OFF, clients=BATCH_CLIENTS, batch=100),
        Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, action=Action.RELEASE, batch=100),
    ]
    release = Spec(mode=Mode.FLAG_ON, clients=RELEASE_CLIENTS, action=Action.RELEASE)
    releases = [*_beside_its_journal(release, number), replace(release, notify=True)]
    return single + unprepared + beside + batches + releases


def run(dsn: str | None, plan: Plan, tell: Tell) -> Run:
    """Measure, in a database of our own that is dropped afterwards, and answer with all of it.

    ``dsn``: the server; None starts an embedded one, durable and on disk. Raises BenchError,
    EmbeddedServerError and the typed errors of the database.
    """
    with server(dsn, connections=_most_clients(plan) + _SPARE_CONNECTIONS) as there:
        with connect(there) as admin:
            require_connections(admin, _most_clients(plan))
        with (
            own_database(there) as database,
            connect(database) as conn,
            Crew(database, cpus(), opened) as crew,
        ):
            ground = Ground(conn, database, hosts=plan.hosts, frames=_frames(plan), seed=plan.seed)
            cells = tuple(_cells(ground, crew, plan, tell))
            where = place(conn)
    return Run(plan=plan, place=where, cells=cells, lines=lines(cells), bars=bars(cells))


def _beside_its_journal(spec: Spec, number: int) -> list[Spec]:
    """Once more with the show journaled; the two take turns in being the first."""
    both = [spec, replace(spec, journaled=True)]
    return both[::-1] if number % 2 else both


def _cells(ground: Ground, crew: Crew[Task], plan: Plan, tell: Tell) -> Iterator[Cell]:
    for number in range(plan.rounds):
        kinds = specs(plan, number)
        for index, spec in enumerate(kinds):
            tell(number * len(kinds) + index + 1, plan.rounds * len(kinds), spec)
            yield measured(ground, crew, plan, spec, number + 1)


def _most_clients(plan: Plan) -> int:
    return max(spec.clients for spec in specs(plan))


def _frames(plan: Plan) -> int:
    warm_up = max(spec.clients * spec.batch * 7 for spec in specs(plan))
    return warm_up + int(_FRAMES_PER_SECOND * (plan.seconds + plan.ramp))
