"""Where jobs and hosts are, as far as was looked up: a job's show stays, a host may move."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from retally.procedures import admission as calls
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retally.dispatch.admission.line import Connected
    from retally.procedures.admission import JobCounts

# Jobs come and go: past this many, all are forgotten and looked up again.
_MOST_JOBS = 200_000


class Places:
    """The show of each job and the allocation of each host, by id. Any thread may ask."""

    def __init__(self, connected: Connected) -> None:
        self._connected = connected
        self._shows: dict[str, str] = {}
        # with the monotonic time at which it was known
        self._hosts: dict[str, tuple[str, float]] = {}

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

    def forget_job(self, job: str) -> None:
        """Look the job up again."""
        self._shows.pop(job, None)

    def allocation(self, host: str) -> str | None:
        """The allocation of a host, which may have moved since; None when there is no such host."""
        found = self._hosts.get(host)
        if found is None:
            with self._connected() as conn:
                # the first one brings all of them
                read = calls.allocations(conn, host if self._hosts else None)
            now = time.monotonic()
            self._hosts.update({each: (alloc, now) for each, alloc in read.items()})
            return read.get(host)
        return found[0]

    def look_again(self, host: str) -> None:
        """The host has moved: look it up, before the shows on it are counted anew."""
        self._hosts.pop(host, None)
        with contextlib.suppress(RetallyError):  # else when it is asked for
            self.allocation(host)

    def known_since(self, hosts: Iterable[str], alloc: str | None) -> float:
        """Since when all these are known to be in that allocation; infinity when they are not."""
        since = float("-inf")
        for host in hosts:
            found = self._hosts.get(host)
            if found is None or found[0] != alloc:
                self._hosts.pop(host, None)  # the next booking on it looks it up
                return float("inf")
            since = max(since, found[1])
        return since
