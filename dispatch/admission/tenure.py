"""What the store counts of one show for as long as its lease is held."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.dispatch.admission.vertex import Job, Vertex

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retally.dispatch.admission.recount import Recount
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
        self.recount: Recount | None = None
        self.subscriptions: dict[str, Vertex] = {}
        self.folders: dict[str, Vertex] = {}
        self.jobs: dict[str, Job] = {}
        for row in counts.rows:
            self.add(row, counts.snapshot)

    def add(self, row: VertexRow, snapshot: Snapshot) -> bool:
        """Take in a vertex that is not known yet; False: one that is stays as it is."""
        if row.vertex == "job":
            if row.key in self.jobs:
                return False
            self.jobs[row.key] = Job(row, snapshot, self.folder(row.folder_id))
            return True
        known = self.subscriptions if row.vertex == "subscription" else self.folders
        if row.key in known:
            return False
        known[row.key] = Vertex(row.vertex, row.key, snapshot, row)
        return True

    def folder(self, key: str) -> Vertex:
        """A folder; one that the show does not have is without a cap."""
        found = self.folders.get(key)
        if found is None:
            found = self.folders[key] = Vertex("folder", key, self.snapshot, None)
        return found

    def subscription(self, alloc: str) -> Vertex:
        """The subscription to an allocation; one that is unknown books nothing."""
        found = self.subscriptions.get(alloc)
        if found is None:
            found = self.subscriptions[alloc] = Vertex("subscription", alloc, self.snapshot, None)
        return found

    def vertices(self) -> Iterator[Vertex]:
        """All of them."""
        yield from self.subscriptions.values()
        yield from self.folders.values()
        yield from self.jobs.values()

    def release(self, release: Release, xact: int, known_since: float) -> bool:
        """Procs have ended: take them off the vertices whose counts still hold them.

        ``known_since``: since when their hosts are known to be in that allocation. False when it
        cannot be told where they were counted, and nothing was taken off.
        """
        job = self.jobs.get(release.job or "")
        folder = self.folders.get(release.folder or "")
        subscription = self.subscriptions.get(release.alloc or "")
        if job is None or job.folder is not folder or job.is_moving:
            return False  # the job has moved, or is not known
        if subscription is None or subscription.snapshot.asked_at <= known_since:
            return False  # a host may have moved
        vertices = (subscription, folder, job)
        if not all(vertex.is_there for vertex in vertices):
            return False
        for vertex in vertices:
            # where what was read was newer than the release, it is in there already
            if not vertex.snapshot.sees(xact):
                vertex.release(release.core_units, release.gpus)
                if self.recount:
                    self.recount.note_released(vertex, release)
        return True

    def change_limit(self, change: LimitChange) -> bool:
        """An admin has changed caps, of this show or another one.

        False when only a recount can tell what follows from it.
        """
        if change.show not in {None, self.show}:
            return True
        known = {
            "subscription": self.subscriptions,
            "folder": self.folders,
            "job": self.jobs,
        }
        vertex: Vertex | None = known[change.vertex].get(change.key)  # type: ignore[attr-defined]
        if vertex is None:
            return True
        if not vertex.is_there:
            return False  # nobody knows what is booked there
        vertex.change(change)
        if self.recount:
            self.recount.note_change(vertex, change)
        return change.xact is not None
