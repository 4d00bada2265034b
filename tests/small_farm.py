"""Small farms by hand: one function per kind of row, every key and amount chosen by the test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from retally.procedures.booking import Booking

if TYPE_CHECKING:
    import psycopg

_numbers = itertools.count(1)


def new_id(kind: str) -> str:
    """A key that says what it is of, at most 36 characters like the farm's."""
    return f"{kind}-{next(_numbers):06d}"


@dataclass
class Rows:
    """Inserts rows into a farm and remembers nothing but a facility."""

    conn: psycopg.Connection
    facility: str = field(default_factory=lambda: new_id("facility"))

    def __post_init__(self) -> None:
        self._insert("facility", pk_facility=self.facility, str_name=self.facility)

    def show(self, name: str | None = None) -> str:
        key = new_id("show")
        self._insert("show", pk_show=key, str_name=name or key)
        return key

    def alloc(self) -> str:
        key = new_id("alloc")
        self._insert("alloc", pk_alloc=key, str_name=key, pk_facility=self.facility)
        return key

    def dept(self) -> str:
        key = new_id("dept")
        self._insert("dept", pk_dept=key, str_name=key)
        return key

    def subscription(self, show: str, alloc: str, burst: int = 1_000_000) -> None:
        self._insert(
            "subscription",
            pk_subscription=new_id("sub"),
            pk_show=show,
            pk_alloc=alloc,
            int_size=burst,
            int_burst=burst,
        )

    def point(self, show: str, dept: str) -> None:
        self._insert("point", pk_point=new_id("point"), pk_show=show, pk_dept=dept)

    def folder(self, show: str, dept: str) -> str:
        key = new_id("folder")
        self._insert("folder", pk_folder=key, pk_show=show, str_name=key, pk_dept=dept)
        return key

    def host(
        self, alloc: str, cores: int = 100_000, mem: int = 10**9, gpus: int = 1000, gpu_mem: int = 0
    ) -> str:
        key = new_id("host")
        self._insert(
            "host",
            pk_host=key,
            pk_alloc=alloc,
            str_name=key,
            str_lock_state="OPEN",
            int_cores=cores,
            int_cores_idle=cores,
            int_mem=mem,
            int_mem_idle=mem,
            int_gpus=gpus,
            int_gpus_idle=gpus,
            int_gpu_mem=gpu_mem,
            int_gpu_mem_idle=gpu_mem,
        )
        return key

    def local_share(
        self, host: str, job: str, cores: int = 1000, mem: int = 10**6, gpus: int = 0
    ) -> None:
        """What the job may use of this host, its user's own."""
        self._insert(
            "host_local",
            pk_host_local=new_id("share"),
            pk_host=host,
            pk_job=job,
            str_type="JOB",
            int_cores_max=cores,
            int_cores_idle=cores,
            int_mem_max=mem,
            int_mem_idle=mem,
            int_gpus_max=gpus,
            int_gpus_idle=gpus,
        )

    def job(self, show: str, folder: str, dept: str, state: str = "PENDING") -> str:
        key = new_id("job")
        self._insert(
            "job",
            pk_job=key,
            pk_show=show,
            pk_folder=folder,
            pk_dept=dept,
            pk_facility=self.facility,
            str_name=key,
            str_visible_name=key,
            str_shot="shot",
            str_user="user",
            str_state=state,
        )
        self.conn.execute(
            "UPDATE job_resource SET int_max_cores = 1000000, int_max_gpus = 1000000"
            " WHERE pk_job = %s",
            (key,),
        )
        return key

    def layer(self, job: str) -> str:
        key = new_id("layer")
        self._insert(
            "layer",
            pk_layer=key,
            pk_job=job,
            str_name=key,
            str_cmd="true",
            str_range="1-10",
            str_type="Render",
            int_chunk_size=1,
        )
        return key

    def frame(self, layer: str) -> str:
        """A frame of the layer, waiting."""
        key = new_id("frame")
        self.conn.execute(
            "INSERT INTO public.frame (pk_frame, pk_layer, pk_job, str_name, str_state, int_number,"
            " int_layer_order) SELECT %s, pk_layer, pk_job, %s, 'WAITING', 1, 1"
            " FROM public.layer WHERE pk_layer = %s",
            (key, key, layer),
        )
        return key

    def proc(
        self,
        host: str,
        show: str | None,
        job: str | None,
        layer: str | None,
        cores: int = 100,
        gpus: int = 0,
        local: bool = False,
        frame: str | None = None,
    ) -> str:
        key = new_id("proc")
        self._insert(
            "proc",
            pk_proc=key,
            pk_host=host,
            pk_show=show,
            pk_job=job,
            pk_layer=layer,
            pk_frame=frame,
            int_cores_reserved=cores,
            int_mem_reserved=1000,
            int_gpus_reserved=gpus,
            b_local=local,
        )
        return key

    def _insert(self, table: str, **values: object) -> None:
        names = ", ".join(values)
        marks = ", ".join(["%s"] * len(values))
        self.conn.execute(
            f"INSERT INTO public.{table} ({names}) VALUES ({marks})",
            list(values.values()),
        )


