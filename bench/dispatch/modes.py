"""One transaction of each mode, as a client of that kind sends it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, LiteralString
from uuid import uuid4

from retally.bench.acts import booking, releasing
from retally.bench.dispatch.records import Action, Mode
from retally.procedures import booking as product

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

    from retally.bench.acts import Act
    from retally.bench.dispatch.records import Spec

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
    cursor = conn.cursor()  # as Dispatcher keeps one for each of its connections
    if spec.action is Action.RELEASE:
        release, release_many = product.release, product.release_many
        return releasing(
            partial(release, cursor), partial(release_many, cursor), bookings, spec.batch
        )
    book, book_many = product.book, product.book_many
    return booking(partial(book, cursor), partial(book_many, cursor), bookings, spec.batch)


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
