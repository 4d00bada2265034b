"""Shows that run into their caps all the time, and whoever looks whether one was passed."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retally.bench.acts import expect_there
from retally.bench.ground import all_hosts, bookings
from retally.sql.connect import connect
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retally.dispatch import Booking, Dispatcher

#: Frames that a client has of each of its shows: all of them together would pass every cap.
FRAMES_EACH = 200
_CORES = (100, 150, 200, 400)  # core units; the half core is cut from what a notification says
_GPUS = (0, 0, 0, 1)
_LOOK_SECONDS = 0.2
_FULL_SECONDS = 0.001
_MOST_EXAMPLES = 10

# One statement, one snapshot. It shares nothing with retally's own.
_OVER = """
WITH booked AS MATERIALIZED (
    SELECT
        p.pk_show, h.pk_alloc, j.pk_folder, p.pk_job,
        sum(p.int_cores_reserved) AS cores, sum(p.int_gpus_reserved) AS gpus
    FROM public.proc AS p
    INNER JOIN public.host AS h ON p.pk_host = h.pk_host
    INNER JOIN public.job AS j ON p.pk_job = j.pk_job
    WHERE NOT p.b_local
    GROUP BY p.pk_show, h.pk_alloc, j.pk_folder, p.pk_job
),
vertex AS (
    SELECT
        'subscription' AS kind, b.pk_show || ' to ' || b.pk_alloc AS name,
        sum(b.cores) AS cores, coalesce(min(s.int_burst), 0) AS max_cores,
        0 AS gpus, NULL::bigint AS max_gpus
    FROM booked AS b
    LEFT JOIN public.subscription AS s ON b.pk_show = s.pk_show AND b.pk_alloc = s.pk_alloc
    GROUP BY b.pk_show, b.pk_alloc
    UNION ALL
    SELECT
        'folder', b.pk_folder, sum(b.cores), min(r.int_max_cores), sum(b.gpus), min(r.int_max_gpus)
    FROM booked AS b
    INNER JOIN public.folder_resource AS r ON b.pk_folder = r.pk_folder
    GROUP BY b.pk_folder
    UNION ALL
    SELECT 'job', b.pk_job, sum(b.cores), min(r.int_max_cores), sum(b.gpus), min(r.int_max_gpus)
    FROM booked AS b
    INNER JOIN public.job_resource AS r ON b.pk_job = r.pk_job
    GROUP BY b.pk_job
)
SELECT v.kind, v.name, v.cores, v.max_cores, v.gpus, v.max_gpus
FROM vertex AS v
WHERE
    (v.cores > v.max_cores AND (v.max_cores > 0 OR v.kind = 'subscription'))
    OR (v.gpus > v.max_gpus AND v.max_gpus > 0)
ORDER BY v.kind, v.name
"""


@dataclass(frozen=True, kw_only=True)
class CapsTask:
    """One process's part: its dispatcher serves ``shows`` (pk_show), and books until so many are.

    ``batch``: bookings a call.
    """

    shows: tuple[str, ...]
    clients: int
    bookings: int
    batch: int
    recount_seconds: float
    seed: str


class Quota:
    """What the clients of a process still have to book together."""

    def __init__(self, bookings: int) -> None:
        self._lock = threading.Lock()
        self._left = bookings

    def take(self, booked: int) -> None:
        """So many were confirmed."""
        with self._lock:
            self._left -= booked

    @property
    def is_over(self) -> bool:
        """Whether all of it is booked."""
        return self._left <= 0


class TightClient:
    """Books what it can, and ends as many of its oldest procs as were refused.

    So there is hardly ever room for a whole batch. ``refused`` counts bookings, by kind of error,
    whatever kept them out.
    """

    def __init__(
        self, dispatcher: Dispatcher, work: Sequence[Booking], quota: Quota, batch: int
    ) -> None:
        self._dispatcher = dispatcher
        self._free = deque(work)
        self._held: deque[tuple[str, Booking]] = deque()
        self._quota = quota
        self._batch = batch
        self.refused: Counter[str] = Counter()

    def __call__(self) -> int:
        """Book one batch; how many were confirmed. StopIteration when the quota is over."""
        if self._quota.is_over:
            raise StopIteration
        asked = [self._free.popleft() for _ in range(min(self._batch, len(self._free)))]
        booked = refused = 0
        for answer in self._dispatcher.book_many(asked):
            if answer.proc is not None:
                self._held.append((answer.proc, answer.booking))
                booked += 1
            else:
                self.refused[type(answer.error).__name__] += 1
                self._free.append(answer.booking)
                refused += 1
        self._quota.take(booked)
        if refused or not self._free:
            self._make_room(max(refused, 1))
        return booked

    def _make_room(self, procs: int) -> None:
        ended = [self._held.popleft() for _ in range(min(procs, len(self._held)))]
        if not ended:
            time.sleep(_FULL_SECONDS)  # others have all of it
            return
        expect_there(all(self._dispatcher.release_many([proc for proc, _ in ended])))
        self._free += [booking for _, booking in ended]


class Looks:
    """Looks at all caps a few times a second: how many looks, and how many caps were passed."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.looks = 0
        self.over_bookings = 0
        self.examples: list[str] = []

    def __call__(self, stop: threading.Event) -> None:
        """Go on until ``stop`` is set, and look once more."""
        with connect(self._dsn) as conn, translated():
            ended = False
            while not ended:
                ended = stop.wait(_LOOK_SECONDS)
                over = conn.execute(_OVER).fetchall()
                self.looks += 1
                self.over_bookings += len(over)
                room = _MOST_EXAMPLES - len(self.examples)
                self.examples += [_in_words(*row) for row in over[:room]]


def tight_work(dsn: str, task: CapsTask) -> list[list[Booking]]:
    """What each client books: frames of all shows, one after the other, of several sizes."""
    draw = random.Random(task.seed)  # noqa: S311 - chooses work, guards nothing
    with connect(dsn) as conn:
        hosts = all_hosts(conn)

        def of(show: str, client: int) -> list[Booking]:
            part = (FRAMES_EACH * client, FRAMES_EACH * (client + 1))
            plain = bookings(conn, show, part, hosts, f"{task.seed} {show} {client}")
            return [
                replace(each, core_units=draw.choice(_CORES), gpus=draw.choice(_GPUS))
                for each in plain
            ]

        parts = [[of(show, client) for show in task.shows] for client in range(task.clients)]
    # the shows take turns
    return [[each for turn in zip(*own, strict=True) for each in turn] for own in parts]


def _in_words(
    kind: str, name: str, cores: int, max_cores: int, gpus: int, max_gpus: int | None
) -> str:
    said = f"{kind} {name}: {cores} of {max_cores} core units"
    return said if max_gpus is None else f"{said}, {gpus} of {max_gpus} GPUs"
