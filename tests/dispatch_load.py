"""Sessions that book and release at random, singly and in batches."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from small_farm import Rows, Work, booking, make_work

from retally.procedures.booking import Booking, book, book_many, release, release_many
from retally.sql.errors import BookingRefusedError

if TYPE_CHECKING:
    import threading

    import psycopg

#: What may become of a booking beside others; anything else is a fault.
REFUSALS = {"FrameBookedError", "HostFullError", "JustTakenError", "OverCapError"}


def is_managed(conn: psycopg.Connection, show: str) -> bool:
    row = conn.execute("SELECT retally.is_managed(%s)", (show,)).fetchone()
    assert row is not None
    return bool(row[0])


class Client:
    """Books and releases at random on its own connection, singly and in batches."""

    def __init__(
        self, conn: psycopg.Connection, works: list[Work], seed: int, favourite: float = 0.9
    ) -> None:
        self.favourite = favourite  # how much of it is the first show's
        self.conn, self.works, self.draw = conn, works, random.Random(seed)
        self.hosts = hosts_of(conn)
        self.procs: list[str] = []
        self.seen: Counter[str] = Counter()

    def run(self, stop: threading.Event, frames: dict[str, list[str]]) -> Counter[str]:
        while not stop.is_set():
            self.step(frames)
        return self.seen

    def step(self, frames: dict[str, list[str]]) -> None:
        batch = self.draw.random() < 0.3
        if self.draw.random() < len(self.procs) / 30:
            self.draw.shuffle(self.procs)
            count = self.draw.randint(2, 8) if batch else 1
            gone, self.procs = self.procs[:count], self.procs[count:]
            done = release_many(self.conn, gone) if batch else [release(self.conn, gone[0])]
            self.seen.update("released" if there else "gone" for there in done)
        elif batch:
            answers = book_many(self.conn, [self.asked(frames) for _ in range(8)])
            for answer in answers:
                self.note(answer.proc, type(answer.error).__name__)
        else:
            self.book_alone(self.asked(frames))

    def book_alone(self, asked: Booking) -> None:
        try:
            with self.conn.transaction():
                proc = book(self.conn, asked)
                managed = is_managed(self.conn, asked_show(self.works, asked))
            self.seen["managed" if managed else "unmanaged"] += 1
            self.note(proc, "")
        except BookingRefusedError as error:
            self.note(None, type(error).__name__)

    def note(self, proc: str | None, error: str) -> None:
        if proc is None:
            self.seen[error] += 1
        else:
            self.procs.append(proc)
            self.seen["booked"] += 1

    def asked(self, frames: dict[str, list[str]]) -> Booking:
        first = self.draw.random() < self.favourite
        work = self.draw.choice(self.works[:2] if first else self.works[2:])
        frame = self.draw.choice([None, self.draw.choice(frames[work.layer])])
        local = frame is None and self.draw.random() < 0.1
        return booking(
            work,
            frame=frame,
            host=work.host if local else self.draw.choice(self.hosts),
            core_units=self.draw.randint(1, 300),
            mem_kb=self.draw.randint(0, 999),
            gpus=self.draw.choice([0, 0, 1]),
            local=local,
        )


def asked_show(works: list[Work], asked: Booking) -> str:
    return next(work.show for work in works if work.job == asked.job)


def hosts_of(conn: psycopg.Connection) -> list[str]:
    return [host for (host,) in conn.execute("SELECT pk_host FROM host ORDER BY pk_host")]


def two_shows(
    conn: psycopg.Connection, frames: int = 40
) -> tuple[list[Work], dict[str, list[str]]]:
    """Two shows, two jobs of each, that book on each other's hosts; some frames of each layer."""
    rows = Rows(conn)
    first, second = make_work(rows), make_work(rows)
    works = []
    for mine, other in ((first, second), (second, first)):
        rows.subscription(mine.show, other.alloc)
        folder = rows.folder(mine.show, mine.dept)
        job = rows.job(mine.show, folder, mine.dept)
        works += [mine, replace(mine, folder=folder, job=job, layer=rows.layer(job))]
        for _ in range(9):
            rows.host(mine.alloc)
    for work in works:
        rows.local_share(work.host, work.job, cores=10**6, mem=10**6, gpus=1000)
    of_layer = {work.layer: [rows.frame(work.layer) for _ in range(frames)] for work in works}
    return works, of_layer