@dataclass(frozen=True)
class Work:
    """One show with everything that a booking needs, and the keys of its five totals."""

    show: str
    alloc: str
    dept: str
    folder: str
    job: str
    layer: str
    host: str

    def key(self, total: str) -> str:
        return {
            "subscription": self.alloc,
            "layer": self.layer,
            "job": self.job,
            "folder": self.folder,
            "point": self.dept,
        }[total]


def make_work(rows: Rows, name: str | None = None, burst: int = 1_000_000) -> Work:
    """A show with one of everything and no proc."""
    show, alloc, dept = rows.show(name), rows.alloc(), rows.dept()
    rows.subscription(show, alloc, burst)
    rows.point(show, dept)
    folder = rows.folder(show, dept)
    job = rows.job(show, folder, dept)
    return Work(show, alloc, dept, folder, job, rows.layer(job), rows.host(alloc))


#: In the order in which a booking writes them.
TOTAL_TABLES = ("subscription", "layer_resource", "job_resource", "folder_resource", "point")

#: Reads each total's row: cores, gpus, local cores, local gpus (null where there is no such slot).
STORED = {
    "subscription": "SELECT int_cores, int_gpus, NULL, NULL FROM subscription"
    " WHERE pk_show = %(show)s AND pk_alloc = %(key)s",
    "layer": "SELECT int_cores, int_gpus, NULL, NULL FROM layer_resource WHERE pk_layer = %(key)s",
    "job": "SELECT int_cores, int_gpus, int_local_cores, int_local_gpus FROM job_resource"
    " WHERE pk_job = %(key)s",
    "folder": "SELECT int_cores, int_gpus, NULL, NULL FROM folder_resource"
    " WHERE pk_folder = %(key)s",
    "point": "SELECT int_cores, int_gpus, NULL, NULL FROM point"
    " WHERE pk_show = %(show)s AND pk_dept = %(key)s",
}

#: Corrupts each total's table: every row of it, without meeting a cap.
CORRUPT = {
    "subscription": "UPDATE subscription SET int_cores = int_cores - 7, int_gpus = int_gpus - 1",
    "layer": "UPDATE layer_resource SET int_cores = int_cores - 7, int_gpus = int_gpus - 1",
    "job": "UPDATE job_resource SET int_cores = int_cores - 7, int_gpus = int_gpus - 1,"
    " int_local_cores = int_local_cores - 3, int_local_gpus = int_local_gpus - 2",
    "folder": "UPDATE folder_resource SET int_cores = int_cores - 7, int_gpus = int_gpus - 1",
    "point": "UPDATE point SET int_cores = int_cores - 7, int_gpus = int_gpus - 1",
}


def stored(conn: psycopg.Connection, work: Work, total: str) -> tuple[int, ...]:
    """What the row of this total of this work holds."""
    row = conn.execute(
        STORED[total],
        {"show": work.show, "key": work.key(total)},
    ).fetchone()
    assert row is not None
    return tuple(row)


def corrupt(conn: psycopg.Connection) -> None:
    """Make every row of every total wrong."""
    for statement in CORRUPT.values():
        conn.execute(statement)


def booking(work: Work, **changes: Any) -> Booking:
    """One core and 1000 kB for this work, without a frame, but for what the test changes."""
    return replace(Booking(work.host, work.job, work.layer, None, 100, 1000), **changes)


def idle(conn: psycopg.Connection, host: str) -> tuple[int, ...]:
    """What is idle on the host: core units, kB, GPUs, kB of GPU memory."""
    row = conn.execute(
        "SELECT int_cores_idle, int_mem_idle, int_gpus_idle, int_gpu_mem_idle FROM host"
        " WHERE pk_host = %s",
        (host,),
    ).fetchone()
    assert row is not None
    return tuple(row)


def share_idle(conn: psycopg.Connection, host: str, job: str) -> tuple[int, ...]:
    """What is idle of the job's share of its own host: core units, kB, GPUs."""
    row = conn.execute(
        "SELECT int_cores_idle, int_mem_idle, int_gpus_idle FROM host_local"
        " WHERE pk_host = %s AND pk_job = %s",
        (host, job),
    ).fetchone()
    assert row is not None
    return tuple(row)


def contents(conn: psycopg.Connection) -> dict[str, list[str]]:
    """Every row that a booking or release may write."""
    found = {}
    for table in ("proc", "host", "host_local", *TOTAL_TABLES):
        # the farm's triggers derive float_tier, from the first update on
        query = f"SELECT (to_jsonb(t) - 'float_tier')::text FROM public.{table} AS t ORDER BY 1"
        found[table] = [text for (text,) in conn.execute(query)]
    return found


def drift(conn: psycopg.Connection, *shows: str) -> list[tuple[Any, ...]]:
    """What is wrong in any total of these shows, and in any host."""
    found = conn.execute("SELECT * FROM retally.host_drift()").fetchall()
    for show in shows:
        found += conn.execute("SELECT * FROM retally.drift(%s)", (show,)).fetchall()
    return found


def manage(conn: psycopg.Connection, work: Work, managed: bool) -> None:
    """Set the show's own flag, as an operator does."""
    conn.execute("CALL retally.set_managed(%s, %s)", (work.show, managed))
