"""Sessions that run in threads of their own, and the way to await what they are blocked by."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import psycopg


def in_background(
    conn: psycopg.Connection, statement: str, params: tuple[Any, ...] = ()
) -> Future[list[tuple[Any, ...]]]:
    """Run a statement in a thread; the future holds its rows or its error."""
    pool = ThreadPoolExecutor(1)

    def run() -> list[tuple[Any, ...]]:
        cursor = conn.execute(statement, params)
        return cursor.fetchall() if cursor.description else []

    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


def await_blocked(watcher: psycopg.Connection, blocked: psycopg.Connection) -> None:
    """Return once the session waits for a lock of another one."""
    pid = blocked.info.backend_pid
    waiting = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
    while watcher.execute(waiting, (pid,)).fetchone() != (True,):
        pass
