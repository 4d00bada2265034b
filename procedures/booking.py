"""The dispatch path: one typed call per routine, each one round trip.

``at`` is a connection, or a cursor of one: a cursor that is used again saves a fifth of the
client's work. A call is a transaction of its own unless the caller has opened one. Every one raises
the typed errors of ``retally.sql.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.rows import tuple_row

from retally.sql.errors import InvalidBookingError, by_sqlstate, translated

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from retally.sql.errors import RetallyError

    At = psycopg.Connection | psycopg.Cursor[tuple[Any, ...]]


@dataclass(frozen=True)
class Booking:
    """What is asked for: this frame on this host. Ids are the farm's (``pk_…``), as text.

    ``core_units``: 1/100 core, above 0; ``mem_kb`` and ``gpu_mem_kb``: kB; ``gpus``: whole GPUs.
    ``frame`` None books without one. ``local``: on the user's own host, from the job's share of it.
    """

    host: str
    job: str
    layer: str
    frame: str | None
    core_units: int
    mem_kb: int
    gpus: int = 0
    gpu_mem_kb: int = 0
    local: bool = False


@dataclass(frozen=True)
class Answer:
    """What became of one entry of a batch: the proc's id, or the error that kept it out.

    ``error`` is a BookingRefusedError unless a sum fits no column of the farm. ``xact``: the
    transaction that has booked the proc.
    """

    booking: Booking
    proc: str | None
    error: RetallyError | None = None
    xact: int | None = None


@dataclass(frozen=True)
class Counted:
    """Under which lease, and where, the caps of a booking were counted.

    ``token`` 0: they are, and there is no lease. ``alloc`` and ``folder``: None is not compared.
    """

    token: int | None
    alloc: str | None = None
    folder: str | None = None


#: Nobody counts: what a managed show lets in as long as nobody holds its lease.
NOT_COUNTED = Counted(None)

# not astuple(): it copies deeply, which costs more than sending the booking
_fields = attrgetter(*(field.name for field in fields(Booking)))
_counted_fields = attrgetter(*(field.name for field in fields(Counted)))

_IDS = ("host", "job", "layer", "frame")
_LIMITS = (
    ("core_units", "core units", 2**63),
    ("mem_kb", "kB", 2**63),
    ("gpus", "GPUs", 2**31),
    ("gpu_mem_kb", "kB of GPU memory", 2**63),
)

_BOOK = """
SELECT retally.book_proc(
    %s::text, %s::text, %s::text, %s::text, %s::bigint, %s::bigint, %s::integer, %s::bigint,
    %s::boolean, %s::bigint, %s::text, %s::text
), pg_current_xact_id()::text
"""

# binary: a list in text form costs a third of the client's work of a batch
_BOOK_MANY = """
SELECT b.proc, pg_current_xact_id()::text, b.problem, b.message, b.hint, b.holder
FROM retally.book_procs(
    %b::text[], %b::text[], %b::text[], %b::text[], %b::bigint[], %b::bigint[], %b::integer[],
    %b::bigint[], %b::boolean[], %b::bigint[], %b::text[], %b::text[]
) AS b
ORDER BY b.nr
"""


def book(at: At, booking: Booking, counted: Counted = NOT_COUNTED) -> str:
    """Book a proc; answers with its id. Raises BookingRefusedError."""
    return book_in(at, booking, counted)[0]


def book_in(at: At, booking: Booking, counted: Counted) -> tuple[str, int]:
    """Book a proc; answers with its id and the transaction. Raises BookingRefusedError."""
    if error := unsendable(booking):
        raise error
    params = (*_fields(booking), *_counted_fields(counted))
    with translated():
        row = _cursor(at).execute(_BOOK, params).fetchone()
    assert row is not None  # noqa: S101 - a scalar function has always one row
    return str(row[0]), int(row[1])


def release(at: At, proc: str) -> bool:
    """End a proc and give back what it held; False when it is gone, and nothing has changed."""
    with translated():
        row = _cursor(at).execute("SELECT retally.release_proc(%s::text)", (proc,)).fetchone()
    return bool(row and row[0])


def book_many(
    at: At, bookings: Iterable[Booking], counted: Sequence[Counted] | None = None
) -> list[Answer]:
    """Book many procs in one transaction; the answers are in the order of ``bookings``.

    A booking that is refused does not hinder the others; its error is in its answer. ``counted``:
    one for each booking; None: nobody counts.
    """
    bookings = list(bookings)
    columns = _columns(bookings)
    if columns and _plain(columns):
        return _book_many(at, bookings, columns, counted)
    kept = {nr: error for nr, each in enumerate(bookings) if (error := unsendable(each))}
    sent = [each for nr, each in enumerate(bookings) if nr not in kept]
    if counted:
        counted = [each for nr, each in enumerate(counted) if nr not in kept]
    answers = iter(_book_many(at, sent, _columns(sent), counted) if sent else [])
    return [
        Answer(each, None, kept[nr]) if nr in kept else next(answers)
        for nr, each in enumerate(bookings)
    ]


def release_many(at: At, procs: Iterable[str]) -> list[bool]:
    """End many procs in one transaction; for each, in order, whether it was there.

    A proc that is named twice was there once.
    """
    query = "SELECT r.released FROM retally.release_procs(%b::text[]) AS r ORDER BY r.nr"
    with translated():
        return [row[0] for row in _cursor(at).execute(query, (list(procs),)).fetchall()]


def _columns(bookings: Sequence[Booking]) -> list[list[Any]]:
    return [list(column) for column in zip(*map(_fields, bookings), strict=True)]


def _book_many(
    at: At,
    bookings: Sequence[Booking],
    columns: Sequence[list[Any]],
    counted: Sequence[Counted] | None,
) -> list[Answer]:
    more: Sequence[list[Any] | None] = (None, None, None)
    if counted:
        more = [list(column) for column in zip(*map(_counted_fields, counted), strict=True)]
    with translated():
        rows = _cursor(at).execute(_BOOK_MANY, (*columns, *more)).fetchall()
    return [
        Answer(booking, proc, by_sqlstate(*problem) if problem[0] else None, int(xact))
        for booking, (proc, xact, *problem) in zip(bookings, rows, strict=True)
    ]


def _cursor(at: At) -> psycopg.Cursor[tuple[Any, ...]]:
    return at if isinstance(at, psycopg.Cursor) else at.cursor(row_factory=tuple_row)


def unsendable(booking: Booking) -> InvalidBookingError | None:
    """What no parameter can hold: it could not even be sent, and would fail its whole batch."""
    for name, unit, limit in _LIMITS:
        value = getattr(booking, name)
        if value is not None and not (type(value) is int and -limit <= value < limit):
            return InvalidBookingError(
                f"nothing can be booked with {value!r} {unit}",
                f"a whole number is asked for, {limit - 1} at most",
            )
    if not isinstance(booking.local, bool | None):
        return InvalidBookingError(f"local is {booking.local!r}", "say True or False")
    for name in _IDS:
        if not _is_text(getattr(booking, name)):
            return InvalidBookingError(
                f"{name} is {getattr(booking, name)!r}", "an id is text, as the farm has it"
            )
    return None


def _plain(columns: Sequence[list[Any]]) -> bool:
    """Whether none is unsendable, by a look at whole columns: ten times as fast."""
    ids, numbers, (local,) = columns[:4], columns[4:8], columns[8:]
    text = "".join(each for column in ids for each in column if type(each) is str)
    return (
        text.isascii()
        and "\0" not in text
        and all({*map(type, column)} <= {str, type(None)} for column in ids)
        and all({*map(type, column)} == {int} for column in numbers)
        and all(
            -limit <= min(column) and max(column) < limit
            for column, (*_, limit) in zip(numbers, _LIMITS, strict=True)
        )
        and {*map(type, local)} == {bool}
    )


def _is_text(value: object) -> bool:
    """Whether a text parameter can hold it: no NUL, no half of a surrogate pair."""
    if not isinstance(value, str):
        return value is None
    if "\0" in value:
        return False
    return value.isascii() or not any("\ud800" <= c <= "\udfff" for c in value)
