"""A worker in a thread of the test, for what only a patch can bring about."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from structlog.testing import capture_logs
from worker_process import PATIENCE, await_true

from retally.worker import Requests, Worker, WorkerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from structlog.typing import EventDict


def events(log: list[EventDict], name: str) -> list[EventDict]:
    return [entry for entry in log if entry["event"] == name]


@contextlib.contextmanager
def in_process(dsn: str, **settings: Any) -> Iterator[tuple[list[EventDict], Callable[[], str]]]:
    """A worker in a thread; its log as it grows, and where its metrics are."""
    requests = Requests()
    quick = {"subscription_interval": 0.2, "resource_interval": 0.3, "metrics_port": 0}
    worker = Worker(dsn, WorkerSettings(**(quick | settings)))
    with capture_logs() as log, ThreadPoolExecutor(1) as threads:
        running = threads.submit(worker.run, requests)

        def url() -> str:
            await_true(lambda: bool(events(log, "worker started")))
            return str(events(log, "metrics served")[0]["url"])

        try:
            yield log, url
        finally:
            requests.stop.set()
            running.result(PATIENCE)
