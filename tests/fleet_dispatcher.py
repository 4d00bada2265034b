"""One dispatcher of a fleet, a process that may be killed or stopped at any moment.

Its standard input is one line of JSON, the fields of ``Post``; by its end it is told to end. It
books for whichever shows it can have, releases, and gives shows up now and then.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import threading
from dataclasses import dataclass

from psycopg.conninfo import make_conninfo

from retally.dispatch import Admission, Booking, Dispatcher
from retally.sql.errors import RetallyError

_THREADS = 3
#: Core units; the bursts are a few times as much.
_LEAST, _MOST = 30, 400


@dataclass(frozen=True)
class Post:
    """Where and as whom it books. ``work``: host, job, layer and show of each place."""

    dsn: str
    name: str
    seed: int
    lease_seconds: float
    recount_seconds: float
    work: list[list[str]]


def main() -> None:
    post = Post(**json.loads(sys.stdin.readline()))
    stop = threading.Event()
    threading.Thread(target=_await_end_of_input, args=(stop,), daemon=True).start()
    admission = Admission(
        name=post.name,
        lease_seconds=post.lease_seconds,
        recount_seconds=post.recount_seconds,
        listen_dsn=make_conninfo(post.dsn, application_name="fleet listener"),
    )
    dsn = make_conninfo(post.dsn, application_name=post.name)
    with Dispatcher(dsn, connections=_THREADS, admission=admission) as dispatcher:
        threads = [
            threading.Thread(target=_work, args=(dispatcher, post, seed, stop))
            for seed in range(_THREADS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def _await_end_of_input(stop: threading.Event) -> None:
    while os.read(0, 1):
        pass
    stop.set()


def _work(dispatcher: Dispatcher, post: Post, seed: int, stop: threading.Event) -> None:
    draw = random.Random(f"{post.seed} {seed}")
    procs: list[str] = []
    while not stop.is_set():
        # a server that was asked to end a session, and a show that is busy: try again
        with contextlib.suppress(RetallyError):
            _turn(dispatcher, post, draw, procs)


def _turn(dispatcher: Dispatcher, post: Post, draw: random.Random, procs: list[str]) -> None:
    host, job, layer, show = draw.choice(post.work)
    asked = [
        Booking(host, job, layer, None, draw.randint(_LEAST, _MOST), 1, gpus=draw.randint(0, 1))
        for _ in range(draw.choice((1, 1, 1, 5)))
    ]
    if len(asked) == 1:
        with contextlib.suppress(RetallyError):
            procs.append(dispatcher.book(asked[0]))
    else:
        procs += [answer.proc for answer in dispatcher.book_many(asked) if answer.proc]
    # as many as it books, so that the bursts stay about full
    draw.shuffle(procs)
    if len(procs) > draw.randint(20, 60):
        half, procs[:] = procs[:6], procs[6:]
        dispatcher.release_many(half)
    elif procs and draw.random() < 0.3:
        dispatcher.release(procs.pop())
    if draw.random() < 0.002:
        dispatcher.give_up(show)


if __name__ == "__main__":
    main()
