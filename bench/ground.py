"""A farm on which bookings are measured: room for all of them, and frames that wait."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from psycopg import sql

from retally.bench.errors import BenchError
from retally.bench.place import await_alone
from retally.procedures import install, routines
from retally.procedures.booking import Booking
from retally.sql.errors import translated
from retally.sql.farm_build import create_farm

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from retally.sql.farm_build import FarmSize

_CORE_UNITS = 100
_MEM_KB = 1_048_576
_OTHER_CONNECTIONS = 6  # ours, the listener's, the recompute's, and some for whoever looks on

# Room for every booking, so that none is refused.
_ROOM = """
UPDATE public.host SET
    int_cores = 1000000000, int_cores_idle = 1000000000,
    int_mem = 1000000000000, int_mem_idle = 1000000000000;
UPDATE public.subscription SET int_size = 1000000000, int_burst = 2000000000;
UPDATE public.job_resource SET int_max_cores = 2000000000
"""
# Every booking has a frame of its own, used again in the next cell: a real one, so that its
# foreign key and its unique index are paid for. Each show has as many, on all of its layers.
_WORK = """
CREATE SCHEMA bench;
CREATE TABLE bench.work AS
WITH layer AS (
    SELECT
        j.pk_show::text AS show,
        j.pk_job::text AS job,
        y.pk_layer::text AS layer,
        row_number() OVER (PARTITION BY j.pk_show ORDER BY y.pk_layer) - 1 AS place
    FROM public.layer AS y
    INNER JOIN public.job AS j ON y.pk_job = j.pk_job
),
show AS (
    SELECT l.show, count(*) AS layers, row_number() OVER (ORDER BY l.show) - 1 AS place
    FROM layer AS l
    GROUP BY l.show
),
numbered AS (
    SELECT
        s.show,
        nr.nr,
        nr.nr % s.layers AS layer,
        abs(hashint8(nr.nr + s.place * {frames})::bigint) % {hosts} AS host
    FROM show AS s
    CROSS JOIN generate_series(1, {frames}) AS nr (nr)
)
SELECT n.show, n.nr, gen_random_uuid()::text AS frame, l.layer, l.job, h.pk_host::text AS host
FROM numbered AS n
INNER JOIN layer AS l ON n.show = l.show AND n.layer = l.place
INNER JOIN (
    SELECT t.pk_host, row_number() OVER (ORDER BY t.pk_host) - 1 AS place FROM public.host AS t
) AS h ON n.host = h.place;
ALTER TABLE bench.work ADD PRIMARY KEY (show, nr);
INSERT INTO public.frame (
    pk_frame, pk_layer, pk_job, str_name, str_state, int_number, int_layer_order, ts_eligible
)
SELECT
    w.frame, w.layer, w.job, 'bench-' || w.nr, 'WAITING', 1000 + w.nr, w.nr, current_timestamp
FROM bench.work AS w
ORDER BY w.nr;
ANALYZE bench.work;
VACUUM (ANALYZE) public.frame
"""
_EMPTY = """
TRUNCATE public.proc;
UPDATE public.host SET int_cores_idle = int_cores, int_mem_idle = int_mem
"""
# Procs for a release to end, each with its frame's id.
_BOOKED = """
INSERT INTO public.proc (
    pk_proc, pk_host, pk_show, pk_job, pk_layer, pk_frame, int_cores_reserved,
    int_mem_reserved, int_mem_pre_reserved
)
SELECT w.frame, w.host, w.show, w.job, w.layer, w.frame, 100, 1048576, 1048576
FROM bench.work AS w
WHERE w.nr <= {frames};
UPDATE public.host AS h SET
    int_cores_idle = h.int_cores_idle - 100 * w.procs,
    int_mem_idle = h.int_mem_idle - 1048576 * w.procs
