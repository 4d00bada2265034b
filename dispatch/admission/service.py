"""Admission as a dispatcher has it: the gate and the threads behind it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from retally.dispatch.admission.gate import Gate
from retally.dispatch.admission.keeper import Keeper
from retally.dispatch.admission.records import AdmissionStats, ServedShow
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Collection

    from retally.dispatch.admission.line import Connected
    from retally.dispatch.admission.settings import Admission


class AdmissionService:
    """The admission of one dispatcher, until ``close``. ``dsn`` as for ``connect``.

    ``connected`` lends a connection of the dispatcher's: who needs a show taken waits anyway.
    """

    def __init__(self, dsn: str | None, settings: Admission, connected: Connected) -> None:
        self._connected = connected
        self._keeper = Keeper(dsn, settings)
        self.gate = Gate(settings, connected, lambda: self._keeper.start(self.gate))

    def close(self) -> None:
        """Give up all shows, and end the threads. Bookings that are not over are refused.

        Where the database is away, the leases end by themselves.
        """
        self._keeper.stop()
        self.gate.shows.close()
        with contextlib.suppress(RetallyError):
            self.give_up(list(self.gate.store.tokens()))

    def give_up(self, show_ids: Collection[str]) -> None:
        """Serve these shows no more."""
        with self._connected() as conn:
            self.gate.shows.give_up(conn, show_ids)

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
