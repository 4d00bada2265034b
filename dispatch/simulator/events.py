"""What happens on a farm besides booking, one statement or transaction each.

Frames arrive, hosts go down and come up, jobs move, caps change: as the farm's own tools do it.
Connections are in autocommit.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import sql

if TYPE_CHECKING:
    from typing import LiteralString

    import psycopg


@dataclass(frozen=True)
class Job:
    """A live job and its show, by id."""

    job: str
    show: str


@dataclass(frozen=True)
class Cap:
    """A cap: a column of one row, in core units or GPUs."""

    table: LiteralString
    column: LiteralString
    key_column: LiteralString
    key: str


#: Tables with caps: table, column, the column of the key.
CAPS: tuple[tuple[LiteralString, LiteralString, LiteralString], ...] = (
    ("subscription", "int_burst", "pk_subscription"),
    ("job_resource", "int_max_cores", "pk_job"),
    ("job_resource", "int_max_gpus", "pk_job"),
    ("folder_resource", "int_max_cores", "pk_folder"),
)

# New frames are in no count until whoever adds them counts them.
_ARRIVE: LiteralString = """
WITH place AS (
    SELECT l.pk_layer, l.pk_job, l.str_name, coalesce(max(f.int_number), 0) AS last
    FROM public.layer AS l
    LEFT JOIN public.frame AS f ON l.pk_layer = f.pk_layer
    WHERE l.pk_layer = %(layer)s
    GROUP BY l.pk_layer, l.pk_job, l.str_name
)

INSERT INTO public.frame (
    pk_frame, pk_layer, pk_job, str_name, str_state, int_number, int_layer_order
)
SELECT
    gen_random_uuid()::text,
    p.pk_layer,
    p.pk_job,
    concat(lpad(n.number::text, greatest(4, length(n.number::text)), '0'), '-', p.str_name),
    'WAITING',
    n.number,
    n.number - 1
FROM place AS p
CROSS JOIN LATERAL generate_series(p.last + 1, p.last + %(count)s) AS n (number)
"""

_COUNT_LAYER: LiteralString = """
UPDATE public.layer_stat AS s
SET
    int_total_count = s.int_total_count + %(count)s,
    int_waiting_count = s.int_waiting_count + %(count)s
WHERE s.pk_layer = %(layer)s
"""

_COUNT_JOB: LiteralString = """
UPDATE public.job_stat AS s
SET int_waiting_count = s.int_waiting_count + %(count)s
WHERE s.pk_job = (SELECT l.pk_job FROM public.layer AS l WHERE l.pk_layer = %(layer)s)
"""

_COUNT_FRAMES: LiteralString = """
UPDATE public.job AS j
SET int_frame_count = j.int_frame_count + %(count)s
WHERE j.pk_job = (SELECT l.pk_job FROM public.layer AS l WHERE l.pk_layer = %(layer)s)
"""

# The triggers of the farm move the job's cores between the two rows, the one where it arrives
# first. They are locked in the order of their keys before that, as a batch of bookings does, or
# the two would now and then wait for each other.
_MOVE_FOLDER: LiteralString = """
WITH held AS MATERIALIZED (
    SELECT r.pk_folder
    FROM public.folder_resource AS r
    WHERE
        r.pk_folder = %(folder)s
        OR r.pk_folder = (SELECT o.pk_folder FROM public.job AS o WHERE o.pk_job = %(job)s)
    ORDER BY r.pk_folder
    FOR NO KEY UPDATE
)

UPDATE public.job AS j
SET pk_folder = %(folder)s
WHERE
    j.pk_job = %(job)s AND j.pk_folder <> %(folder)s
    AND (SELECT count(*) FROM held) = 2
"""

_MOVE_DEPT: LiteralString = """
WITH held AS MATERIALIZED (
    SELECT t.pk_dept
    FROM public.point AS t
    WHERE
        t.pk_show = %(show)s
        AND (
            t.pk_dept = %(dept)s
            OR t.pk_dept = (SELECT o.pk_dept FROM public.job AS o WHERE o.pk_job = %(job)s)
        )
    ORDER BY t.pk_dept
    FOR NO KEY UPDATE
)

UPDATE public.job AS j
SET pk_dept = %(dept)s
WHERE
    j.pk_job = %(job)s AND j.pk_dept <> %(dept)s
    AND (SELECT count(*) FROM held) = 2
