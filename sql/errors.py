"""Every error that retally raises on purpose, and the one map from SQLSTATE to them.

The private SQLSTATE class is ``RT``; the routines in ``procedures/`` raise it with a message that
names the thing and a HINT that says what to do. ``typed`` turns whatever psycopg raised into one
of these, so that callers never match message texts.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import psycopg

if TYPE_CHECKING:
    from collections.abc import Iterator


class RetallyError(Exception):
    """Root of every error of retally's own.

    ``str(error)`` names the thing; ``hint`` says what to do about it and may be empty.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class UnknownShowError(RetallyError):
    """RT001: no show has this name or id."""


class AmbiguousShowError(RetallyError):
    """RT002: several shows answer to this name."""


class WrongIsolationError(RetallyError):
    """RT003: not READ COMMITTED: a second sum would miss new bookings, a booking a flip."""


class UnknownTotalError(RetallyError):
    """RT004: not one of the five totals."""


class ShowBusyError(RetallyError):
    """RT005: another writer, or bookings in flight, held the show and did not let go in time."""


class StillBusyError(RetallyError):
    """RT006: a row stayed locked although the caller needs it rebuilt now."""


class FarmSchemaError(RetallyError):
    """RT007: the database holds no farm, or one that lacks a column that retally reads."""


class BookingRefusedError(RetallyError):
    """A proc was not booked, and nothing has changed; the subclass says why."""


class InvalidBookingError(BookingRefusedError):
    """RT008: no cores, an amount below zero or missing, or arrays that differ in length."""


class UnknownWorkError(BookingRefusedError):
    """RT009: no such job, layer, frame or host, or they do not belong together."""


class FrameBookedError(BookingRefusedError):
    """RT010: the frame has a proc already; ``proc`` is its id."""

    def __init__(self, message: str, hint: str = "", proc: str = "") -> None:
        super().__init__(message, hint)
        self.proc = proc


class HostFullError(BookingRefusedError):
    """RT011: the host, or the job's local share of it, has not enough idle."""


class OverCapError(BookingRefusedError):
    """RT012: a burst, or a folder's or job's maximum, would be passed.

    Unmanaged shows: by the database; folders have no maximum there. Managed ones: by admission.
    """


class NoSubscriptionError(BookingRefusedError):
    """RT013: the show has no subscription to the host's allocation."""


class JustTakenError(BookingRefusedError):
    """RT014: somebody else was first, and what stood in the way is gone by now: try again."""


class ServedElsewhereError(BookingRefusedError):
    """RT019: no lease, or another dispatcher's, or one that has ended: the caps are not counted."""


class MovedError(BookingRefusedError):
    """RT020: the job or the host has moved since the booking's caps were counted: try again."""


class RepairRefusedError(RetallyError):
    """RT015: a repair would change too much of an unmanaged show at once; nothing has changed."""


class UnknownRunError(RetallyError):
    """RT016: the ledger has no run of this number."""


class ManagedShowError(RetallyError):
    """RT017: an undo would put wrong totals into a show that is managed; nothing has changed."""


class UnmanagedShowError(RetallyError):
    """RT018: an unmanaged show cannot be journaled: its bookings keep the totals themselves."""


class FarmExistsError(RetallyError):
    """The database already holds a farm, or tables that one would collide with."""


class NotInstalledError(RetallyError):
    """The schema ``retally`` is missing, or older or newer than this program."""


class StillUsedError(RetallyError):
    """Objects of others depend on what is to be dropped."""


class DatabaseUnreachableError(RetallyError):
    """No connection: wrong DSN, server down, or lost in mid-run."""


class NoConnectionError(RetallyError):
    """Every connection of the pool was busy for too long; nothing was sent."""


class PermissionDeniedError(RetallyError):
    """The role may not do this."""


class DeadlockError(RetallyError):
    """PostgreSQL ended this transaction to end a circle of waits; nothing of it has happened."""


class DatabaseError(RetallyError):
    """Anything else that the server refused."""


class EmbeddedServerError(RetallyError):
    """The embedded PostgreSQL cannot be found or started."""


class FarmSizeError(RetallyError):
    """The size asked of a farm cannot be: procs without hosts, a share above 1."""


class SimulationError(RetallyError):
    """What is to be simulated cannot be: no dispatcher, a share above 1, a time below 0."""


_BY_SQLSTATE: dict[str, type[RetallyError]] = {
    "RT001": UnknownShowError,
    "RT002": AmbiguousShowError,
    "RT003": WrongIsolationError,
    "RT004": UnknownTotalError,
    "RT005": ShowBusyError,
    "RT006": StillBusyError,
    "RT007": FarmSchemaError,
    "RT008": InvalidBookingError,
    "RT009": UnknownWorkError,
    "RT010": FrameBookedError,
    "RT011": HostFullError,
    "RT012": OverCapError,
    "RT013": NoSubscriptionError,
    "RT014": JustTakenError,
    "RT015": RepairRefusedError,
    "RT016": UnknownRunError,
    "RT017": ManagedShowError,
    "RT018": UnmanagedShowError,
    "RT019": ServedElsewhereError,
    "RT020": MovedError,
    "40P01": DeadlockError,
    "42501": PermissionDeniedError,
}

_INSTALL = "run `retally install` in this database, with this version of retally"
_REACH = (
    "check --dsn, RETALLY_DSN, the settings file or libpq's PG… variables, and that the server runs"
)
_PRIMARY = "connect to the primary server: a replica takes no changes"
_HINTS = {
    "40P01": "nothing has changed: send it again",
    "42501": "grant the role what `retally grants` prints, or connect as the owner",
}


def by_sqlstate(state: str, message: str, hint: str = "", detail: str = "") -> RetallyError:
    """The error of a private SQLSTATE, raised by a routine or answered instead of raised.

    ``detail``: the proc that holds the frame, for RT010.
    """
    kind = _BY_SQLSTATE.get(state, DatabaseError)
    if issubclass(kind, FrameBookedError):
        return kind(message, hint, detail)
    return kind(message, hint)


def typed(error: psycopg.Error) -> RetallyError:
    """The retally error for what psycopg raised; the caller chains it with ``from``."""
    state = error.sqlstate or ""
    message = " ".join((error.diag.message_primary or str(error)).split())
    hint = error.diag.message_hint or ""
    if state in _BY_SQLSTATE:
        hint = hint or _HINTS.get(state, "")
        return by_sqlstate(state, message, hint, error.diag.message_detail or "")
    if state == "23503" and error.diag.table_name == "proc":
        gone = error.diag.message_detail or message
        return UnknownWorkError(f"it was deleted a moment ago: {gone}", "book what is there")
    if state == "2BP01":
        users = "; ".join((error.diag.message_detail or "").splitlines()[:5])
        return StillUsedError(f"{message}: {users}", "drop these first, they are not retally's")
    if state == "25006":
        return DatabaseError(message, hint or _PRIMARY)
    if state in {"3F000", "42883", "42P01"} and "retally" in message:
        return NotInstalledError(message, hint or _INSTALL)
    lost = isinstance(error, psycopg.OperationalError) and not state
    if lost or state[:2] in {"08", "28", "3D"} or state in {"57P01", "57P02", "57P03"}:
        return DatabaseUnreachableError(message, hint or _REACH)
    return DatabaseError(f"{message} (SQLSTATE {state or 'none'})", hint)


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Let no psycopg error out of the block: raise the typed one instead."""
    try:
        yield
    except psycopg.Error as error:
        raise typed(error) from error
