"""Admission as a dispatcher has it: the gate, its threads and their connections."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from retally.dispatch.admission.gate import Gate
from retally.dispatch.admission.keeper import Keeper
from retally.dispatch.admission.stats import AdmissionStats, ServedShow
from retally.sql.connect import pool
from retally.sql.errors import RetallyError, translated

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from retally.dispatch.admission.settings import Admission

# Made on demand: one each for heartbeats and recounts, the others for shows that are taken.
_CONNECTIONS = 8
_WAIT_SECONDS = 10.0


class AdmissionService:
    """The admission of one dispatcher, until ``close``. ``dsn`` as for ``connect``."""

    def __init__(self, dsn: str | None, settings: Admission) -> None:
        self._pool = pool(dsn, max_size=_CONNECTIONS, timeout=_WAIT_SECONDS)
        self._pool.open()
        self._keeper = Keeper(dsn, settings)
        self.gate = Gate(settings, self._connected, lambda: self._keeper.start(self.gate))

    def close(self) -> None:
        """Give up all shows, and end the threads; bookings have to be over.

        Where the database is away, the leases end by themselves.
        """
        self._keeper.stop()
        with contextlib.suppress(RetallyError):
            self.gate.shows.give_up(list(self.gate.store.tokens()))
        self._pool.close()

    def stats(self) -> AdmissionStats:
        """What has happened so far."""
        counts, keeper = self.gate.store.counts(), self._keeper
        listener, name = keeper.listener, self.gate.shows.name
        return AdmissionStats(
            booked=counts.booked,
            rolled_back=counts.rolled_back,
            in_doubt=counts.in_doubt,
            in_flight=counts.in_flight,
            refused=counts.refused,
            served=tuple(
                ServedShow(show, name(show), age) for show, age in counts.seed_ages.items()
            ),
            recounts=keeper.recounts,
            failures=keeper.failures,
            listener=listener.state,
            releases=listener.releases,
            limit_changes=listener.limit_changes,
            malformed=listener.malformed,
            connects=listener.connects,
        )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        with translated(), self._pool.connection() as conn:
            yield conn
