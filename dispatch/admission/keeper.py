"""The threads behind a gate: they keep its leases, count its shows anew, and listen."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from typing import TYPE_CHECKING

from retally.dispatch.admission.line import Line
from retally.dispatch.admission.listener import Listener
from retally.sql.backoff import Backoff
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retally.dispatch.admission.gate import Gate
    from retally.dispatch.admission.settings import Admission

# A lease survives two lost heartbeats.
_HEARTBEATS = 3
# Between two recounts of all that is due: hints may come by the thousand.
_LEAST_SECONDS = 1.0
# The longest pause of one that could not be counted, in intervals.
_LONGEST_PAUSE = 4
# A show that could not be counted for so many intervals is served no more: its caps may be others.
_STALE_AFTER = 12
_JOIN_SECONDS = 5.0

_log = logging.getLogger("retally.dispatch")


class Keeper:
    """Runs from the first show that is served on, until ``stop``."""

    def __init__(self, dsn: str | None, settings: Admission) -> None:
        self._dsn = dsn
        self._settings = settings
        self._stop = threading.Event()
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._due: set[str] = set()  # recounts before their time
        self._pauses: dict[str, Backoff] = {}
        self._threads: list[threading.Thread] = []
        self.recounts = self.failures = 0
        listen_dsn = dsn if settings.listen_dsn is None else settings.listen_dsn
        self.listener = Listener(listen_dsn, self.recount_soon)

    def start(self, gate: Gate) -> None:
        """Start the threads, once."""
        with self._lock:
            if self._threads or self._stop.is_set():
                return
            self._run("leases", lambda: self._keep_leases(gate))
            self._run("recounts", lambda: self._recount(gate))
            if self._settings.notify:
                self._run("listener", lambda: self.listener.run(gate, self._stop))

    def recount_soon(self, shows: set[str]) -> None:
        """Count these shows anew, as far as they are served, before their time."""
        with self._lock:
            self._due |= shows
        self._wake.set()

    def stop(self) -> None:
        """End the threads; one that waits for the database is left to end by itself."""
        with self._lock:
            self._stop.set()
        self._wake.set()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _run(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"retally-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _keep_leases(self, gate: Gate) -> None:
        with contextlib.closing(Line(self._dsn)) as line:
            while not self._stop.wait(self._settings.lease_seconds / _HEARTBEATS):
                with self._guarded("the leases could not be renewed"):
                    with line.connected() as conn:
                        wanted = gate.shows.keep(conn)
                    # the others are renewed by now, whatever becomes of these
                    with line.connected() as conn:
                        gate.shows.give_up(conn, wanted)

    def _recount(self, gate: Gate) -> None:
        every = self._settings.recount_seconds
        all_at = time.monotonic() + every
        with contextlib.closing(Line(self._dsn)) as line:
            while not self._stop.is_set():
                self._wake.wait(max(0.0, all_at - time.monotonic()))
                with self._lock:
                    self._wake.clear()
                    due, self._due = self._due, set()
                served = gate.store.tokens()
                if time.monotonic() >= all_at:
                    due, all_at = set(served), time.monotonic() + every
                for show in served:
                    if show in due and not self._stop.is_set():
                        self._recount_one(gate, line, show)
                self._stop.wait(min(_LEAST_SECONDS, every))

    def _recount_one(self, gate: Gate, line: Line, show: str) -> None:
        """Count a show anew, unless that has just failed; one that fails holds up no other."""
        every = self._settings.recount_seconds
        pause = self._pauses.setdefault(show, Backoff(every, _LONGEST_PAUSE * every))
        if pause.holds():
            self.recount_soon({show})
            return
        what = f"show {gate.shows.name(show)} could not be counted anew"
        with self._guarded(what), line.connected() as conn:
            if gate.shows.recount_unless_busy(conn, show):
                self.recounts += 1
            else:
                self.recount_soon({show})
            pause.succeeded()
            return
        pause.failed()
        if gate.store.age(show) > _STALE_AFTER * every:
            _log.error("%s for too long, and is served no more", what)
            gate.store.drop(show)
            del self._pauses[show]

    @contextlib.contextmanager
    def _guarded(self, what: str) -> Iterator[None]:
        """Whatever happens in the block, go on after it."""
        try:
            yield
        except RetallyError as error:
            self.failures += 1
            _log.warning("%s: %s", what, error)
        except Exception:
            self.failures += 1
            _log.exception(what)
