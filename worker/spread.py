"""Spreads work over a pool of threads that others use, too."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

T = TypeVar("T")


def spread(pool: Executor, width: int, tasks: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Run the tasks in the pool, yield their results as they end; raises what a task raises.

    At most ``width`` are handed to the pool at once, so that a long list does not keep a short
    one of another thread waiting. When the caller stops early, no further task is started, and
    those that run are waited for.
    """
    waiting = iter(tasks)
    running: set[Future[T]] = set()
    try:
        running |= {pool.submit(task) for task in islice(waiting, width)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()
            running |= {pool.submit(task) for task in islice(waiting, len(done))}
    finally:
        wait(running)
