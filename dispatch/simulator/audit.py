"""What a farm must hold after a simulation, whatever happened meanwhile."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from retally.procedures import TOTALS, HostDrift, routines
from retally.procedures.rebuild import rebuild
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg

#: Names the simulator's sessions in ``pg_stat_activity``.
APPLICATION_NAME = "retally simulate"

_QUIET_SECONDS = 30.0
_QUIET_LOOK = 0.05

_NEGATIVE: LiteralString = """
SELECT h.pk_host
FROM public.host AS h
WHERE
    least(h.int_cores_idle, h.int_mem_idle, h.int_gpus_idle, h.int_gpu_mem_idle) < 0
"""

_SHARES_OFF: LiteralString = """
WITH held AS (
    SELECT
        p.pk_host,
        p.pk_job,
        sum(p.int_cores_reserved) AS cores,
        sum(p.int_mem_reserved) AS mem,
        sum(p.int_gpus_reserved) AS gpus,
        sum(p.int_gpu_mem_reserved) AS gpu_mem
    FROM public.proc AS p
    WHERE p.b_local
    GROUP BY p.pk_host, p.pk_job
)

SELECT s.pk_host || '/' || s.pk_job
FROM public.host_local AS s
LEFT JOIN held AS h ON s.pk_host = h.pk_host AND s.pk_job = h.pk_job
WHERE
    s.int_cores_idle <> s.int_cores_max - coalesce(h.cores, 0)
    OR s.int_mem_idle <> s.int_mem_max - coalesce(h.mem, 0)
    OR s.int_gpus_idle <> s.int_gpus_max - coalesce(h.gpus, 0)
    OR s.int_gpu_mem_idle <> s.int_gpu_mem_max - coalesce(h.gpu_mem, 0)
"""

_FRAMES_TWICE: LiteralString = """
SELECT p.pk_frame FROM public.proc AS p
WHERE p.pk_frame IS NOT NULL
GROUP BY p.pk_frame
HAVING count(*) > 1
"""

_HOSTLESS: LiteralString = """
SELECT p.pk_proc FROM public.proc AS p
WHERE NOT EXISTS (SELECT FROM public.host AS h WHERE h.pk_host = p.pk_host)
"""

_AT_WORK: LiteralString = """
SELECT count(*) FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.application_name = %s AND a.pid <> pg_backend_pid()
"""


@dataclass(frozen=True)
class Faults:
    """What is wrong with hosts and procs at one moment; a farm in use may have some of it."""

    hosts: tuple[HostDrift, ...]
    negative: frozenset[str]
    shares: frozenset[str]
    frames_twice: frozenset[str]
    hostless: frozenset[str]


@dataclass(frozen=True)
class Audit:
    """What one tick over every managed show found and left, and what is wrong with the hosts.

    ``rows_…``: rows of the totals; ``adrift`` and ``busy`` (left because others held them) after
    the tick, ``unmanaged`` in shows that are not managed and that no tick rebuilds. ``hosts_off``,
    ``hosts_negative``, ``local_shares_off``, ``frames_with_two_procs``, ``procs_without_host``:
    only what was not so before. ``failures``: shows that could not be rebuilt, and why.
    ``problems``: what no recompute can mend, by name.
    """

    rows_rebuilt: int
    rows_adrift: int
    rows_busy: int
    rows_adrift_unmanaged: int
    hosts_off: tuple[HostDrift, ...]
    hosts_negative: int
    local_shares_off: int
    frames_with_two_procs: int
    procs_without_host: int
    failures: tuple[str, ...]
    problems: tuple[str, ...]

    @property
    def lost(self) -> int:
        """How many hosts, shares, frames and procs are wrong that were not before."""
        return (
            len({host.host_id for host in self.hosts_off})
            + self.hosts_negative
            + self.local_shares_off
            + self.frames_with_two_procs
            + self.procs_without_host
        )


def faults(conn: psycopg.Connection) -> Faults:
    """Look at all hosts and procs."""
    hosts = tuple(routines.host_drift(conn))
    return Faults(hosts, *(_keys(conn, query) for query in _LOOKS))


def audit(conn: psycopg.Connection, before: Faults) -> Audit:
    """Rebuild every managed show, as one tick does, and look at what is wrong then."""
    shows = routines.shows(conn)
    managed = [show.show_id for show in shows if show.rebuilt]
    others = [show.show_id for show in shows if not show.rebuilt]
    outcome = rebuild(conn, managed, TOTALS, wait=True)
    now = faults(conn)
    found = routines.findings(conn, managed, TOTALS)
    names = {show.show_id: show.name for show in shows}
    return Audit(
        rows_rebuilt=sum(p.rows_changed for p in outcome.passes),
        rows_adrift=sum(f.rows_adrift for f in found),
        rows_busy=sum(p.rows_deferred for p in outcome.passes)
        + sum(failure.busy for failure in outcome.failures),
        rows_adrift_unmanaged=_adrift(conn, others),
        hosts_off=_new_drift(before.hosts, now.hosts),
        hosts_negative=len(now.negative - before.negative),
        local_shares_off=len(now.shares - before.shares),
        frames_with_two_procs=len(now.frames_twice - before.frames_twice),
        procs_without_host=len(now.hostless - before.hostless),
        failures=tuple(
            f"show {names[failure.show_id]}: {failure.error}"
            for failure in outcome.failures
            if not failure.busy
        ),
        problems=tuple(problem for f in found for problem in f.problems),
    )


def await_quiet(conn: psycopg.Connection) -> None:
    """Wait for what killed dispatchers have left running in the server: it may still commit."""
    until = time.monotonic() + _QUIET_SECONDS
    with translated():
        while time.monotonic() < until:
            row = conn.execute(_AT_WORK, (APPLICATION_NAME,)).fetchone()
            if row == (0,):
                return
            time.sleep(_QUIET_LOOK)


_LOOKS = (_NEGATIVE, _SHARES_OFF, _FRAMES_TWICE, _HOSTLESS)


def _keys(conn: psycopg.Connection, query: LiteralString) -> frozenset[str]:
    with translated():
        return frozenset(row[0] for row in conn.execute(query))


def _adrift(conn: psycopg.Connection, show_ids: Sequence[str]) -> int:
    return sum(f.rows_adrift for f in routines.findings(conn, show_ids, TOTALS))


def _new_drift(before: Sequence[HostDrift], now: Sequence[HostDrift]) -> tuple[HostDrift, ...]:
    """The drift that was not there before, or was another amount."""
    known = {(host.host_id, host.slot): host.idle - host.expected for host in before}
    return tuple(
        host for host in now if known.get((host.host_id, host.slot)) != host.idle - host.expected
    )
