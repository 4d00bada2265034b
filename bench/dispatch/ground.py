"""The database that is measured: a farm of the benchmark's own, alike before every cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from psycopg import sql

from retally.bench.dispatch.modes import Target
from retally.bench.dispatch.records import Action, Mode
from retally.bench.errors import BenchError
from retally.bench.place import await_alone
from retally.procedures import TOTALS, install, routines
from retally.procedures.journal import fold, set_journal
from retally.sql.errors import translated
from retally.sql.farm_build import FarmSize, create_farm

if TYPE_CHECKING:
    import psycopg

    from retally.bench.dispatch.records import Spec

_JOBS = 20
_LAYERS = 3
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
# foreign key and its unique index are paid for.
_WORK = """
CREATE SCHEMA bench;
CREATE TABLE bench.work AS
SELECT
    nr.nr,
    gen_random_uuid()::text AS frame,
    l.pk_layer::text AS layer,
    l.pk_job::text AS job,
    h.pk_host::text AS host
FROM generate_series(1, {frames}) AS nr (nr)
INNER JOIN (
    SELECT y.*, row_number() OVER (ORDER BY y.pk_layer) - 1 AS place FROM public.layer AS y
) AS l ON l.place = nr.nr % {layers}
INNER JOIN (
    SELECT t.pk_host, row_number() OVER (ORDER BY t.pk_host) - 1 AS place FROM public.host AS t
) AS h ON h.place = abs(hashint8(nr.nr)::bigint) % {hosts};
ALTER TABLE bench.work ADD PRIMARY KEY (nr);
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
SELECT w.frame, w.host, s.pk_show, w.job, w.layer, w.frame, 100, 1048576, 1048576
FROM bench.work AS w CROSS JOIN public.show AS s
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
_TARGET = """
SELECT s.pk_show, a.pk_alloc, f.pk_folder, p.pk_dept
FROM public.show AS s
INNER JOIN public.subscription AS a ON s.pk_show = a.pk_show
INNER JOIN public.folder AS f ON s.pk_show = f.pk_show
INNER JOIN public.point AS p ON s.pk_show = p.pk_show
WHERE EXISTS (SELECT FROM public.job AS j WHERE j.pk_folder = f.pk_folder AND j.pk_dept = p.pk_dept)
"""


class Ground:
    """The farm of the benchmark: one show, one subscription, ``frames`` frames that wait."""

    def __init__(
        self, conn: psycopg.Connection, dsn: str, *, hosts: int, frames: int, seed: int
    ) -> None:
        self.conn = conn
        self.dsn = dsn
        self.frames = frames
        size = FarmSize(
            shows=1, hosts=hosts, allocations=1, folders=1, departments=1, jobs=_JOBS,
            finished_jobs=0, layers=_LAYERS, procs=0, seed=seed,
        )  # fmt: skip
        create_farm(conn, size)
        install(conn)
        with translated():
            self._each(_ROOM)
            work = sql.SQL(_WORK).format(frames=frames, layers=_JOBS * _LAYERS, hosts=hosts)
            self._each(work.as_string(conn))
            (row,) = conn.execute(_TARGET).fetchall()
            # the first write to a page after a checkpoint costs a page of WAL: not in a cell
            conn.execute("SELECT count(*) FROM (SELECT 1 FROM public.frame FOR KEY SHARE) AS f")
        self.target = Target(*map(str, row))

    def reset(self, spec: Spec) -> None:
        """Make the farm as this cell needs it, the same before each of its kind.

        Nobody else may be connected: waits for those who are just leaving.
        """
        await_alone(self.conn)
        # a flip would leave its triggers on proc
        set_journal(self.conn, self.target.show, on=False)
        with translated():
            self._each(_EMPTY)
            if spec.action is Action.RELEASE:
                booked = sql.SQL(_BOOKED).format(frames=self.frames_for(spec))
                self._each(booked.as_string(self.conn))
            self.conn.execute("UPDATE retally.setting SET notify = %s", (spec.notify,))
        routines.set_managed(self.conn, self.target.show, managed=_managed(spec))
        if spec.journaled:
            set_journal(self.conn, self.target.show, on=True)
        with translated():
            self.conn.execute(_VACUUM)

    def frames_for(self, spec: Spec) -> int:
        """How many frames the clients of this cell share."""
        # a single release does in no time what takes long to prepare
        few = spec.action is Action.RELEASE and spec.batch == 1
        return self.frames // 4 if few else self.frames

    def rows_adrift(self, spec: Spec) -> int | None:
        """Rows of the show's totals that are wrong; None while bookings leave them alone.

        Of a journaled show: once its journal is folded.
        """
        if spec.journaled:
            fold(self.conn, [self.target.show], wait=True)
        elif spec.mode in {Mode.FLAG_ON, Mode.BARE}:
            return None
        found = routines.drift(self.conn, [self.target.show], TOTALS)
        return len({(slot.total, slot.key) for slot in found})

    def slots_adrift(self) -> int:
        """Idle amounts of hosts that do not agree with the procs."""
        return len(routines.host_drift(self.conn))

    def deadlocks(self) -> int:
        """How many the server has counted in this database; whoever met one must have left."""
        await_alone(self.conn)
        query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        return int(self._value(query))

    def _value(self, query: str) -> int:
        with translated():
            row = self.conn.execute(query.encode()).fetchone()
        assert row is not None  # noqa: S101 - an aggregate has always one row
        return int(row[0])

    def _each(self, script: str) -> None:
        # one by one: VACUUM refuses to be part of a script
        for statement in script.split(";"):
            self.conn.execute(statement.encode())


def require_connections(conn: psycopg.Connection, clients: int) -> None:
    """Raise BenchError unless so many clients fit beside those who are there."""
    with translated():
        row = conn.execute(
            "SELECT current_setting('max_connections')::int"
            " - current_setting('superuser_reserved_connections')::int"
            " - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"
        ).fetchone()
    free = int(row[0]) if row else 0
    if free < clients + _OTHER_CONNECTIONS:
        raise BenchError(
            f"this server has {free} connections left, {clients} clients need"
            f" {clients + _OTHER_CONNECTIONS}",
            "raise max_connections, or ask for fewer --clients",
        )


def _managed(spec: Spec) -> bool:
    return spec.mode is Mode.FLAG_ON
