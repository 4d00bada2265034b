"""Sessions that run in threads of their own, and the way to await what they are blocked by."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

T = TypeVar("T")


_PATIENCE = 60.0  # seconds, for what takes far below one


def in_background(call: Callable[[], T]) -> Future[T]:
    """Call it in a thread; the future holds what it answers or raises."""
    pool = ThreadPoolExecutor(1)
    try:
        return pool.submit(call)
    finally:
        pool.shutdown(wait=False)


def run_in_background(
    conn: psycopg.Connection, statement: str, params: tuple[Any, ...] = ()
) -> Future[list[tuple[Any, ...]]]:
    """Run a statement in a thread; the future holds its rows or its error."""

    def run() -> list[tuple[Any, ...]]:
        cursor = conn.execute(statement, params)
        return cursor.fetchall() if cursor.description else []

    return in_background(run)


def await_blocked(watcher: psycopg.Connection, blocked: psycopg.Connection) -> None:
    """Return once the session waits for a lock of another one."""
    pid = blocked.info.backend_pid
    waiting = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    deadline = time.monotonic() + _PATIENCE
    while watcher.execute(waiting, (pid,)).fetchone() != (True,):
        assert time.monotonic() < deadline, "it does not wait: it may have failed"
