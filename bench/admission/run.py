"""Runs the parts of ``retally bench admission``, round by round."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from retally.bench.admission.cell import CAPS_CLIENTS, CAPS_SHOWS, measured, measured_caps
from retally.bench.admission.clients import opened
from retally.bench.admission.ground import Ground, TightGround
from retally.bench.admission.memory import measured_calls
from retally.bench.admission.records import SERVED, Call, Cells, Part, Run, Spec
from retally.bench.admission.recount import measured_recount
from retally.bench.admission.summary import bars, lines
from retally.bench.crew import WARM_CALLS, Crew
from retally.bench.dispatch.records import Action
from retally.bench.ground import require_connections
from retally.bench.place import cpus, nowhere, own_database, place, server
from retally.sql.connect import connect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from retally.bench.admission.caps import CapsTask
    from retally.bench.admission.clients import Task
    from retally.bench.admission.records import CapsCell, Cell, Plan, RecountCell, StoreCell

    #: Called before each step: its number from 0, how many there are, and what it does.
    Tell = Callable[[int, int, str], None]

#: Clients of the releases, and procs a call.
RELEASE_CLIENTS = 16
RELEASE_BATCHES = (1, 100)

# Of more processes each would have no thread that runs beside another one.
_MOST_CAPS_PROCESSES = 4
# What a dispatcher may have beside those of its clients, and some for whoever looks on.
_EACH_PROCESS = 9
_OTHER_CONNECTIONS = 6
_SPARE_CONNECTIONS = 44
# More than a machine with 2 CPUs can use up; on a bigger one a cell may end early.
_FRAMES_PER_SECOND = 25_000


class _Steps:
    """Tells of each step."""

    def __init__(self, plan: Plan, tell: Tell) -> None:
        memory = len(Call) * (Part.STORE in plan.parts) + 2 * (Part.RECOUNT in plan.parts)
        self._total = plan.rounds * (memory + len(specs(plan))) + (Part.CAPS in plan.parts)
        self._done = 0
        self._tell = tell

    def begin(self, text: str) -> None:
        """A step that is measured."""
        self._tell(self._done, self._total, text)
        self._done += 1

    def prepare(self, text: str) -> None:
        """What comes before one."""
        self._tell(self._done, self._total, text)


def specs(plan: Plan, number: int = 0) -> list[Spec]:
    """The kinds of cells of round ``number``: which one of a pair comes first, takes turns."""
    pairs: list[list[Spec]] = []
    if Part.BOOK in plan.parts:
        for clients in plan.clients:
            with_it = Spec(action=Action.BOOK, clients=clients)
            pairs.append([replace(with_it, admission=False), with_it])
    if Part.RELEASE in plan.parts:
        for batch in RELEASE_BATCHES:
            told = Spec(action=Action.RELEASE, clients=RELEASE_CLIENTS, batch=batch)
            pairs.append([replace(told, notify=False), told])
    return [spec for pair in pairs for spec in (pair[::-1] if number % 2 else pair)]


def run(dsn: str | None, plan: Plan, tell: Tell) -> Run:
    """Measure, in databases of our own that are dropped afterwards, and answer with all of it.

    ``dsn``: the server; None starts an embedded one, durable and on disk, where a part needs it.
    Raises BenchError, EmbeddedServerError and the typed errors of the database.
    """
    steps = _Steps(plan, tell)
    store = tuple(_store_cells(plan, steps))
    recounts = tuple(_recount_cells(plan, steps))
    served: tuple[Cell, ...] = ()
    caps: tuple[CapsCell, ...] = ()
    where = nowhere()
    if SERVED & set(plan.parts):
        most = _most_clients(plan)
        with server(dsn, connections=most + _others() + _SPARE_CONNECTIONS) as there:
            with connect(there) as admin:
                where = place(admin)
                require_connections(admin, most, _others())
            if specs(plan):
                served = tuple(_served_cells(there, plan, steps))
            if Part.CAPS in plan.parts:
                caps = (_caps_cell(there, plan, steps),)
    cells = Cells(store=store, recounts=recounts, served=served, caps=caps)
    return Run(plan=plan, place=where, cells=cells, lines=lines(cells), bars=bars(cells))


def _store_cells(plan: Plan, steps: _Steps) -> Iterator[StoreCell]:
    for number in range(plan.rounds if Part.STORE in plan.parts else 0):
        for call in Call:
            steps.begin(call)
            yield measured_calls(call, plan.seconds, number + 1)


def _recount_cells(plan: Plan, steps: _Steps) -> Iterator[RecountCell]:
    for number in range(plan.rounds if Part.RECOUNT in plan.parts else 0):
        for booked_beside in (False, True):
            steps.begin(f"a recount of {plan.vertices:,} vertices")
            yield measured_recount(plan.vertices, number + 1, booked_beside=booked_beside)


def _served_cells(there: str, plan: Plan, steps: _Steps) -> Iterator[Cell]:
    steps.prepare("making a farm")
    with _farm(there, cpus()) as (database, conn, crew):
        ground = Ground(
            conn, database, shows=cpus(), hosts=plan.hosts, frames=_frames(plan), seed=plan.seed
        )
        for number in range(plan.rounds):
            for spec in specs(plan, number):
                steps.begin(f"{spec.action}, {spec.clients} clients")
                yield measured(ground, crew, plan, spec, number + 1)


def _caps_cell(there: str, plan: Plan, steps: _Steps) -> CapsCell:
    steps.prepare("making a farm with tight caps")
    processes = _caps_processes()
    with _farm(there, processes) as (database, conn, crew):
        shows = CAPS_SHOWS * processes
        ground = TightGround(conn, database, shows=shows, clients=CAPS_CLIENTS, seed=plan.seed)
        steps.begin(f"{plan.bookings:,} bookings at the caps")
        return measured_caps(ground, crew, plan)


@contextlib.contextmanager
def _farm(
    there: str, processes: int
) -> Iterator[tuple[str, psycopg.Connection, Crew[Task | CapsTask]]]:
    """A database of our own, a connection to it, and a crew."""
    with (
        own_database(there) as database,
        connect(database) as conn,
        Crew(database, processes, opened) as crew,
    ):
        yield database, conn, crew


def _caps_processes() -> int:
    return min(cpus(), _MOST_CAPS_PROCESSES)


def _others() -> int:
    return _OTHER_CONNECTIONS + _EACH_PROCESS * cpus()


def _most_clients(plan: Plan) -> int:
    caps = CAPS_CLIENTS * _caps_processes() if Part.CAPS in plan.parts else 1
    return max([caps, *(spec.clients for spec in specs(plan))])


def _frames(plan: Plan) -> int:
    """Of each show."""
    kinds = specs(plan)
    warm_up = max(spec.clients * spec.batch * (WARM_CALLS + 1) for spec in kinds)
    at_work = min([cpus(), *(spec.clients for spec in kinds if spec.clients > 1)])
    total = warm_up + int(_FRAMES_PER_SECOND * (plan.seconds + plan.ramp))
    return -(-total // at_work)
