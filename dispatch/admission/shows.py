"""The shows: takes their leases, counts them, and gives them up again."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from retally.procedures import admission as calls
from retally.sql.errors import RetallyError, ServedElsewhereError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    import psycopg

    from retally.dispatch.admission.line import Connected
    from retally.dispatch.admission.settings import Admission
    from retally.dispatch.admission.store import Store

# How long a show is left alone that another one serves, or that could not be counted.
_PAUSE_SECONDS = 1.0

_log = logging.getLogger("retally.dispatch")


@dataclass
class _Show:
    """A show; ``lock`` is held by whoever takes its lease or counts it."""

    name: str
    managed: bool
    lock: threading.Lock = field(default_factory=threading.Lock)
    pause_until: float = float("-inf")
    reason: RetallyError | None = None


class Shows:
    """The shows that this process has met. Any thread may call; none holds up another show's."""

    def __init__(
        self,
        settings: Admission,
        store: Store,
        connected: Connected,
        on_served: Callable[[], None],
    ) -> None:
        self._holder = settings.holder()
        self._lease_seconds = settings.lease_seconds
        self._store = store
        self._connected = connected
        self._on_served = on_served
        self._lock = threading.Lock()
        self._shows: dict[str, _Show] = {}
        self._closed = False

    def learn(self, show_id: str, name: str, *, managed: bool) -> None:
        """What a look at the database has said of a show."""
        with self._lock:
            known = self._shows.setdefault(show_id, _Show(name, managed))
            known.managed = managed

    def name(self, show_id: str) -> str:
        """What people call the show."""
        return self._shows[show_id].name

    def is_managed(self, show_id: str) -> bool:
        """Whether the show was managed when it was looked at last; refusals say when it changes."""
        return self._shows[show_id].managed

    def elsewhere(self) -> frozenset[str]:
        """The shows that others were found to serve a moment ago, by id."""
        now = time.monotonic()
        with self._lock:
            return frozenset(
                show_id
                for show_id, show in self._shows.items()
                if isinstance(show.reason, ServedElsewhereError) and now < show.pause_until
            )

    def look_again(self, show_id: str) -> None:
        """A booking was refused that took the show for unmanaged."""
        self._shows[show_id].managed = True

    def serve(self, show_id: str) -> None:
        """Take the lease of the show and count it, unless that is done.

        What was booked under any former lease is in the count. Raises ServedElsewhereError, and
        what went wrong; then it raises the same again for a moment, and asks nobody.
        """
        show = self._shows[show_id]
        with show.lock:
            if self._store.token(show_id) is not None:
                return
            if self._closed:
                raise ServedElsewhereError(
                    f'show "{show.name}" is served no more: this dispatcher is being closed',
                    "book by another one",
                )
            if show.reason and time.monotonic() < show.pause_until:
                raise type(show.reason)(str(show.reason), show.reason.hint) from show.reason
            try:
                self._serve(show_id, show)
            except RetallyError as error:
                show.reason = error
                show.pause_until = time.monotonic() + _PAUSE_SECONDS
                raise
            show.reason = None

    def recount(self, show_id: str) -> None:
        """Read caps and procs of a served show anew, keeping what the snapshot may have missed."""
        with self._shows[show_id].lock, self._connected() as conn:
            self._recount(conn, show_id)

    def recount_unless_busy(self, conn: psycopg.Connection, show_id: str) -> bool:
        """The same on this connection; False while somebody else takes or counts the show."""
        show = self._shows[show_id]
        if not show.lock.acquire(blocking=False):
            return False
        try:
            self._recount(conn, show_id)
        finally:
            show.lock.release()
        return True

    def recount_or_drop(self, show_id: str) -> None:
        """The same; a show that cannot be counted now is served no more until it can."""
        try:
            self.recount(show_id)
        except RetallyError as error:
            _log.warning("show %s is served no more: %s", self.name(show_id), error)
            self._store.drop(show_id)

    def _recount(self, conn: psycopg.Connection, show_id: str) -> None:
        recount = self._store.begin_recount(show_id)
        if recount is None:
            return
        try:
            self._store.end_recount(recount, calls.counts(conn, show_id))
        finally:
            self._store.give_up_recount(recount)

    def close(self) -> None:
        """Serve no more shows, and wait for those that are being taken."""
        self._closed = True
        with self._lock:
            shows = list(self._shows.values())
        for show in shows:
            with show.lock:
                continue

    def give_up(self, conn: psycopg.Connection, show_ids: Collection[str]) -> None:
        """Serve these shows no more, so that another dispatcher can take them at once."""
        tokens = {show: token for show, token in self._store.tokens().items() if show in show_ids}
        for show_id, token in tokens.items():
            self._store.drop(show_id, token)
        if tokens:
            calls.end_leases(conn, self._holder, tokens)

    def keep(self, conn: psycopg.Connection) -> list[str]:
        """Make the leases last, and drop shows whose lease is gone; those to give up to others."""
        tokens = self._store.tokens()
        if not tokens:
            return []
        kept = calls.keep_leases(conn, self._holder, tokens, self._lease_seconds)
        for show_id, token in tokens.items():
            if show_id not in kept and self._store.drop(show_id, token):
                _log.warning("the lease of show %s is gone", self._shows[show_id].name)
        return [show_id for show_id, wanted in kept.items() if wanted]

    def _serve(self, show_id: str, show: _Show) -> None:
        with self._connected() as conn:
            taking = calls.take_lease(conn, show_id, show.name, self._holder, self._lease_seconds)
            show.managed = taking.managed
            if not taking.managed:
                return
            if taking.token is None:
                raise ServedElsewhereError(
                    f'show "{show.name}" is served by dispatcher {taking.served_by}',
                    "leave it to that one; it is asked again in a second",
                )
            counts = calls.counts(conn, show_id)
        self._store.seed(show_id, taking.token, counts)
        self._on_served()