FROM (
    SELECT k.host, count(*) AS procs FROM bench.work AS k WHERE k.nr <= {frames} GROUP BY k.host
) AS w
WHERE h.pk_host = w.host
"""
_VACUUM = """
VACUUM (ANALYZE) public.proc, public.host, public.subscription, public.layer_resource,
public.job_resource, public.folder_resource, public.point, retally.journal
"""
_FRAMES = """
SELECT w.frame, w.layer, w.job FROM bench.work AS w
WHERE w.show = %s AND w.nr > %s AND w.nr <= %s ORDER BY w.nr
"""


class BenchFarm:
    """A farm of this size, and of each show ``frames`` frames that wait.

    ``conn``: a connection to the benchmark's own, empty database, whose DSN is ``dsn``.
    """

    def __init__(self, conn: psycopg.Connection, dsn: str, size: FarmSize, *, frames: int) -> None:
        self.conn = conn
        self.dsn = dsn
        self.frames = frames
        create_farm(conn, size)
        install(conn)
        with translated():
            self.run(_ROOM)
            work = sql.SQL(_WORK).format(frames=frames, hosts=size.hosts)
            self.run(work.as_string(conn))
            # the first write to a page after a checkpoint costs a page of WAL: not in a cell
            conn.execute("SELECT count(*) FROM (SELECT 1 FROM public.frame FOR KEY SHARE) AS f")

    def clear(self, booked: int = 0) -> None:
        """End all procs, and book so many of each show, which have the ids of their frames.

        The totals are not touched.
        """
        with translated():
            self.run(_EMPTY)
            if booked:
                self.run(sql.SQL(_BOOKED).format(frames=booked).as_string(self.conn))

    def set_notify(self, notify: bool) -> None:
        """Whether releases of managed shows' procs are told."""
        with translated():
            self.conn.execute("UPDATE retally.setting SET notify = %s", (notify,))

    def vacuum(self) -> None:
        """Clear away what cells and resets have left."""
        with translated():
            self.conn.execute(_VACUUM)

    def slots_adrift(self) -> int:
        """Idle amounts of hosts that do not agree with the procs."""
        return len(routines.host_drift(self.conn))

    def deadlocks(self) -> int:
        """How many the server has counted in this database; whoever met one must have left."""
        await_alone(self.conn)
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        with translated():
            row = self.conn.execute(query.encode()).fetchone()
        assert row is not None  # noqa: S101 - one row for each database
        return int(row[0])

    def run(self, script: str) -> None:
        """Send the statements of the script, each a transaction."""
        # one by one: VACUUM refuses to be part of a script
        for statement in script.split(";"):
            self.conn.execute(statement.encode())


def all_hosts(conn: psycopg.Connection) -> list[str]:
    """The ids of all hosts, in order."""
    with translated():
        return [str(row[0]) for row in conn.execute("SELECT pk_host FROM public.host ORDER BY 1")]


def bookings(
    conn: psycopg.Connection, show: str, part: tuple[int, int], hosts: Sequence[str], seed: str
) -> Iterator[Booking]:
    """1 core and 1 GiB for each frame of the show in ``part``, (after, up to), on hosts drawn.

    ``show``: pk_show. The same seed, the same draws.
    """
    with translated():
        frames = conn.execute(_FRAMES, (show, *part)).fetchall()
    draw = random.Random(seed)  # noqa: S311 - chooses work, guards nothing
    return (
        Booking(draw.choice(hosts), job, layer, frame, _CORE_UNITS, _MEM_KB)
        for frame, layer, job in frames
    )


def require_connections(
    conn: psycopg.Connection, clients: int, others: int = _OTHER_CONNECTIONS
) -> None:
    """Raise BenchError unless so many clients and others fit beside those who are there."""
    with translated():
        row = conn.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
        ).fetchone()
    free = int(row[0]) if row else 0
    if free < clients + others:
        raise BenchError(
            f"this server has {free} connections left, {clients} clients need {clients + others}",
            "raise max_connections, or ask for fewer --clients",
        )
