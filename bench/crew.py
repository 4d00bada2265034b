"""The clients of a cell: worker processes with a thread for each client.

One process cannot keep a server busy from Python, and a process for each of 256 clients would be
a load of its own: so as many processes as there are CPUs share the clients.
"""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar

import psycopg

from retally.bench.errors import BenchError
from retally.bench.logs import Log, Window
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager
    from multiprocessing.connection import Connection
    from multiprocessing.context import SpawnProcess

    from retally.bench.acts import Act

#: Calls before the measured ones: by the sixth PostgreSQL has settled on a plan of each statement.
WARM_CALLS = 6
_WARM_SECONDS = 3.0
_READY_SECONDS = 120.0

_Task = TypeVar("_Task")


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Client:
    """What one thread does: ``act``, again and again, after ``warm`` calls that do not count.

    ``settle`` leaves no transaction open: it is called after those, and after an error.
    ``refused``: where ``act`` notes bookings that were refused, by kind, if it goes on then.
    """

    act: Act
    settle: Callable[[], object] = _nothing
    warm: int = WARM_CALLS
    refused: Counter[str] = field(default_factory=Counter)


class Crew(Generic[_Task]):
    """The worker processes; a context manager that ends them.

    ``opened``, a function of a module, is called in each of them with ``dsn`` and the task of the
    process; the clients that it yields have their connections until its block is left.
    """

    def __init__(
        self,
        dsn: str,
        processes: int,
        opened: Callable[[str, _Task], AbstractContextManager[Sequence[Client]]],
    ) -> None:
        self._dsn = dsn
        self._wanted = processes
        self._opened = opened
        self._members: list[tuple[SpawnProcess, Connection[Any, Any]]] = []

    def __enter__(self) -> Self:
        """Start the processes."""
        # spawn: a fork would copy connections and locks of the threads of this process
        context = get_context("spawn")
        for _ in range(self._wanted):
            ours, theirs = context.Pipe()
            process = context.Process(
                target=_serve, args=(theirs, self._dsn, self._opened), daemon=True
            )
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

    def dealt(self, clients: int) -> list[tuple[int, ...]]:
        """The numbers, from 0, of the clients that each process has of so many."""
        count = len(self._members)
        return [tuple(range(index, clients, count)) for index in range(count)]

    def ready(self, tasks: Sequence[_Task]) -> None:
        """Let every client connect and warm up, a task for each process.

        Raises BenchError when one cannot.
        """
        for (_, pipe), task in zip(self._members, tasks, strict=True):
            pipe.send(task)
        self._answers(_READY_SECONDS)

    def run(self, seconds: float, ramp: float) -> tuple[Window, list[Log]]:
        """Let every client run; call ``ready`` before. Raises BenchError when one fails.

        What is measured ends when the first one has no more to do.
        """
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


def _serve(
    pipe: Connection[Any, Any],
    dsn: str,
    opened: Callable[[str, Any], AbstractContextManager[Sequence[Client]]],
) -> None:
    """The life of a worker process: a task, ready; a window, its logs; until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, and it ends us
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            task = pipe.recv()
            try:
                with opened(dsn, task) as clients:
                    logs = _cell(pipe, clients)
                pipe.send(logs)
            except (RetallyError, psycopg.Error, OSError) as error:
                pipe.send(f"{error} {getattr(error, 'hint', '')}".strip())


def _cell(pipe: Connection[Any, Any], clients: Sequence[Client]) -> list[Log]:
    with ThreadPoolExecutor(max(len(clients), 1)) as threads:
        pipe.send(list(threads.map(_warm_up, clients)))
        window = pipe.recv()
        gate = threading.Event()
        running = [threads.submit(_run, client, window, gate) for client in clients]
        gate.set()
        return [thread.result() for thread in running]


def _warm_up(client: Client) -> None:
    until = time.monotonic() + _WARM_SECONDS
    for _ in range(client.warm):
        with contextlib.suppress(StopIteration):
            client.act()
        if time.monotonic() > until:
            break
    client.settle()


def _run(client: Client, window: Window, gate: threading.Event) -> Log:
    log = Log(refused=client.refused)
    act, clock = client.act, time.perf_counter_ns
    gate.wait()
    before = clock()
    while before < window.end:
        try:
            procs = act()
        except StopIteration:
            log.ran_out = before
            break
        except (RetallyError, psycopg.Error) as error:
            procs = 0
            log.errors[_state(error)] += 1
            client.settle()
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
