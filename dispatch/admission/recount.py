"""A recount under way: overwrites what was counted and forgets no booking."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.dispatch.admission.vertex import Job

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retally.dispatch.admission.tenure import Tenure
    from retally.dispatch.admission.tickets import Ticket
    from retally.dispatch.admission.vertex import Vertex
    from retally.dispatch.admission.wire import LimitChange, Release
    from retally.procedures.admission import Snapshot, VertexRow


class Recount:
    """What is marked, and what has happened since. Guarded by the store's lock.

    What a vertex holds confirmed at its mark is committed, so the snapshot that is read after the
    marks has it; all that is counted beyond the mark is kept on top, save what the snapshot is
    known to have. ``since``: the last ticket that was sent before the database had answered.
    """

    def __init__(self, tenure: Tenure) -> None:
        self.tenure = tenure
        self.since = 0
        self._vertices = list(tenure.vertices())
        self._released: dict[Vertex, list[Release]] = {}
        self._changes: dict[Vertex, list[LimitChange]] = {}
        self._confirmed: dict[Vertex, list[tuple[Ticket, int]]] = {}

    def note_confirmed(self, vertex: Vertex, ticket: Ticket, xact: int | None) -> None:
        """A booking was confirmed that the vertex's snapshot has not."""
        # before its mark it is part of that
        if xact is not None and vertex.marked_for is self:
            self._confirmed.setdefault(vertex, []).append((ticket, xact))

    def note_released(self, vertex: Vertex, release: Release) -> None:
        """A release was taken off the vertex."""
        self._released.setdefault(vertex, []).append(release)

    def note_change(self, vertex: Vertex, change: LimitChange) -> None:
        """The vertex's caps were changed, so an admin says."""
        self._changes.setdefault(vertex, []).append(change)

    def parts(self, size: int) -> Iterator[Sequence[Vertex]]:
        """The vertices that the tenure had when this began, so many at a time."""
        for start in range(0, len(self._vertices), size):
            yield self._vertices[start : start + size]

    def overwrite(self, vertex: Vertex, row: VertexRow | None, now: Snapshot) -> None:
        """Set a vertex to what was read, None: nothing, keeping what that may have missed."""
        for ticket, xact in self._confirmed.pop(vertex, ()):
            if ticket.nr <= self.since and now.sees(xact):
                vertex.uncount(ticket)
        cores = gpus = 0
        for release in self._released.pop(vertex, ()):
            if not now.sees(release.xact or 0):
                cores -= release.core_units
                gpus -= release.gpus
        vertex.overwrite(row, cores, gpus, now, self.since)
        for change in self._changes.pop(vertex, ()):
            vertex.change(change)
        if isinstance(vertex, Job):
            self._place(vertex, row)

    def _place(self, job: Job, row: VertexRow | None) -> None:
        if row:
            job.place(self.tenure.folder(row.folder_id))
        elif job.is_quiet and not job.cores:
            # finished; should it come back, it is looked up
            self.tenure.jobs.pop(job.key, None)
