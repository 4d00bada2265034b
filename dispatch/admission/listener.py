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

    from retally.dispatch.admission.store import Store

_LOOK_SECONDS = 0.2  # how often it looks whether it is to end
_CHECK_SECONDS = 10.0  # how often it looks whether it is still heard
_FIRST_PAUSE = 1.0
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
    """Tells a store what it hears.

    ``on_gap``: something may have been missed. ``on_hint``: what was heard does not say when it
    was, so that only a recount can tell.
    """

    def __init__(
        self, dsn: str | None, *, on_gap: Callable[[], None], on_hint: Callable[[], None]
    ) -> None:
        self._dsn = dsn
        self._on_gap = on_gap
        self._on_hint = on_hint
        self.state = ListenerState.OFF
        self.releases = self.limit_changes = self.malformed = self.connects = 0

    def run(self, store: Store, stop: threading.Event) -> None:
        """Listen until ``stop`` is set; a lost connection is made again."""
        failures = 0
        while not stop.is_set():
            self.state = ListenerState.CONNECTING
            try:
                with connect(self._dsn) as conn, translated():
                    self._listen(conn)
                    failures = 0
                    self._hear(conn, store, stop)
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
                stop.wait(pause_after(failures, _FIRST_PAUSE))
        self.state = ListenerState.OFF

    def _listen(self, conn: psycopg.Connection) -> None:
        self._check(conn)
        for channel in _CHANNELS:
            conn.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))
        self.state = ListenerState.LISTENING
        self.connects += 1
        # what was sent until now was not heard
        self._on_gap()

    def _check(self, conn: psycopg.Connection) -> None:
        # a pooler gives out numbers of its own: its sessions are not ours to listen in
        if conn.execute("SELECT pg_backend_pid()").fetchone() != (conn.info.backend_pid,):
            raise DeafError(
                "a connection pooler stands between, and nothing can be heard through it",
                "give the server's own address as listen_dsn",
            )

    def _hear(self, conn: psycopg.Connection, store: Store, stop: threading.Event) -> None:
        check_at = time.monotonic() + _CHECK_SECONDS
        while not stop.is_set():
            for notification in conn.notifies(timeout=_LOOK_SECONDS):
                self._take(notification.channel, notification.payload, store)
                if stop.is_set():
                    return
            if time.monotonic() >= check_at:
                self._check(conn)
                check_at = time.monotonic() + _CHECK_SECONDS

    def _take(self, channel: str, payload: str, store: Store) -> None:
        try:
            if channel == wire.RELEASES:
                release = wire.release(payload)
                store.release(release)
                self.releases += 1
                is_placed = release.xact is not None
            else:
                change = wire.limit_change(payload)
                store.change_limit(change)
                self.limit_changes += 1
                is_placed = change.xact is not None
        except wire.MalformedPayloadError as error:
            self.malformed += 1
            _log.warning("%s: %.200r: %s", channel, payload, error)
            return
        if not is_placed:
            self._on_hint()
