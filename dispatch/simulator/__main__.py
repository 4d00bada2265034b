"""The process of one simulated dispatcher; ``fleet.Child`` starts it and says how to talk to it."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
from dataclasses import asdict

from retally.dispatch.simulator.fleet import Post
from retally.dispatch.simulator.tally import Tally

_TELL_EVERY = 0.25  # seconds


def main() -> None:
    """Dispatch until SIGTERM, or until whoever started us closes our standard input."""
    line = sys.stdin.readline()
    if not line:
        return  # whoever started us is gone already
    post = Post.from_json(line)
    tally, stop = Tally(), threading.Event()
    # Not stop.set() in the handler: the main thread may be inside stop.wait() and hold its lock.
    signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=stop.set, daemon=True).start())
    threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    teller = threading.Thread(target=_tell, args=(tally, stop), daemon=True)
    teller.start()
    try:
        post.dispatcher(tally).run(stop)
    finally:
        stop.set()
        teller.join()
        _tell_once(tally)


def _await_end_of_input(stop: threading.Event) -> None:
    # not sys.stdin.read(): a thread inside it at the end of the process is a fatal error
    while os.read(0, 1):
        pass
    stop.set()


def _tell(tally: Tally, stop: threading.Event) -> None:
    while not stop.wait(_TELL_EVERY):
        if not _tell_once(tally):
            stop.set()


def _tell_once(tally: Tally) -> bool:
    """Tell what was counted since last time; whether anybody listens."""
    line = json.dumps(asdict(tally.take())) + "\n"
    try:
        os.write(1, line.encode())
    except BrokenPipeError:
        return False
    return True


if __name__ == "__main__":
    main()
