"""The clients of a process: threads that share one ``Dispatcher``."""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retally.bench.acts import booking, releasing
from retally.bench.admission.caps import CapsTask, Quota, TightClient, tight_work
from retally.bench.crew import Client
from retally.bench.dispatch.records import Action
from retally.bench.errors import BenchError
from retally.bench.ground import all_hosts, bookings
from retally.dispatch import Booking, Dispatcher
from retally.dispatch.admission import Admission
from retally.sql.connect import connect

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retally.bench.acts import Act
    from retally.bench.admission.records import Spec

_SERVED_SECONDS = 20.0
_POLL_SECONDS = 0.01


@dataclass(frozen=True, kw_only=True)
class Task:
    """One process's part of a cell: its clients work on ``show`` (pk_show), ``clients`` of them.

    ``frames``: how many of the show's they share. ``recount_seconds``: how often it is counted
    anew. ``seed`` decides which hosts are drawn.
    """

    spec: Spec
    show: str
    clients: int
    frames: int
    recount_seconds: float
    seed: str


@contextlib.contextmanager
def opened(dsn: str, task: Task | CapsTask) -> Iterator[list[Client]]:
    """The clients of this process; its dispatcher is closed when the block is left.

    With admission its shows are served by then, and it listens.
    """
    if not task.clients:
        yield []
        return
    admission = Admission(recount_seconds=task.recount_seconds)
    wanted = None if isinstance(task, Task) and not task.spec.admission else admission
    with Dispatcher(dsn, connections=task.clients, prepared=True, admission=wanted) as dispatcher:
        if isinstance(task, Task):
            yield [Client(act) for act in _acts(dispatcher, dsn, task)]
        else:
            yield _tight(dispatcher, dsn, task)


def _acts(dispatcher: Dispatcher, dsn: str, task: Task) -> list[Act]:
    spec, share = task.spec, task.frames // task.clients
    with connect(dsn) as conn:
        hosts = all_hosts(conn)
        work = [
            bookings(conn, task.show, (share * nr, share * (nr + 1)), hosts, f"{task.seed} {nr}")
            for nr in range(task.clients)
        ]
        first = next(bookings(conn, task.show, (0, 1), hosts, task.seed))
    await_served(dispatcher, first)
    if spec.action is Action.BOOK:
        return [booking(dispatcher.book, dispatcher.book_many, own, spec.batch) for own in work]
    release, release_many = dispatcher.release, dispatcher.release_many
    return [releasing(release, release_many, own, spec.batch) for own in work]


def _tight(dispatcher: Dispatcher, dsn: str, task: CapsTask) -> list[Client]:
    work = tight_work(dsn, task)
    for one in work[0][: len(task.shows)]:  # the shows take turns
        await_served(dispatcher, one)
    quota = Quota(task.bookings)
    clients = [TightClient(dispatcher, own, quota, task.batch) for own in work]
    # each call counts, so that none may be left out
    return [Client(each, warm=0, refused=each.refused) for each in clients]


def await_served(dispatcher: Dispatcher, one: Booking) -> None:
    """Have the show of this booking served, and wait until the dispatcher listens and has counted.

    Its proc has no frame, and is ended. Raises BenchError when nothing is heard.
    """
    without_frame = Booking(one.host, one.job, one.layer, None, one.core_units, one.mem_kb)
    dispatcher.release(dispatcher.book(without_frame))
    until = time.monotonic() + _SERVED_SECONDS
    while (stats := dispatcher.stats()) and (stats.listener != "listening" or not stats.recounts):
        if time.monotonic() > until:
            raise BenchError("a dispatcher does not hear of releases")
        time.sleep(_POLL_SECONDS)
