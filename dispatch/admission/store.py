"""The admission store: what is booked and what may be, in memory, for the shows that are served.

It knows no database. All amounts are core units (1/100 core) and whole GPUs.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from retally.dispatch.admission.changes import RecentChanges
from retally.dispatch.admission.records import StoreCounts
from retally.dispatch.admission.recount import Recount
from retally.dispatch.admission.tenure import Tenure
from retally.dispatch.admission.tickets import Missing, Refusal, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import TypeVar

    from retally.dispatch.admission.vertex import Vertex
    from retally.dispatch.admission.wire import LimitChange, Release
    from retally.procedures.admission import Counts, Snapshot, VertexRow

    T = TypeVar("T")

# Vertices that are written before the lock is let go: about 2 ms of work.
_AT_A_TIME = 1_000


class Store:
    """Counts what the served shows have booked, and refuses what would pass a cap.

    Every call may come from any thread; one lock guards all of it and is never held for long.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tenures: dict[str, Tenure] = {}
        self._let_in = self._confirmed = self._rolled_back = self._in_doubt = 0
        self._sent = 0
        self._refused: Counter[str] = Counter()
        self._changes = RecentChanges()

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
            # spelled out: a loop over the three takes half as long again
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

    def send(self, tickets: Iterable[Ticket]) -> None:
        """They are about to be sent: only snapshots that are read from now on can have them."""
        with self._lock:
            for ticket in tickets:
                self._sent += 1
                ticket.nr = self._sent

    def confirm(self, ticket: Ticket, xact: int | None = None) -> None:
        """The proc is committed, by this transaction.

        Raises RetallyError when the ticket was used before.
        """
        with self._lock:
            ticket.close()
            recount = ticket.tenure.recount
            for vertex in (ticket.subscription, ticket.folder, ticket.job):
                if vertex.confirm(ticket, xact) and recount:
                    recount.note_confirmed(vertex, ticket, xact)
            self._confirmed += 1

    def rollback(self, ticket: Ticket) -> None:
        """There is no such proc and never will be. Raises RetallyError as ``confirm``."""
        with self._lock:
            ticket.close()
            for vertex in (ticket.subscription, ticket.folder, ticket.job):
                vertex.cores_counted -= ticket.cores
                vertex.gpus_counted -= ticket.gpus
            self._rolled_back += 1

    def doubt(self, ticket: Ticket) -> None:
        """Nobody knows whether the proc is, or will be: it counts as long as its tenure lasts.

        Raises RetallyError as ``confirm``.
        """
        with self._lock:
            ticket.close()
            self._in_doubt += 1

    def seed(self, show: str, token: int, counts: Counts) -> None:
        """Serve a show, or serve it under another token: forget what was counted before."""
        tenure = Tenure(show, token, counts)
        with self._lock:
            for change in self._changes:
                tenure.change_limit(change)
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
        """Take in a job that has come meanwhile; False when only a recount can do it.

        That is so when its folder is not known either, and when the show was read later than the
        job: the job may have come and gone in between.
        """
        with self._lock:
            tenure = self._tenures.get(show)
            if tenure is None or row.key in tenure.jobs:
                return True
            if row.folder_id not in tenure.folders:
                return False
            if snapshot.asked_at < tenure.snapshot.asked_at:
                return False
            self._add(tenure, row, snapshot)
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
        self._in_parts(recount, recount.parts(_AT_A_TIME), lambda vertex: vertex.mark(recount))
        return recount

    def end_recount(self, recount: Recount, counts: Counts) -> bool:
        """Overwrite all that was counted with what was read, but for what that cannot have.

        False when it is of no use any more: another one has begun, or the show is not served.
        """
        tenure, snapshot, rows = recount.tenure, counts.snapshot, counts.by_vertex()
        with self._lock:
            recount.since = self._sent
            if self._is_current(recount):
                tenure.snapshot = snapshot
        new = (counts.rows[n : n + _AT_A_TIME] for n in range(0, len(counts.rows), _AT_A_TIME))
        done = self._in_parts(recount, new, lambda row: self._add(tenure, row, snapshot))
        done = done and self._in_parts(
            recount,
            recount.parts(_AT_A_TIME),
            lambda vertex: recount.overwrite(vertex, rows[vertex.kind].get(vertex.key), snapshot),
        )
        if done:
            self.give_up_recount(recount)
        return done

    def give_up_recount(self, recount: Recount) -> None:
        """It is over; what is counted stays as it is."""
        with self._lock:
            if recount.tenure.recount is recount:
                recount.tenure.recount = None

    def release(self, release: Release, known_since: float = float("-inf")) -> bool:
        """Procs have ended. False: it takes a recount to know where they were counted.

        ``known_since``: since when (monotonic) their hosts are known to be in that allocation.
        """
        with self._lock:
            tenure = self._tenures.get(release.show)
            if tenure is None:
                return True
            return release.xact is not None and tenure.release(release, release.xact, known_since)

    def change_limit(self, change: LimitChange) -> bool:
        """Caps were changed; where nothing says when, only what lowers them is taken.

        False: it takes a recount to know all of it.
        """
        with self._lock:
            if change.xact is not None:
                self._changes.add(change)
            told = [tenure.change_limit(change) for tenure in self._tenures.values()]
            return change.xact is not None and all(told)

    def tokens(self) -> dict[str, int]:
        """The served shows, and under which token."""
        with self._lock:
            return {show: tenure.token for show, tenure in self._tenures.items()}

    def token(self, show: str) -> int | None:
        """The token under which the show is served; None when it is not."""
        with self._lock:
            tenure = self._tenures.get(show)
            return tenure.token if tenure else None

    def age(self, show: str) -> float:
        """Seconds since a served show was last read; 0 when it is not served."""
        with self._lock:
            tenure = self._tenures.get(show)
            return time.monotonic() - tenure.snapshot.asked_at if tenure else 0.0

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
                seed_ages={
                    show: now - each.snapshot.asked_at for show, each in self._tenures.items()
                },
            )

    def _add(self, tenure: Tenure, row: VertexRow, snapshot: Snapshot) -> None:
        """Take in a vertex that is not known yet, with what was told of its caps since the read."""
        if tenure.add(row, snapshot):
            for change in self._changes.of(row.key):
                tenure.change_limit(change)

    def _in_parts(
        self, recount: Recount, parts: Iterable[Sequence[T]], work: Callable[[T], None]
    ) -> bool:
        """Do it to each, a part at a time; False when the recount is of no use any more."""
        for part in parts:
            with self._lock:
                if not self._is_current(recount):
                    return False
                for each in part:
                    work(each)
        return True

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
