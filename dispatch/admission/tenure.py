"""What the store counts of one show for as long as its lease is held."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from retally.dispatch.admission.vertex import Job, Vertex, limit

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retally.dispatch.admission.store import Ticket
    from retally.dispatch.admission.wire import LimitChange, Release
    from retally.procedures.admission import Counts, Snapshot, VertexRow


class Tenure:
    """The vertices of a show under one ``token``. Guarded by the store's lock.

    Another lease is another tenure: what is still in flight under the former token is in the
    database by the time the new one is read, or is refused there.
    """

    def __init__(self, show: str, token: int, counts: Counts) -> None:
        self.show = show
        self.token = token
        self.snapshot = counts.snapshot
        self.read_at = time.monotonic()
        self.recount: Recount | None = None
        self.subscriptions: dict[str, Vertex] = {}
        self.folders: dict[str, Vertex] = {}
        self.jobs: dict[str, Job] = {}
        for row in counts.rows:
            self.add(row, counts.snapshot)

    def add(self, row: VertexRow, snapshot: Snapshot) -> None:
        """Take in a vertex that is not known yet; one that is stays as it is."""
        if row.vertex == "subscription":
            if row.key not in self.subscriptions:
                self.subscriptions[row.key] = Vertex.of(row, snapshot)
        elif row.vertex == "folder":
            if row.key not in self.folders:
                self.folders[row.key] = Vertex.of(row, snapshot)
        elif row.key not in self.jobs:
            self.jobs[row.key] = Job.in_folder(row, snapshot, self.folder(row.folder_id))

    def folder(self, key: str) -> Vertex:
        """A folder; one that the show does not have is without a cap."""
        found = self.folders.get(key)
        if found is None:
            found = self.folders[key] = Vertex("folder", key, self.snapshot)
        return found

    def subscription(self, alloc: str) -> Vertex:
        """The subscription to an allocation; one that is unknown books nothing."""
        found = self.subscriptions.get(alloc)
        if found is None:
            found = self.subscriptions[alloc] = Vertex("subscription", alloc, self.snapshot)
        return found

    def vertices(self) -> Iterator[Vertex]:
        """All of them."""
        yield from self.subscriptions.values()
        yield from self.folders.values()
        yield from self.jobs.values()

    def release(self, release: Release, xact: int) -> None:
        """A proc has ended: take it off each vertex whose count may still hold it."""
        for vertex in self._counted_in(release):
            # where what was read was newer than the release, it is in there already
            if vertex.snapshot.sees(xact):
                continue
            vertex.release(release.core_units, release.gpus)
            if self.recount:
                self.recount.note_released(vertex, release)

    def change_limit(self, change: LimitChange) -> None:
        """An admin has changed caps. Without its transaction's number it may be an old message."""
        vertex = self._changed(change)
        if vertex is None:
            return
        _change(vertex, change)
        if self.recount:
            self.recount.note_change(vertex, change)

    def _counted_in(self, release: Release) -> Iterator[Vertex]:
        found = (
            self.subscriptions.get(release.alloc or ""),
            self.folders.get(release.folder or ""),
            self.jobs.get(release.job or ""),
        )
        return (vertex for vertex in found if vertex)

    def _changed(self, change: LimitChange) -> Vertex | None:
        if change.vertex == "subscription":
            return self.subscriptions.get(change.key)
        if change.vertex == "folder":
            return self.folders.get(change.key)
        return self.jobs.get(change.key)


class Recount:
    """A recount under way: what is marked, and what has happened since.

    What a vertex holds confirmed at its mark is committed, so the snapshot that is read after the
    marks has it; all that is counted beyond the mark is kept on top, save what the snapshot is
    known to have.
    """

    def __init__(self, tenure: Tenure) -> None:
        self.tenure = tenure
        self._vertices = list(tenure.vertices())
        self._released: dict[Vertex, list[Release]] = {}
        self._changes: dict[Vertex, list[LimitChange]] = {}
        self._confirmed: dict[Vertex, list[tuple[Ticket, int]]] = {}

    def note_confirmed(self, vertex: Vertex, ticket: Ticket, xact: int | None) -> None:
        """A booking was confirmed that the vertex's snapshot has not."""
        # before its mark it is part of that
        if xact is not None and vertex.marked_for is self:
            self._confirmed.setdefault(vertex, []).append((ticket, xact))

    def note_change(self, vertex: Vertex, change: LimitChange) -> None:
        """The vertex's caps were changed, so an admin says."""
        self._changes.setdefault(vertex, []).append(change)

    def note_released(self, vertex: Vertex, release: Release) -> None:
        """A release was taken off the vertex."""
        self._released.setdefault(vertex, []).append(release)

    def parts(self, size: int) -> Iterator[Sequence[Vertex]]:
        """The vertices that the tenure had when this began, so many at a time."""
        for start in range(0, len(self._vertices), size):
            yield self._vertices[start : start + size]

    def overwrite(self, vertex: Vertex, row: VertexRow | None, now: Snapshot) -> None:
        """Set a vertex to what was read, None: nothing, keeping what that may have missed."""
        for ticket, xact in self._confirmed.pop(vertex, ()):
            if now.sees(xact):
                vertex.uncount(ticket.cores, ticket.gpus)
        cores, gpus = (row.cores, row.gpus) if row else (0, 0)
        for release in self._released.pop(vertex, ()):
            if not now.sees(release.xact or 0):
                cores -= release.core_units
                gpus -= release.gpus
        vertex.overwrite(cores, gpus, now)
        vertex.cap_by(row)
        for change in self._changes.pop(vertex, ()):
            _change(vertex, change)
        if isinstance(vertex, Job):
            self._place(vertex, row)

    def _place(self, job: Job, row: VertexRow | None) -> None:
        if row:
            job.folder = self.tenure.folder(row.folder_id)
        elif job.is_quiet and not job.cores:
            # finished; should it come back, it is looked up
            self.tenure.jobs.pop(job.key, None)


def _change(vertex: Vertex, change: LimitChange) -> None:
    """Change the vertex's caps, unless what was read of it is newer."""
    if change.xact is not None and vertex.snapshot.sees(change.xact):
        return
    cores, gpus = change.core_units, change.gpus
    max_cores = None if cores is None else limit(vertex.kind, cores)
    max_gpus = None if gpus is None else limit(vertex.kind, gpus, gpus=True)
    if change.xact is None:
        # nothing tells how old it is: it may only lower, and the recount that follows knows better
        max_cores = None if max_cores is None else min(max_cores, vertex.max_cores)
        max_gpus = None if max_gpus is None else min(max_gpus, vertex.max_gpus)
    vertex.cap(max_cores, max_gpus)
