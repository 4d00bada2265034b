"""The admission store: what is booked and what may be, in memory, for the shows that are served.

It knows no database. All amounts are core units (1/100 core) and whole GPUs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from retally.dispatch.admission.tenure import Recount, Tenure
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from retally.dispatch.admission.vertex import Job, Vertex
    from retally.dispatch.admission.wire import LimitChange, Release
    from retally.procedures.admission import Counts, Snapshot, VertexRow

# Vertices that are written before the lock is let go: about 2 ms of work.
_AT_A_TIME = 1_000


@dataclass(frozen=True)
class Refusal:
    """A cap that a booking would pass: that of the first vertex that refuses it.

    ``vertex``: subscription, folder or job, its ``key`` and ``name``. ``slot``: cores or gpus, of
    which ``current`` is in use and ``limit`` may be; ``asked`` was asked for. A subscription that
    is unknown has no name and a limit of 0.
    """

    vertex: str
    key: str
    name: str
    slot: str
    current: int
    limit: int
    asked: int


class Missing(Enum):
    """What has to be loaded before a booking can be decided on."""

    SHOW = "the show is not served here"
    JOB = "the job was not there when its show was counted"


class Ticket:
    """A booking that was let in: it counts until it is rolled back, or its proc released."""

    __slots__ = ("cores", "folder", "gpus", "is_open", "job", "subscription", "tenure")

    def __init__(
        self, tenure: Tenure, subscription: Vertex, job: Job, cores: int, gpus: int
    ) -> None:
        self.tenure = tenure
        self.subscription = subscription
        self.folder = job.folder
        self.job = job
        self.cores = cores
        self.gpus = gpus
        self.is_open = True


@dataclass(frozen=True)
class StoreCounts:
    """What the store has done so far, and what it holds.

    ``booked``: confirmed bookings; ``refused``: by vertex; ``in_flight``: let in, and not decided
    yet; ``in_doubt``: nobody knows what became of them, so they counted until their show was
    counted anew. ``seed_ages``: seconds since each served show was last counted, by id.
    """

    booked: int
    rolled_back: int
    in_doubt: int
    in_flight: int
    refused: dict[str, int]
    released: int
    seed_ages: dict[str, float]


class Store:
    """Counts what the served shows have booked, and refuses what would pass a cap.

    Every call may come from any thread; one lock guards all of it and is never held for long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tenures: dict[str, Tenure] = {}
        self._let_in = self._confirmed = self._rolled_back = self._in_doubt = self._released = 0
        self._refused: Counter[str] = Counter()

    def book(
        self, show: str, alloc: str, job: str, cores: int, gpus: int
    ) -> Ticket | Refusal | Missing:
        """Count a booking at its subscription, folder and job, or at none of them."""
        with self._lock:
            tenure = self._tenures.get(show)
            if tenure is None:
                return Missing.SHOW
            by_job = tenure.jobs.get(job)
            if by_job is None:
                return Missing.JOB
            subscription = tenure.subscriptions.get(alloc) or tenure.subscription(alloc)
            folder = by_job.folder
            # spelled out: a loop over the three takes twice as long
            if (
                subscription.cores_counted + cores > subscription.cores_room
                or folder.cores_counted + cores > folder.cores_room
                or folder.gpus_counted + gpus > folder.gpus_room
                or by_job.cores_counted + cores > by_job.cores_room
                or by_job.gpus_counted + gpus > by_job.gpus_room
            ):
                return self._refusal((subscription, folder, by_job), cores, gpus)
            subscription.cores_counted += cores
            folder.cores_counted += cores
            by_job.cores_counted += cores
            if gpus:
                subscription.gpus_counted += gpus
                folder.gpus_counted += gpus
                by_job.gpus_counted += gpus
            self._let_in += 1
            return Ticket(tenure, subscription, by_job, cores, gpus)

    def confirm(self, ticket: Ticket, xact: int | None = None) -> None:
        """The proc is committed, by this transaction.

        Raises RetallyError when the ticket was used before.
        """
        cores, gpus = ticket.cores, ticket.gpus
        with self._lock:
            if not ticket.is_open:
                raise _used()
            ticket.is_open = False
            recount = ticket.tenure.recount
            for vertex in (ticket.subscription, ticket.folder, ticket.job):
                if vertex.confirm(cores, gpus, xact) and recount:
                    recount.note_confirmed(vertex, ticket, xact)
            self._confirmed += 1

    def rollback(self, ticket: Ticket) -> None:
        """There is no such proc and never will be. Raises RetallyError as ``confirm``."""
        with self._lock:
            if not ticket.is_open:
                raise _used()
            ticket.is_open = False
            for vertex in (ticket.subscription, ticket.folder, ticket.job):
                vertex.cores_counted -= ticket.cores
                vertex.gpus_counted -= ticket.gpus
            self._rolled_back += 1

    def doubt(self, ticket: Ticket) -> None:
        """Nobody knows whether the proc is, or will be: it counts as long as its tenure lasts.

        Raises RetallyError as ``confirm``.
        """
        with self._lock:
            if not ticket.is_open:
                raise _used()
            ticket.is_open = False
            self._in_doubt += 1

    def seed(self, show: str, token: int, counts: Counts) -> None:
        """Serve a show, or serve it under another token: forget what was counted before."""
        tenure = Tenure(show, token, counts)
        with self._lock:
            self._tenures[show] = tenure

    def drop(self, show: str, token: int | None = None) -> bool:
        """Serve a show no more; with ``token`` only while it is the one. Whether it was served."""
        with self._lock:
            tenure = self._tenures.get(show)
            if tenure is None or (token is not None and tenure.token != token):
                return False
            del self._tenures[show]
            return True

    def add_job(self, show: str, row: VertexRow, snapshot: Snapshot) -> bool:
        """Take in a job that has come meanwhile; False when its folder is not known either."""
        with self._lock:
            tenure = self._tenures.get(show)
            if tenure is None:
                return True
            if row.folder_id not in tenure.folders:
                return False
            tenure.add(row, snapshot)
            return True

    def begin_recount(self, show: str) -> Recount | None:
        """Begin to count a show anew; what it holds has to be read after this, not before.

        None when it is not served. A recount that has begun before is given up.
        """
        with self._lock:
            tenure = self._tenures.get(show)
            if tenure is None:
                return None
            recount = tenure.recount = Recount(tenure)
        for part in recount.parts(_AT_A_TIME):
            with self._lock:
                for vertex in part:
                    vertex.mark(recount)
        return recount

    def end_recount(self, recount: Recount, counts: Counts) -> bool:
        """Overwrite all that was counted with what was read, but for what that cannot have.

        False when it is of no use any more: another one has begun, or the show is not served.
        """
        tenure, snapshot, rows = recount.tenure, counts.snapshot, counts.by_vertex()
        for start in range(0, len(counts.rows), _AT_A_TIME):
            with self._lock:
                if not self._is_current(recount):
                    return False
                for row in counts.rows[start : start + _AT_A_TIME]:
                    tenure.add(row, snapshot)
        for part in recount.parts(_AT_A_TIME):
            with self._lock:
                if not self._is_current(recount):
                    return False
                for vertex in part:
                    recount.overwrite(vertex, rows[vertex.kind].get(vertex.key), snapshot)
        with self._lock:
            tenure.recount = None
            tenure.snapshot = counts.snapshot
            tenure.read_at = time.monotonic()
        return True

    def release(self, release: Release) -> None:
        """Procs have ended. One that does not say when is left to the next recount."""
        if release.xact is None:
            return
        with self._lock:
            if tenure := self._tenures.get(release.show):
                self._released += 1
                tenure.release(release, release.xact)

    def change_limit(self, change: LimitChange) -> None:
        """Caps were changed; where nothing says when, only what lowers them is taken."""
        with self._lock:
            for tenure in self._tenures.values():
                if change.show in {None, tenure.show}:
                    tenure.change_limit(change)

    def tokens(self) -> dict[str, int]:
        """The served shows, and under which token."""
        with self._lock:
            return {show: tenure.token for show, tenure in self._tenures.items()}

    def token(self, show: str) -> int | None:
        """The token under which the show is served; None when it is not."""
        with self._lock:
            tenure = self._tenures.get(show)
            return tenure.token if tenure else None

    def in_use(self, show: str) -> dict[tuple[str, str], tuple[int, int]]:
        """What is counted as booked: core units and GPUs by vertex and key."""
        with self._lock:
            tenure = self._tenures.get(show)
            vertices = tenure.vertices() if tenure else ()
            return {(vertex.kind, vertex.key): (vertex.cores, vertex.gpus) for vertex in vertices}

    def counts(self) -> StoreCounts:
        """What it has done so far, and what it holds."""
        now = time.monotonic()
        with self._lock:
            ended = self._confirmed + self._rolled_back + self._in_doubt
            return StoreCounts(
                booked=self._confirmed,
                rolled_back=self._rolled_back,
                in_doubt=self._in_doubt,
                in_flight=self._let_in - ended,
                refused=dict(self._refused),
                released=self._released,
                seed_ages={show: now - each.read_at for show, each in self._tenures.items()},
            )

    def _is_current(self, recount: Recount) -> bool:
        tenure = recount.tenure
        return tenure.recount is recount and self._tenures.get(tenure.show) is tenure

    def _refusal(self, vertices: tuple[Vertex, ...], cores: int, gpus: int) -> Refusal:
        for vertex in vertices:
            for slot, current, limit, asked in (
                ("cores", vertex.cores, vertex.max_cores, cores),
                ("gpus", vertex.gpus, vertex.max_gpus, gpus),
            ):
                if current + asked > limit:
                    self._refused[vertex.kind] += 1
                    return Refusal(
                        vertex.kind, vertex.key, vertex.name, slot, current, limit, asked
                    )
        raise AssertionError("somebody has refused")


def _used() -> RetallyError:
    return RetallyError(
        "this ticket was used before", "a booking is confirmed or rolled back exactly once"
    )
