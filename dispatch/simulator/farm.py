"""What a dispatcher reads of the farm, and what it writes besides procs: frames and memory.

Booking and releasing are not here: they go through ``Dispatcher``. Connections are in autocommit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString, TypeVar

import psycopg
from psycopg.rows import class_row

if TYPE_CHECKING:
    from collections.abc import Sequence

_Record = TypeVar("_Record")


@dataclass(frozen=True)
class Running:
    """A proc; ``age``: seconds since it was booked, at most since the simulation began."""

    proc: str
    frame: str | None
    local: bool
    mem_kb: int
    age: float


@dataclass(frozen=True)
class Waiting:
    """A frame that waits for a proc, and what its layer asks for (core units, kB, GPUs)."""

    frame: str
    layer: str
    job: str
    show: str
    core_units: int
    mem_kb: int
    gpus: int
    gpu_mem_kb: int


@dataclass(frozen=True)
class Spot:
    """A host and what is idle of it (core units, kB, GPUs)."""

    host: str
    alloc: str
    core_units: int
    mem_kb: int
    gpus: int
    gpu_mem_kb: int


@dataclass(frozen=True)
class Share:
    """What a job may still use of its user's own host (core units, kB)."""

    host: str
    job: str
    core_units: int
    mem_kb: int


_RUNNING: LiteralString = """
SELECT
    p.pk_proc AS proc,
    p.pk_frame AS frame,
    p.b_local AS local,
    p.int_mem_reserved AS mem_kb,
    (
        extract(EPOCH FROM clock_timestamp())
        - greatest(extract(EPOCH FROM p.ts_booked), %s)
    )::double precision AS age
FROM public.proc AS p
WHERE p.pk_host = ANY(%s)
ORDER BY p.pk_proc
"""

# A show without a point for the job's department, or without the folder's total, would hold a
# drift that no recompute can mend: such jobs are left alone.
_JOBS: LiteralString = """
SELECT j.pk_job
FROM public.job AS j
INNER JOIN public.job_stat AS c ON j.pk_job = c.pk_job
INNER JOIN public.show AS s ON j.pk_show = s.pk_show
INNER JOIN public.point AS t ON j.pk_show = t.pk_show AND j.pk_dept = t.pk_dept
INNER JOIN public.folder_resource AS r ON j.pk_folder = r.pk_folder
WHERE
    c.int_waiting_count > 0
    AND j.str_state = 'PENDING' AND NOT j.b_paused AND s.b_active AND s.b_booking_enabled
ORDER BY j.pk_job
"""

_WAITING: LiteralString = """
SELECT
    f.pk_frame AS frame,
    f.pk_layer AS layer,
    j.pk_job AS job,
    j.pk_show AS show,
    l.int_cores_min AS core_units,
    l.int_mem_min AS mem_kb,
    l.int_gpus_min AS gpus,
    l.int_gpu_mem_min AS gpu_mem_kb
FROM public.job AS j
CROSS JOIN LATERAL (
    SELECT w.pk_frame, w.pk_layer
    FROM public.frame AS w
    WHERE
        w.str_state = 'WAITING' AND w.pk_job = j.pk_job
        AND NOT EXISTS (SELECT FROM public.proc AS p WHERE p.pk_frame = w.pk_frame)
    LIMIT %s
) AS f
INNER JOIN public.layer AS l ON f.pk_layer = l.pk_layer
WHERE j.pk_job = ANY(%s)
ORDER BY f.pk_frame
"""

_SPOTS: LiteralString = """
SELECT
    h.pk_host AS host,
    h.pk_alloc AS alloc,
    h.int_cores_idle AS core_units,
    h.int_mem_idle AS mem_kb,
    h.int_gpus_idle AS gpus,
    h.int_gpu_mem_idle AS gpu_mem_kb
FROM public.host AS h
INNER JOIN public.host_stat AS s ON h.pk_host = s.pk_host
WHERE
    h.pk_host = ANY(%s)
    AND h.int_cores_idle > 0 AND h.str_lock_state = 'OPEN' AND s.str_state = 'UP'
ORDER BY h.pk_host
"""

_SHARES: LiteralString = """
SELECT
    s.pk_host AS host, s.pk_job AS job, s.int_cores_idle AS core_units, s.int_mem_idle AS mem_kb
FROM public.host_local AS s
WHERE s.pk_job = ANY(%s) AND s.b_active AND s.int_cores_idle > 0
ORDER BY s.pk_host, s.pk_job
"""

