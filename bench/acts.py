"""What a client does again and again, whatever it sends its bookings through."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from retally.bench.errors import BenchError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from retally.procedures.booking import Answer, Booking

    #: Does one call and answers with its procs; StopIteration when there is no work left.
    Act = Callable[[], int]


def booking(
    book: Callable[[Booking], object],
    book_many: Callable[[list[Booking]], Sequence[Answer]],
    bookings: Iterator[Booking],
    batch: int,
) -> Act:
    """Books ``batch`` procs a call; one that is refused is raised."""

    def one() -> int:
        book(next(bookings))
        return 1

    def many() -> int:
        answers = book_many(_taken(bookings, batch))
        for answer in answers:
            if answer.error:
                raise answer.error
        return len(answers)

    return one if batch == 1 else many


def releasing(
    release: Callable[[str], bool],
    release_many: Callable[[list[str]], Sequence[bool]],
    bookings: Iterator[Booking],
    batch: int,
) -> Act:
    """Ends ``batch`` procs a call, those that the bookings' frames have: their ids are the frames'.

    One that is gone is a BenchError.
    """

    def one() -> int:
        expect_there(release(str(next(bookings).frame)))
        return 1

    def many() -> int:
        procs = [str(booking.frame) for booking in _taken(bookings, batch)]
        expect_there(all(release_many(procs)))
        return len(procs)

    return one if batch == 1 else many


def expect_there(there: bool) -> None:
    """Raise BenchError when a proc was not there that should have been."""
    if not there:
        raise BenchError("a proc that the benchmark had made is gone: somebody else is at work")


def _taken(bookings: Iterator[Booking], batch: int) -> list[Booking]:
    taken = list(islice(bookings, batch))
    if len(taken) < batch:
        raise StopIteration
    return taken
