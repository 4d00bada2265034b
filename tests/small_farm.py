"""Small farms by hand: one function per kind of row, every key and amount chosen by the test."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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

    def host(self, alloc: str, cores: int = 100_000) -> str:
        key = new_id("host")
        self._insert(
            "host",
            pk_host=key,
            pk_alloc=alloc,
            str_name=key,
            str_lock_state="OPEN",
            int_cores=cores,
            int_cores_idle=cores,
            int_mem=10**9,
            int_mem_idle=10**9,
            int_gpus=1000,
            int_gpus_idle=1000,
        )
        return key

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

    def proc(
        self,
        host: str,
        show: str | None,
        job: str | None,
        layer: str | None,
        cores: int = 100,
        gpus: int = 0,
        local: bool = False,
    ) -> str:
        key = new_id("proc")
        self._insert(
            "proc",
            pk_proc=key,
            pk_host=host,
            pk_show=show,
            pk_job=job,
            pk_layer=layer,
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
