"""A Dispatcher with admission at work: what it fills, and what it tells of itself."""

from __future__ import annotations

from typing import TYPE_CHECKING

from small_farm import Work, booking

from retally.dispatch import Admission, Dispatcher
from retally.sql.errors import OverCapError

if TYPE_CHECKING:
    import psycopg

    from retally.dispatch import AdmissionStats

#: Nothing comes by itself: no recount within the test, nothing is heard.
DEAF = Admission(recount_seconds=3600, notify=False)


def procs(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT count(*) FROM proc").fetchone()
    assert row is not None
    return int(row[0])


def fill(dispatcher: Dispatcher, work: Work, core_units: int = 100) -> list[str]:
    """Book until a cap is met."""
    booked = []
    while True:
        try:
            booked.append(dispatcher.book(booking(work, core_units=core_units)))
        except OverCapError:
            return booked


def stats(dispatcher: Dispatcher) -> AdmissionStats:
    found = dispatcher.stats()
    assert found is not None
    return found
