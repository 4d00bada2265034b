"""Where jobs and hosts are: what never changes is remembered, what may is looked up again."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.procedures import admission as calls

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    import psycopg

    from retally.procedures.admission import JobCounts

# Jobs come and go: past this many, all are forgotten and looked up again.
_MOST_JOBS = 200_000


class Places:
    """The show of each job and the allocation of each host, by id. Any thread may ask."""

    def __init__(self, connected: Callable[[], AbstractContextManager[psycopg.Connection]]) -> None:
        self._connected = connected
        self._shows: dict[str, str] = {}
        self._allocations: dict[str, str] = {}

    def show(self, job: str) -> str | None:
        """The show of a job that was remembered."""
        return self._shows.get(job)

    def look_up(self, job: str) -> JobCounts | None:
        """A job as it is now; None when there is no such job."""
        with self._connected() as conn:
            return calls.job_counts(conn, job)

    def remember(self, job: str, show_id: str) -> None:
        """The job's show, for the next time."""
        if len(self._shows) >= _MOST_JOBS:
            self._shows.clear()
        self._shows[job] = show_id

    def allocation(self, host: str) -> str | None:
        """The allocation of a host, which may have moved since; None when there is no such host."""
        found = self._allocations.get(host)
        if found is None:
            with self._connected() as conn:
                # the first one brings all of them
                self._allocations |= calls.allocations(conn, host if self._allocations else None)
            found = self._allocations.get(host)
        return found

    def forget_host(self, host: str) -> None:
        """Look the host up again."""
        self._allocations.pop(host, None)
