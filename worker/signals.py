"""Signals that ask the worker to stop."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What service managers send, what Ctrl-C sends, and what a terminal sends when it is closed.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """In the block, the stop signals do one thing only: they set ``stop``.

    Under nohup SIGHUP stays ignored. The former handlers are back afterwards. Signals reach the
    main thread, so it has to be the one that enters: ValueError elsewhere.
    """

    def handle(_number: int, _frame: object) -> None:
        # Not stop.set(): the handler runs inside the main thread, which may be just entering
        # stop.wait() and hold the event's lock; it would wait for itself for ever.
        threading.Thread(target=stop.set, name="retally-stop", daemon=True).start()

    with contextlib.ExitStack() as former:
        for number in STOP_SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: it is meant to outlive its terminal
            # None: a handler that was not installed from Python, and cannot be put back from it
            before = signal.signal(number, handle) or signal.SIG_DFL
            former.callback(signal.signal, number, before)
        yield