"""

_HOST_STATE: LiteralString = """
UPDATE public.host_stat AS s
SET str_state = %(to)s
WHERE s.pk_host = %(host)s AND s.str_state = %(was)s
"""


def live_jobs(conn: psycopg.Connection) -> list[Job]:
    """The jobs that may run, by id."""
    rows = conn.execute(
        "SELECT pk_job, pk_show FROM public.job WHERE str_state = 'PENDING' ORDER BY pk_job"
    )
    return [Job(job, show) for job, show in rows]


def layers(conn: psycopg.Connection, job: str) -> list[str]:
    """The ids of a job's layers, in order."""
    query = "SELECT pk_layer FROM public.layer WHERE pk_job = %s ORDER BY pk_layer"
    return [row[0] for row in conn.execute(query, (job,))]


def folders(conn: psycopg.Connection, show: str) -> list[str]:
    """The ids of a show's folders, in order."""
    query = "SELECT pk_folder FROM public.folder WHERE pk_show = %s ORDER BY pk_folder"
    return [row[0] for row in conn.execute(query, (show,))]


def departments(conn: psycopg.Connection, show: str) -> list[str]:
    """The ids of the departments that a show has a point for, in order."""
    query = "SELECT pk_dept FROM public.point WHERE pk_show = %s ORDER BY pk_dept"
    return [row[0] for row in conn.execute(query, (show,))]


def procs_on(conn: psycopg.Connection, host: str) -> list[tuple[str, str | None]]:
    """The procs on a host: the ids of proc and frame."""
    query = "SELECT pk_proc, pk_frame FROM public.proc WHERE pk_host = %s ORDER BY pk_proc"
    return [(proc, frame) for proc, frame in conn.execute(query, (host,))]


def caps(conn: psycopg.Connection) -> list[Cap]:
    """Every cap of a live job, of its folder, and of a subscription."""
    found = []
    for table, column, key_column in CAPS:
        query = sql.SQL("SELECT DISTINCT {key} FROM {source} AS s ORDER BY 1").format(
            key=sql.Identifier(key_column),
            source=sql.Identifier("public", "subscription")
            if table == "subscription"
            else sql.SQL("(SELECT pk_job, pk_folder FROM public.job WHERE str_state = 'PENDING')"),
        )
        found += [Cap(table, column, key_column, row[0]) for row in conn.execute(query)]
    return found


def frames_arrive(conn: psycopg.Connection, layer: str, count: int) -> int:
    """So many more frames of this layer wait; answers with how many."""
    params = {"layer": layer, "count": count}
    with conn.transaction():
        arrived = conn.execute(_ARRIVE, params).rowcount
        # in the order of the triggers that count frames
        for statement in (_COUNT_LAYER, _COUNT_JOB, _COUNT_FRAMES):
            conn.execute(statement, params)
    return arrived


def move_to_folder(conn: psycopg.Connection, job: Job, folder: str) -> bool:
    """The job moves to this folder of its show; False when it is there."""
    return conn.execute(_MOVE_FOLDER, {"job": job.job, "folder": folder}).rowcount == 1


def move_to_department(conn: psycopg.Connection, job: Job, dept: str) -> bool:
    """The job moves to this department; False when it is there."""
    params = {"job": job.job, "show": job.show, "dept": dept}
    return conn.execute(_MOVE_DEPT, params).rowcount == 1


def host_state(conn: psycopg.Connection, host: str, was: str, to: str) -> bool:
    """The host goes from one state to another; False when it was in neither."""
    return conn.execute(_HOST_STATE, {"host": host, "was": was, "to": to}).rowcount == 1


def cap_value(conn: psycopg.Connection, cap: Cap) -> int | None:
    """What the cap is; None when its row is gone."""
    query = sql.SQL("SELECT {column} FROM {table} WHERE {key} = %s").format(**_names(cap))
    row = conn.execute(query, (cap.key,)).fetchone()
    return None if row is None else int(row[0])


def set_cap(conn: psycopg.Connection, cap: Cap, value: int) -> bool:
    """Set a cap, also below what runs."""
    query = sql.SQL("UPDATE {table} SET {column} = %s WHERE {key} = %s").format(**_names(cap))
    return conn.execute(query, (value, cap.key)).rowcount == 1


def _names(cap: Cap) -> dict[str, sql.Identifier]:
    return {
        "table": sql.Identifier("public", cap.table),
        "column": sql.Identifier(cap.column),
        "key": sql.Identifier(cap.key_column),
    }
