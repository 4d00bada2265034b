"""What goes on beside a cell, in a thread of its own."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@contextlib.contextmanager
def beside(work: Callable[[threading.Event], None]) -> Iterator[None]:
    """Let ``work`` run until the block ends and its event is set. Raises what it raised."""
    stop = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        try:
            work(stop)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=run, name="retally-bench-beside", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    if failed:
        raise failed[0]
