"""The clients of a cell: each has a connection and a part of the frames of its own."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retally.bench.crew import Client
from retally.bench.dispatch.modes import Target, act
from retally.bench.ground import all_hosts, bookings
from retally.sql.connect import connect

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from retally.bench.dispatch.records import Spec
    from retally.procedures.booking import Booking


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process's part of a cell: its clients have these numbers, of ``spec.clients``.

    ``frames``: how many they all share. ``seed`` decides which hosts are drawn.
    """

    spec: Spec
    target: Target
    numbers: tuple[int, ...]
    frames: int
    seed: str


@contextlib.contextmanager
def opened(dsn: str, task: Task) -> Iterator[list[Client]]:
    """The clients of this process; their connections are closed when the block is left."""
    with contextlib.ExitStack() as stack:
        work: list[Iterator[Booking]] = []
        if task.numbers:
            with connect(dsn) as conn:
                hosts = all_hosts(conn)
                work = [_work(conn, task, number, hosts) for number in task.numbers]
        conns = [stack.enter_context(contextlib.closing(connect(dsn))) for _ in task.numbers]
        yield [
            Client(act(task.spec, conn, task.target, own), conn.rollback)
            for conn, own in zip(conns, work, strict=True)
        ]


def _work(
    conn: psycopg.Connection, task: Task, number: int, hosts: Sequence[str]
) -> Iterator[Booking]:
    """The work of one client: its own slice of the frames, on hosts that are drawn."""
    if task.spec.own_hosts:
        hosts = hosts[number :: task.spec.clients]
    share = task.frames // task.spec.clients
    part = (share * number, share * (number + 1))
    return bookings(conn, task.target.show, part, hosts, f"{task.seed} {number}")