# One statement a frame: its triggers lock rows of the layer and of the job, and two statements in
# one transaction could lock these crosswise. The proc is held, so that no frame runs without one.
_STARTED: LiteralString = """
WITH held AS MATERIALIZED (
    SELECT p.pk_frame, p.pk_host, p.int_cores_reserved, p.int_mem_reserved, p.int_gpus_reserved
    FROM public.proc AS p
    WHERE p.pk_proc = %s
    FOR KEY SHARE
)

UPDATE public.frame AS f
SET
    str_state = 'RUNNING',
    str_host = o.str_name,
    int_cores = h.int_cores_reserved,
    int_mem_reserved = h.int_mem_reserved,
    int_gpus = h.int_gpus_reserved,
    int_exit_status = -1,
    int_version = f.int_version + 1,
    ts_started = current_timestamp,
    ts_updated = current_timestamp
FROM held AS h
INNER JOIN public.host AS o ON h.pk_host = o.pk_host
WHERE f.pk_frame = h.pk_frame AND f.str_state = 'WAITING'
"""

# WAITING too: the dispatcher that booked it may have been killed before it said that it runs
_ENDED: LiteralString = """
UPDATE public.frame AS f
SET
    str_state = 'SUCCEEDED',
    int_exit_status = 0,
    int_version = f.int_version + 1,
    ts_stopped = current_timestamp,
    ts_updated = current_timestamp
WHERE f.pk_frame = %s AND f.str_state IN ('WAITING', 'RUNNING')
"""

_BACK: LiteralString = """
UPDATE public.frame AS f
SET str_state = 'WAITING', int_version = f.int_version + 1, ts_updated = current_timestamp
WHERE
    f.pk_frame = %s AND f.str_state = 'RUNNING'
    AND NOT EXISTS (SELECT FROM public.proc AS p WHERE p.pk_frame = f.pk_frame)
"""

# A trigger of the farm takes the difference from the host, or gives it back.
_MEMORY: LiteralString = """
UPDATE public.proc AS p
SET int_mem_reserved = %s
WHERE p.pk_proc = %s
"""


def server_time(conn: psycopg.Connection) -> float:
    """The server's clock, in seconds since 1970."""
    row = conn.execute("SELECT extract(EPOCH FROM clock_timestamp())::double precision").fetchone()
    assert row is not None  # noqa: S101 - a query without FROM has always one row
    return float(row[0])


def host_ids(conn: psycopg.Connection) -> list[str]:
    """The ids of all hosts, in order."""
    return [row[0] for row in conn.execute("SELECT pk_host FROM public.host ORDER BY pk_host")]


def subscribed(conn: psycopg.Connection) -> frozenset[tuple[str, str]]:
    """Which shows subscribe to which allocations: pairs of ids."""
    rows = conn.execute("SELECT pk_show, pk_alloc FROM public.subscription")
    return frozenset((show, alloc) for show, alloc in rows)


def jobs_waiting(conn: psycopg.Connection) -> list[str]:
    """The ids of the jobs that have frames waiting and may be booked, in order."""
    return [row[0] for row in conn.execute(_JOBS)]


def running(conn: psycopg.Connection, hosts: Sequence[str], since: float) -> list[Running]:
    """The procs on these hosts, by id; ``since``: the server's time when the simulation began."""
    return _records(conn, Running, _RUNNING, since, list(hosts))


def waiting(conn: psycopg.Connection, jobs: Sequence[str], most: int) -> list[Waiting]:
    """Frames of these jobs that wait and have no proc, ``most`` of each job."""
    return _records(conn, Waiting, _WAITING, most, list(jobs))


def spots(conn: psycopg.Connection, hosts: Sequence[str]) -> list[Spot]:
    """Those of these hosts that are up and open and have idle cores."""
    return _records(conn, Spot, _SPOTS, list(hosts))


def shares(conn: psycopg.Connection, jobs: Sequence[str]) -> list[Share]:
    """What is left of the local shares of these jobs."""
    return _records(conn, Share, _SHARES, list(jobs))


def start_frame(conn: psycopg.Connection, proc: str) -> None:
    """The frame of this proc runs now, unless the proc is gone."""
    conn.execute(_STARTED, (proc,))


def end_frame(conn: psycopg.Connection, frame: str) -> None:
    """The frame has succeeded."""
    conn.execute(_ENDED, (frame,))


def requeue_frame(conn: psycopg.Connection, frame: str) -> None:
    """The frame, which has lost its proc, waits again."""
    conn.execute(_BACK, (frame,))


def change_memory(conn: psycopg.Connection, proc: str, mem_kb: int) -> bool:
    """Let the proc have this much memory; False when it is gone or the host has not that much."""
    try:
        return conn.execute(_MEMORY, (mem_kb, proc)).rowcount == 1
    except psycopg.errors.RaiseException:
        return False  # the farm's own trigger lets no host have less than nothing idle


def _records(
    conn: psycopg.Connection, kind: type[_Record], query: LiteralString, *params: object
) -> list[_Record]:
    with conn.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, params).fetchall()
