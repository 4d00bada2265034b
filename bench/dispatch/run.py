"""Runs the cells of ``retally bench dispatch``, round by round."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.bench.dispatch.cell import measured
from retally.bench.dispatch.clients import Crew
from retally.bench.dispatch.ground import Ground, require_connections
from retally.bench.dispatch.records import Action, Mode, Run, Spec
from retally.bench.dispatch.summary import bars, lines
from retally.bench.place import cpus, own_database, place, server
from retally.sql.connect import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retally.bench.dispatch.records import Cell, Plan

    #: Called before each cell: its number from 1, how many there are, and what it is.
    Tell = Callable[[int, int, Spec], None]

#: Clients and batches of the batch cells; the bar is on batches of 100.
BATCH_CLIENTS = 8
BATCHES = (10, 100)
#: Clients of the single releases, with and without a notification.
RELEASE_CLIENTS = 16
#: Clients beside which the show is recomputed in a loop, and of the calls that are not prepared.
SOME_CLIENTS = (16, 64)

_SPARE_CONNECTIONS = 44
# More than a machine with 2 CPUs can use up; on a bigger one a cell may end early.
_FRAMES_PER_SECOND = 25_000


def specs(plan: Plan, number: int = 0) -> list[Spec]:
    """The kinds of cells of round ``number``: the modes take turns, and in which order, too."""
    shift = number % len(Mode)
    modes = [*Mode][shift:] + [*Mode][:shift]
    single = [Spec(mode=mode, clients=clients) for clients in plan.clients for mode in modes]
    some = [clients for clients in SOME_CLIENTS if clients <= max(plan.clients)]
    beside = [Spec(mode=Mode.FLAG_OFF, clients=clients, recompute=True) for clients in some]
    unprepared = [Spec(mode=Mode.FLAG_ON, clients=clients, prepared=False) for clients in some]
    batches = [Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, batch=batch) for batch in BATCHES]
    compared = [
        Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, batch=100, own_hosts=True),
        Spec(mode=Mode.FLAG_OFF, clients=BATCH_CLIENTS, batch=100),
        Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, action=Action.RELEASE, batch=100),
    ]
    releases = [
        Spec(mode=Mode.FLAG_ON, clients=RELEASE_CLIENTS, action=Action.RELEASE, notify=notify)
        for notify in (False, True)
    ]
    journaled = [Spec(mode=Mode.FLAG_ON, clients=clients, journaled=True) for clients in some]
    journaled += [
        Spec(mode=Mode.FLAG_ON, clients=BATCH_CLIENTS, batch=100, journaled=True),
        Spec(mode=Mode.FLAG_ON, clients=RELEASE_CLIENTS, action=Action.RELEASE, journaled=True),
    ]
    return single + unprepared + beside + batches + compared + releases + journaled


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
            Crew(database, cpus()) as crew,
        ):
            ground = Ground(conn, database, hosts=plan.hosts, frames=_frames(plan), seed=plan.seed)
            cells = tuple(_cells(ground, crew, plan, tell))
            where = place(conn)
    return Run(plan=plan, place=where, cells=cells, lines=lines(cells), bars=bars(cells))


def _cells(ground: Ground, crew: Crew, plan: Plan, tell: Tell) -> Iterator[Cell]:
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
