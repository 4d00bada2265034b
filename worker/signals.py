"""Signals that ask a process to stop, to hurry, or to read its settings again."""

from __future__ import annotations

import contextlib
import signal
import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping


@dataclass(frozen=True)
class Requests:
    """What a worker is asked for from outside.

    ``stop``: begin nothing new and let the passes in hand end. ``hurry``: undo them instead.
    ``reload``: read the settings again; who does so clears it first.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    hurry: threading.Event = field(default_factory=threading.Event)
    reload: threading.Event = field(default_factory=threading.Event)

    def ask_to_stop(self) -> None:
        """Ask for it; when that was done before, ask to hurry."""
        (self.hurry if self.stop.is_set() else self.stop).set()


@contextlib.contextmanager
def requests_on_signals() -> Iterator[Requests]:
    """In the block, SIGTERM and SIGINT ask to stop, SIGHUP asks to read the settings again.

    Under nohup SIGHUP stays ignored. The former handlers are back afterwards. Signals reach the
    main thread, so it has to be the one that enters: ValueError elsewhere.
    """
    requests = Requests()
    actions = {
        signal.SIGTERM: requests.ask_to_stop,
        signal.SIGINT: requests.ask_to_stop,
        signal.SIGHUP: requests.reload.set,
    }
    with _handled(actions):
        yield requests


@contextlib.contextmanager
def stop_on_signals(stop: threading.Event) -> Iterator[None]:
    """As above for what runs in a terminal: SIGHUP, which it sends when closed, sets ``stop``, too.

    Nothing but that: a second signal hurries nobody.
    """
    with _handled(dict.fromkeys((signal.SIGTERM, signal.SIGINT, signal.SIGHUP), stop.set)):
        yield


@contextlib.contextmanager
def _handled(actions: Mapping[signal.Signals, Callable[[], None]]) -> Iterator[None]:
    # A handler runs inside the main thread, which may be just entering Event.wait() and hold the
    # lock that Event.set() needs: it would wait for itself for ever. SimpleQueue.put() may be
    # called there; a thread that is there already does the rest, in the order of the signals.
    came: SimpleQueue[signal.Signals | None] = SimpleQueue()

    def act() -> None:
        for number in iter(came.get, None):
            actions[number]()

    actor = threading.Thread(target=act, name="retally-signals", daemon=True)
    actor.start()
    with contextlib.ExitStack() as undo:
        undo.callback(actor.join)
        undo.callback(came.put, None)
        for number in actions:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup: it is meant to outlive its terminal
            # None: a handler that was not installed from Python, and cannot be put back from it
            handler = signal.signal(number, lambda sent, _: came.put(signal.Signals(sent)))
            undo.callback(signal.signal, number, handler or signal.SIG_DFL)
        yield
