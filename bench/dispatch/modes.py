"""One transaction of each mode, as a client of that kind sends it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, LiteralString
from uuid import uuid4

from retally.bench.dispatch.records import Action, Mode
from retally.bench.errors import BenchError
from retally.procedures import booking as product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    from retally.bench.dispatch.records import Spec

    #: Does one transaction and answers with its procs; StopIteration when there is no work left.
    Act = Callable[[], int]

# The same columns and amounts as book_proc() writes.
_HOST = """
UPDATE public.host
SET
    int_cores_idle = int_cores_idle - %s, int_mem_idle = int_mem_idle - %s,
    int_gpus_idle = int_gpus_idle - %s, int_gpu_mem_idle = int_gpu_mem_idle - %s
WHERE pk_host = %s
"""
_PROC = """
INSERT INTO public.proc (
    pk_proc, pk_host, pk_show, pk_job, pk_layer, pk_frame, int_cores_reserved,
    int_mem_reserved, int_mem_pre_reserved, int_gpus_reserved, int_gpu_mem_reserved,
    int_gpu_mem_pre_reserved, b_local
) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)
"""
_SUBSCRIPTION = """
UPDATE public.subscription SET int_cores = int_cores + %s, int_gpus = int_gpus + %s
WHERE pk_show = %s AND pk_alloc = %s
"""
_LAYER = """
UPDATE public.layer_resource SET int_cores = int_cores + %s, int_gpus = int_gpus + %s
WHERE pk_layer = %s
"""
_JOB = """
UPDATE public.job_resource SET int_cores = int_cores + %s, int_gpus = int_gpus + %s
WHERE pk_job = %s
"""
_FOLDER = """
UPDATE public.folder_resource SET int_cores = int_cores + %s, int_gpus = int_gpus + %s
WHERE pk_folder = %s
"""
_POINT = """
UPDATE public.point SET int_cores = int_cores + %s, int_gpus = int_gpus + %s
WHERE pk_show = %s AND pk_dept = %s
"""


@dataclass(frozen=True)
class Target:
    """The rows of the show that every booking counts in, as a client would know them: ids."""

    show: str
    alloc: str
    folder: str
    dept: str


def act(
    spec: Spec, conn: psycopg.Connection, target: Target, bookings: Iterator[product.Booking]
) -> Act:
    """What a client of this kind does again and again; ``bookings`` is its work.

    A release ends the proc that the booking's frame has: its id is the frame's.
    """
    # as Dispatcher(prepared=…) has it; a product that is held against prepared statements may
    # prepare its own
    conn.prepare_threshold = 0 if spec.prepared else None
    if spec.mode in {Mode.BARE, Mode.INLINE}:
        return _by_statements(conn, target, bookings, inline=spec.mode is Mode.INLINE)
    if spec.action is Action.RELEASE:
        return _release(conn, bookings, spec.batch)
    return _book(conn, bookings, spec.batch)


def _book(conn: psycopg.Connection, bookings: Iterator[product.Booking], batch: int) -> Act:
    cursor = conn.cursor()  # as Dispatcher keeps one for each of its connections

    def one() -> int:
        product.book(cursor, next(bookings))
        return 1

    def many() -> int:
        answers = product.book_many(cursor, _taken(bookings, batch))
        for answer in answers:
            if answer.error:
                raise answer.error
        return len(answers)

    return one if batch == 1 else many


def _release(conn: psycopg.Connection, bookings: Iterator[product.Booking], batch: int) -> Act:
    cursor = conn.cursor()

    def one() -> int:
        _expect_there(product.release(cursor, str(next(bookings).frame)))
        return 1

    def many() -> int:
        procs = [str(booking.frame) for booking in _taken(bookings, batch)]
        _expect_there(all(product.release_many(cursor, procs)))
        return len(procs)

    return one if batch == 1 else many


def _by_statements(
    conn: psycopg.Connection, target: Target, bookings: Iterator[product.Booking], *, inline: bool
) -> Act:
    """BEGIN, the statements, COMMIT: one round trip each."""
    # off autocommit psycopg sends BEGIN by itself, before the first statement
    conn.autocommit = False
    cursor = conn.cursor()

    def run(query: LiteralString, params: tuple[object, ...]) -> None:
        cursor.execute(query, params)

    def one() -> int:
        b = next(bookings)
        counted = (b.core_units, b.gpus)
        amounts = (b.core_units, b.mem_kb, b.gpus, b.gpu_mem_kb)
        if not inline:
            run(_PROC, _proc(target, b))
            run(_HOST, (*amounts, b.host))
        else:
            run(_HOST, (*amounts, b.host))
            run(_PROC, _proc(target, b))
            run(_SUBSCRIPTION, (*counted, target.show, target.alloc))
            run(_LAYER, (*counted, b.layer))
            run(_JOB, (*counted, b.job))
            run(_FOLDER, (*counted, target.folder))
            run(_POINT, (*counted, target.show, target.dept))
        conn.commit()
        return 1

    return one


def _proc(target: Target, b: product.Booking) -> tuple[object, ...]:
    return (
        str(uuid4()),
        b.host,
        target.show,
        b.job,
        b.layer,
        b.frame,
        b.core_units,
        b.mem_kb,
        b.mem_kb,
        b.gpus,
        b.gpu_mem_kb,
        b.gpu_mem_kb,
        b.local,
    )


def _taken(bookings: Iterator[product.Booking], batch: int) -> list[product.Booking]:
    taken = list(islice(bookings, batch))
    if len(taken) < batch:
        raise StopIteration
    return taken


def _expect_there(there: bool) -> None:
    if not there:
        raise BenchError("a proc that the benchmark had made is gone: somebody else is at work")
