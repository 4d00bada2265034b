"""Listens to releases and changes of caps, on a connection of its own.

What it hears is a hint: it makes the store right sooner. What it misses, a recount finds.
"""

from __future__ import annotations

import logging
import time
from enum import StrEnum
from typing import TYPE_CHECKING

from psycopg import sql

from retally.dispatch.admission import wire
from retally.sql.backoff import pause_after
from retally.sql.connect import connect
from retally.sql.errors import RetallyError, translated

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    import psycopg

    from retally.dispatch.admission.gate import Gate

_LOOK_SECONDS = 0.2  # how often it looks whether it is to end
_CHECK_SECONDS = 10.0  # how often it looks whether it is still heard
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 10.0
# Messages that make no sense are logged no more often.
_LOG_SECONDS = 10.0
_CHANNELS = (wire.RELEASES, wire.LIMITS)

_log = logging.getLogger("retally.dispatch")


class ListenerState(StrEnum):
    """What the listener is doing."""

    OFF = "off"
    CONNECTING = "connecting"
    LISTENING = "listening"


class DeafError(RetallyError):
    """The session that is asked is not the one that was connected to: a pooler is between."""


class Listener:
    """Tells a gate what it hears; ``on_hint``: only a recount of these shows can tell the rest."""

    def __init__(self, dsn: str | None, on_hint: Callable[[set[str]], None]) -> None:
        self._dsn = dsn
        self._on_hint = on_hint
        self.state = ListenerState.OFF
        self.releases = self.limit_changes = self.malformed = self.connects = 0
        self._logged_at = float("-inf")

    def run(self, gate: Gate, stop: threading.Event) -> None:
        """Listen until ``stop`` is set; a lost connection is made again."""
        failures = 0
        while not stop.is_set():
            self.state = ListenerState.CONNECTING
            try:
                with connect(self._dsn) as conn, translated():
                    self._listen(conn)
                    failures = 0
                    # what was sent until now was not heard
                    self._on_hint(set(gate.store.tokens()))
                    self._hear(conn, gate, stop)
            except RetallyError as error:
                failures += 1
                if failures == 1:
                    _log.warning("nothing is heard of releases and caps for now: %s", error)
            except Exception:
                # whatever it is, bookings go on without it
                failures += 1
                _log.exception("the listener failed")
            if failures:
                self.state = ListenerState.CONNECTING
                stop.wait(pause_after(failures, _FIRST_PAUSE, _LONGEST_PAUSE))
        self.state = ListenerState.OFF

    def _listen(self, conn: psycopg.Connection) -> None:
        self._check(conn)
        for channel in _CHANNELS:
            conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self.state = ListenerState.LISTENING
        self.connects += 1

    def _check(self, conn: psycopg.Connection) -> None:
        # a pooler gives out numbers of its own: its sessions are not ours to listen in
        if conn.execute("SELECT pg_backend_pid()").fetchone() != (conn.info.backend_pid,):
            raise DeafError(
                "a connection pooler stands between, and nothing can be heard through it",
                "give the server's own address as listen_dsn",
            )

    def _hear(self, conn: psycopg.Connection, gate: Gate, stop: threading.Event) -> None:
        check_at = time.monotonic() + _CHECK_SECONDS
        while not stop.is_set():
            for notification in conn.notifies(timeout=_LOOK_SECONDS):
                self._take(notification.channel, notification.payload, gate)
                if stop.is_set():
                    return
            if time.monotonic() >= check_at:
                self._check(conn)
                check_at = time.monotonic() + _CHECK_SECONDS

    def _take(self, channel: str, payload: str, gate: Gate) -> None:
        try:
            if channel == wire.RELEASES:
                self._take_release(payload, gate)
            else:
                self._take_limit(payload, gate)
        except wire.MalformedPayloadError as error:
            self.malformed += 1
            if time.monotonic() >= self._logged_at + _LOG_SECONDS:
                self._logged_at = time.monotonic()
                _log.warning("%s: %.200r: %s", channel, payload, error)

    def _take_release(self, payload: str, gate: Gate) -> None:
        release = wire.release(payload)
        is_placed = gate.hear_release(release)
        self.releases += 1
        if not is_placed:
            self._on_hint({release.show})

    def _take_limit(self, payload: str, gate: Gate) -> None:
        change = wire.limit_change(payload)
        is_known = gate.store.change_limit(change)
        self.limit_changes += 1
        if not is_known:
            self._on_hint({change.show} if change.show else set(gate.store.tokens()))
