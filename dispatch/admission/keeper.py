"""The threads behind a gate: they keep its leases, count its shows anew, and listen."""

from __future__ import annotations

import logging
import threading
from functools import partial
from typing import TYPE_CHECKING

from retally.dispatch.admission.listener import Listener
from retally.sql.backoff import pause_after
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Callable

    from retally.dispatch.admission.gate import Gate
    from retally.dispatch.admission.settings import Admission

# A lease survives two lost heartbeats.
_HEARTBEATS = 3

_log = logging.getLogger("retally.dispatch")


class Keeper:
    """Runs from the first show that is served on, until ``stop``."""

    def __init__(self, dsn: str | None, settings: Admission) -> None:
        self._settings = settings
        self._stop = threading.Event()
        self._due = threading.Event()  # a recount before its time
        self._lock = threading.Lock()
        self._threads: list[threading.Thread] = []
        self.recounts = 0
        self.failures = 0
        listen_dsn = dsn if settings.listen_dsn is None else settings.listen_dsn
        self.listener = Listener(listen_dsn, on_gap=self.recount_soon, on_hint=self.recount_soon)

    def start(self, gate: Gate) -> None:
        """Start the threads, once."""
        with self._lock:
            if self._threads or self._stop.is_set():
                return
            self._run("leases", lambda: self._keep_leases(gate))
            self._run("recounts", lambda: self._recount(gate))
            if self._settings.notify:
                self._run("listener", lambda: self.listener.run(gate.store, self._stop))

    def recount_soon(self) -> None:
        """Count all served shows anew, as soon as may be."""
        self._due.set()

    def stop(self) -> None:
        """End the threads, and wait for that."""
        with self._lock:
            self._stop.set()
            self._due.set()
        for thread in self._threads:
            thread.join()

    def _run(self, name: str, work: Callable[[], None]) -> None:
        thread = threading.Thread(target=work, name=f"retally-{name}", daemon=True)
        thread.start()
        self._threads.append(thread)

    def _keep_leases(self, gate: Gate) -> None:
        every = self._settings.lease_seconds / _HEARTBEATS
        while not self._stop.wait(every):
            self._guarded("the leases could not be renewed", gate.shows.keep)

    def _recount(self, gate: Gate) -> None:
        every = self._settings.recount_seconds
        failures = 0
        while not self._stop.is_set():
            if failures:
                # no hint cuts this short: the database may be away
                self._stop.wait(pause_after(failures, every))
            else:
                self._due.wait(every)
            self._due.clear()
            failures = 0 if self._recount_all(gate) else failures + 1

    def _recount_all(self, gate: Gate) -> bool:
        """Count every served show anew, one that fails holds up no other; whether all went well."""
        well = True
        for show in gate.store.tokens():
            if self._stop.is_set():
                break
            what = f"show {gate.shows.name(show)} could not be counted anew"
            well &= self._guarded(what, partial(gate.shows.recount, show))
            self.recounts += 1
        return well

    def _guarded(self, what: str, work: Callable[[], None]) -> bool:
        """Do it, and go on whatever happens; whether it went well."""
        try:
            work()
        except RetallyError as error:
            self.failures += 1
            _log.warning("%s: %s", what, error)
            return False
        except Exception:
            self.failures += 1
            _log.exception(what)
            return False
        return True
