"""N dispatchers at once, as threads or as processes that may be killed."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Protocol

from retally.dispatch.simulator.dispatcher import SimulatedDispatcher
from retally.dispatch.simulator.draws import draws
from retally.dispatch.simulator.settings import Simulation
from retally.dispatch.simulator.tally import Delta
from retally.sql.errors import SimulationError

if TYPE_CHECKING:
    from retally.dispatch.simulator.tally import Tally

_END_SECONDS = 30.0  # for what a dispatcher has in hand
_RESTART_SECONDS = 1.0  # a dispatcher that ends by itself is not started again more often


@dataclass(frozen=True)
class Post:
    """All that a dispatcher needs to know; plain data that fits into JSON."""

    dsn: str
    simulation: Simulation
    index: int
    since: float

    @classmethod
    def from_json(cls, text: str) -> Post:
        """What ``to_json`` has written."""
        fields = json.loads(text)
        return cls(**fields | {"simulation": Simulation(**fields["simulation"])})

    def to_json(self) -> str:
        """One line of JSON; it holds the DSN, so it goes through a pipe and never into argv."""
        return json.dumps(asdict(self))

    def dispatcher(self, tally: Tally) -> SimulatedDispatcher:
        """The dispatcher for this post."""
        return SimulatedDispatcher(self.dsn, self.simulation, self.index, self.since, tally)


class Fleet(Protocol):
    """Dispatchers that run from ``start`` to ``stop``; ``mind`` is called a few times a second."""

    def start(self) -> None:
        """Start all of them."""

    def mind(self) -> None:
        """See to what has to be done meanwhile; raises what has ended one of them."""

    def stop(self) -> None:
        """End all of them, and wait for that."""


class Threads:
    """The dispatchers as threads of this process."""

    def __init__(self, posts: list[Post], tally: Tally) -> None:
        self._posts = posts
        self._tally = tally
        self._stop = threading.Event()
        self._pool = ThreadPoolExecutor(len(posts), "retally-dispatcher")
        self._running: list[Future[None]] = []

    def start(self) -> None:
        """Start all of them."""
        for post in self._posts:
            self._running.append(self._pool.submit(post.dispatcher(self._tally).run, self._stop))

    def mind(self) -> None:
        """Raise what has ended one of them: none ends by itself."""
        for future in self._running:
            if future.done():
                future.result()

    def stop(self) -> None:
        """Let each end what it has in hand."""
        self._stop.set()
        self._pool.shutdown(wait=True)
        self.mind()


class Processes:
    """The dispatchers as processes; one that was killed is followed by another in its place."""

    def __init__(self, posts: list[Post], tally: Tally) -> None:
        self._posts = posts
        self._tally = tally
        self._draw = draws(posts[0].simulation.seed, "kills")
        self._kill_every = posts[0].simulation.kill_every
        self._kill_at = self._next_kill()
        self._children: list[Child] = []

    def start(self) -> None:
        """Start all of them."""
        for post in self._posts:
            self._children.append(Child(post, self._tally))

    def mind(self) -> None:
        """Kill one where that is due; start another one in the place of each that has ended."""
        running = [child for child in self._children if child.ended() is None]
        if running and time.monotonic() >= self._kill_at:
            self._draw.choice(running).kill()
            self._tally.add("kills")
            self._kill_at = self._next_kill()
        for place, child in enumerate(self._children):
            code = child.ended()
            if code is None or time.monotonic() < child.started_at + _RESTART_SECONDS:
                continue
            self._close(child)
            self._children[place] = Child(child.post, self._tally)

    def stop(self) -> None:
        """Let each end what it has in hand."""
        for child in self._children:
            child.ask_to_end()
        for child in self._children:
            self._close(child)

    def _close(self, child: Child) -> None:
        code = child.close()
        if code and not child.was_killed:
            what = f"dispatcher {child.post.index} ended with code {code}"
            self._tally.note(SimulationError(what))

    def _next_kill(self) -> float:
        if self._kill_every is None:
            return float("inf")
        return time.monotonic() + self._draw.expovariate(1 / self._kill_every)


class Child:
    """A dispatcher in a process of its own: ``python -m retally.dispatch.simulator``.

    Its post comes on its standard input, which tells it by its end that we are done or gone; what
    it counts it tells on its standard output. It shares no lock with us that it could die with.
    """

    def __init__(self, post: Post, tally: Tally) -> None:
        self.post = post
        self.started_at = time.monotonic()
        self.was_killed = False
        self._tally = tally
        self._process = subprocess.Popen(
            [sys.executable, "-m", "retally.dispatch.simulator"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            process_group=0,  # Ctrl-C is for us; it would break off what the child has in hand
        )
        self._listener = threading.Thread(target=self._listen, name="retally-simulator-child")
        self._listener.start()
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):  # its exit code says what happened
            self._process.stdin.write(post.to_json() + "\n")
            self._process.stdin.flush()

    def ended(self) -> int | None:
        """The exit code; None while it runs."""
        return self._process.poll()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.was_killed = True
        self._process.kill()

    def ask_to_end(self) -> None:
        """Let it end what it has in hand."""
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()

    def close(self) -> int:
        """Wait for its end; answers with its exit code, below zero for a signal."""
        self.ask_to_end()
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        self._listener.join()
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        self._process.stdout.close()
        return code

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        for line in self._process.stdout:
            if line.endswith("\n"):  # it may be killed in the middle of one
                self._tally.merge(Delta(**json.loads(line)))
