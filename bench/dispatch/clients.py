"""The clients of a cell: worker processes with a thread and a connection for each client.

One process cannot keep a server busy from Python, and a process for each of 256 clients would be
a load of its own: so as many processes as there are CPUs share the clients.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from array import array
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Self

import psycopg

from retally.bench.dispatch.modes import Target, act
from retally.bench.errors import BenchError
from retally.procedures.booking import Booking
from retally.sql.connect import connect
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from retally.bench.dispatch.modes import Act
    from retally.bench.dispatch.records import Spec

_CORE_UNITS = 100
_MEM_KB = 1_048_576
#: Calls before the measured ones: by the sixth PostgreSQL has settled on a plan of each statement.
_WARM_CALLS = 6
_WARM_SECONDS = 3.0
_READY_SECONDS = 120.0

_FRAMES = """
SELECT w.frame, w.layer, w.job FROM bench.work AS w
WHERE w.nr > %s AND w.nr <= %s ORDER BY w.nr
"""


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


@dataclass(frozen=True)
class Window:
    """When the clients run: from now until ``end``, measured from ``start``; perf_counter_ns."""

    start: int
    end: int


@dataclass
class Log:
    """What a client did: when each call ended, how long it took (both ns), with how many procs.

    ``ran_out``: when its work ended before the window did.
    """

    ends: array[int] = field(default_factory=lambda: array("q"))
    took: array[int] = field(default_factory=lambda: array("q"))
    procs: array[int] = field(default_factory=lambda: array("q"))
    errors: Counter[str] = field(default_factory=Counter)
    ran_out: int | None = None


class Crew:
    """The worker processes; a context manager that ends them. ``dsn``: the benchmark's database."""

    def __init__(self, dsn: str, processes: int) -> None:
        self._dsn = dsn
        self._wanted = processes
        self._members: list[tuple[SpawnProcess, Connection[Any, Any]]] = []

    def __enter__(self) -> Self:
        """Start the processes."""
        # spawn: a fork would copy connections and locks of the threads of this process
        context = get_context("spawn")
        for _ in range(self._wanted):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, self._dsn), daemon=True)
            process.start()
            theirs.close()
            self._members.append((process, ours))
        return self

    def __exit__(self, *_: object) -> None:
        """End the processes, in mid-cell too."""
        for process, pipe in self._members:
            pipe.close()
            process.terminate()
        for process, _pipe in self._members:
            process.join()

    def ready(self, spec: Spec, target: Target, frames: int, seed: str) -> None:
        """Let every client connect and warm up. Raises BenchError when one cannot."""
        count = len(self._members)
        for index, (_, pipe) in enumerate(self._members):
            numbers = tuple(range(index, spec.clients, count))
            pipe.send(Task(spec=spec, target=target, numbers=numbers, frames=frames, seed=seed))
        self._answers(_READY_SECONDS)

    def run(self, seconds: float, ramp: float) -> tuple[Window, list[Log]]:
        """Let every client run; call ``ready`` before. Raises BenchError when one fails."""
        start = time.perf_counter_ns() + int(ramp * 1e9)
        window = Window(start, start + int(seconds * 1e9))
        for _, pipe in self._members:
            pipe.send(window)
        logs = [log for part in self._answers(ramp + seconds + _READY_SECONDS) for log in part]
        end = min([window.end, *(log.ran_out for log in logs if log.ran_out)])
        return Window(window.start, end), logs

    def _answers(self, timeout: float) -> list[Any]:
        deadline = time.monotonic() + timeout
        answers = []
        for _, pipe in self._members:
            try:
                there = pipe.poll(max(0.0, deadline - time.monotonic()))
                answer = pipe.recv() if there else f"no answer within {timeout:.0f} s"
            except EOFError:
                answer = "its process ended"
            if isinstance(answer, str):
                raise BenchError(f"a client of the benchmark failed: {answer}")
            answers.append(answer)
        return answers


def _serve(pipe: Connection[Any, Any], dsn: str) -> None:
    """The life of a worker process: a task, ready; a window, its logs; until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, and it ends us
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task = pipe.recv()
            try:
                _cell(pipe, dsn, task)
            except (RetallyError, psycopg.Error, OSError) as error:
                pipe.send(f"{error} {getattr(error, 'hint', '')}".strip())


def _cell(pipe: Connection[Any, Any], dsn: str, task: Task) -> None:
    if not task.numbers:
        pipe.send([])
        pipe.recv()
        pipe.send([])
        return
    with connect(dsn) as conn:
        hosts = [str(row[0]) for row in conn.execute("SELECT pk_host FROM public.host ORDER BY 1")]
        work = {number: _bookings(conn, task, number, hosts) for number in task.numbers}
    with ThreadPoolExecutor(len(task.numbers)) as threads, contextlib.ExitStack() as opened:
        conns = {
            number: opened.enter_context(contextlib.closing(connect(dsn)))
            for number in task.numbers
        }
        acts = [act(task.spec, conns[n], task.target, work[n]) for n in task.numbers]
        warm = list(threads.map(_warm_up, acts, conns.values()))
        pipe.send(warm)
        window = pipe.recv()
        gate = threading.Event()
        running = [
            threads.submit(_run, one, conn, window, gate)
            for one, conn in zip(acts, conns.values(), strict=True)
        ]
        gate.set()
        logs = [thread.result() for thread in running]
    pipe.send(logs)


def _bookings(
    conn: psycopg.Connection, task: Task, number: int, hosts: Sequence[str]
) -> Iterator[Booking]:
    """The work of one client: its own slice of the frames, on hosts that are drawn."""
    if task.spec.own_hosts:
        hosts = hosts[number :: task.spec.clients]
    share = task.frames // task.spec.clients
    frames = conn.execute(_FRAMES, (share * number, share * (number + 1))).fetchall()
    draw = random.Random(f"{task.seed} {number}")  # noqa: S311 - chooses work, guards nothing
    return (
        Booking(draw.choice(hosts), job, layer, frame, _CORE_UNITS, _MEM_KB)
        for frame, layer, job in frames
    )


def _warm_up(one: Act, conn: psycopg.Connection) -> None:
    until = time.monotonic() + _WARM_SECONDS
    for _ in range(_WARM_CALLS):
        with contextlib.suppress(StopIteration):
            one()
        if time.monotonic() > until:
            break
    if not conn.autocommit:
        conn.commit()


def _run(one: Act, conn: psycopg.Connection, window: Window, gate: threading.Event) -> Log:
    log = Log()
    gate.wait()
    clock = time.perf_counter_ns
    before = clock()
    while before < window.end:
        try:
            procs = one()
        except StopIteration:
            log.ran_out = before
            break
        except (RetallyError, psycopg.Error) as error:
            procs = 0
            log.errors[_state(error)] += 1
            conn.rollback()
        after = clock()
        log.ends.append(after)
        log.took.append(after - before)
        log.procs.append(procs)
        before = after
    return log


def _state(error: BaseException) -> str:
    """The SQLSTATE, else the kind of error."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    state = cause.sqlstate if isinstance(cause, psycopg.Error) else None
    return state or type(error).__name__
