"""A generated farm of any size is exact: its totals, tiers, idle amounts and counts."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_HALF_UP, Decimal
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from psycopg import sql

from retally.sql.farm_build import FarmSize, FarmSummary, create_farm, create_schema, load_farm

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import LiteralString

    from retally.sql.embedded import EmbeddedServer

SMALL = FarmSize()
EMPTY = FarmSize(
    shows=0,
    hosts=0,
    allocations=0,
    folders=0,
    departments=0,
    jobs=0,
    finished_jobs=0,
    layers=0,
    procs=0,
)
SIZES = {
    "default": SMALL,
    "skewed": FarmSize(
        shows=9, jobs=25, procs=2000, layers=5, local_share=0.3, gpu_share=0.4, seed=7
    ),
    "all local, all on GPUs": replace(SMALL, local_share=1, gpu_share=1),
    "none local, none on GPUs": replace(SMALL, local_share=0, gpu_share=0),
    "fewer jobs than shows": replace(SMALL, shows=12, jobs=2, finished_jobs=1),
    "fewer procs than layers": replace(SMALL, procs=3),
    "one of each": FarmSize(**dict.fromkeys(asdict(SMALL), 1)),
    "idle": replace(SMALL, procs=0),
    "shows only": replace(EMPTY, shows=2),
    "empty": EMPTY,
}


@dataclass(frozen=True)
class Farm:
    conn: psycopg.Connection
    size: FarmSize
    summary: FarmSummary


@pytest.fixture(scope="module", params=list(SIZES))
def farm(request: pytest.FixtureRequest, server: EmbeddedServer) -> Iterator[Farm]:
    """A farm of each size; the tests only read it."""
    name = f"farm: {request.param}"
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    with psycopg.connect(server.dsn(name), autocommit=True) as conn:
        size = SIZES[request.param]
        yield Farm(conn, size, create_farm(conn, size))


#: (cores, gpus, local cores, local GPUs) of a total's row.
Amounts = tuple[int, ...]


def booked(conn: psycopg.Connection) -> dict[tuple[str, ...], Amounts]:
    """All totals by brute force, one proc after the other; a job's local work is counted apart."""
    allocs: dict[str, str] = dict(conn.execute("SELECT pk_host, pk_alloc FROM host").fetchall())
    jobs = {job: rest for job, *rest in conn.execute("SELECT pk_job, pk_folder, pk_dept FROM job")}
    sums: defaultdict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    for host, job, show, layer, local, cores, gpus in conn.execute(
        "SELECT pk_host, pk_job, pk_show, pk_layer, b_local, int_cores_reserved, int_gpus_reserved"
        " FROM proc"
    ):
        folder, dept = jobs[job]
        keys: list[tuple[str, ...]] = [("layer", layer)]
        if not local:
            keys += [
                ("subscription", show, allocs[host]),
                ("job", job),
                ("folder", folder),
                ("point", show, dept),
            ]
        for key in keys:
            sums[key][0] += cores
            sums[key][1] += gpus
        if local:
            sums["job", job][2] += cores
            sums["job", job][3] += gpus
    return {key: tuple(amounts) for key, amounts in sums.items() if any(amounts)}


def stored(conn: psycopg.Connection) -> dict[tuple[str, ...], Amounts]:
    """All totals as they are stored, where not zero."""
    queries: dict[str, LiteralString] = {
        "subscription": "SELECT int_cores, int_gpus, 0, 0, pk_show, pk_alloc FROM subscription",
        "layer": "SELECT int_cores, int_gpus, 0, 0, pk_layer FROM layer_resource",
        "job": "SELECT int_cores, int_gpus, int_local_cores, int_local_gpus, pk_job"
        " FROM job_resource",
        "folder": "SELECT int_cores, int_gpus, 0, 0, pk_folder FROM folder_resource",
        "point": "SELECT int_cores, int_gpus, 0, 0, pk_show, pk_dept FROM point",
    }
    return {
        (total, *row[4:]): row[:4]
        for total, query in queries.items()
        for row in conn.execute(query)
        if any(row[:4])
    }


def count(conn: psycopg.Connection, what: LiteralString) -> int:
    row = conn.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.SQL(what))).fetchone()
    assert row
    return int(row[0])


def test_every_total_is_the_sum_of_its_procs(farm: Farm) -> None:
    assert stored(farm.conn) == booked(farm.conn)


def test_the_sum_finds_an_error_of_one(empty_db: psycopg.Connection) -> None:
    create_farm(empty_db, SMALL)
    for total in ("subscription", "layer_resource", "job_resource", "folder_resource", "point"):
        update = "UPDATE {0} SET int_gpus = int_gpus - 1 WHERE ctid = (SELECT min(ctid) FROM {0})"
        with empty_db.transaction(force_rollback=True):
            empty_db.execute(sql.SQL(update).format(sql.Identifier(total)))
            assert stored(empty_db) != booked(empty_db)


def test_other_shows_are_left_alone(empty_db: psycopg.Connection) -> None:
    create_schema(empty_db)
    empty_db.execute("INSERT INTO show (pk_show, str_name) VALUES ('testing', 'testing')")
    load_farm(empty_db, SMALL)
    assert count(empty_db, "show") == SMALL.shows + 1
    assert stored(empty_db) == booked(empty_db)


def test_no_total_reaches_its_cap(farm: Farm) -> None:
    over = {
        "subscription": "subscription WHERE int_cores >= int_burst OR int_size > int_burst",
        "job": "job_resource WHERE int_cores >= int_max_cores OR int_gpus >= int_max_gpus",
        "folder": "folder_resource WHERE (int_max_cores > -1 AND int_cores >= int_max_cores)"
        " OR (int_max_gpus > -1 AND int_gpus >= int_max_gpus)",
    }
    assert {total: count(farm.conn, what) for total, what in over.items()} == dict.fromkeys(over, 0)


def test_what_is_idle_is_what_no_proc_has(farm: Farm) -> None:
    used: defaultdict[str, Counter[str]] = defaultdict(Counter)
    local: defaultdict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for host, job, b_local, *amounts in farm.conn.execute(
        "SELECT pk_host, pk_job, b_local, int_cores_reserved, int_mem_reserved, int_gpus_reserved,"
        " int_gpu_mem_reserved FROM proc"
    ):
        taken = dict(zip(("cores", "mem", "gpus", "gpu_mem"), amounts, strict=True))
        used[host].update(taken)
        if b_local:
            local[host, job].update(taken)
    for host, *columns in farm.conn.execute(
        "SELECT pk_host, int_cores, int_cores_idle, int_mem, int_mem_idle, int_gpus, int_gpus_idle,"
        " int_gpu_mem, int_gpu_mem_idle FROM host"
    ):
        has, idle = columns[::2], columns[1::2]
        assert min(idle) >= 0
        assert [a - b for a, b in zip(has, idle, strict=True)] == [
            used[host][slot] for slot in ("cores", "mem", "gpus", "gpu_mem")
        ]
    shares = farm.conn.execute(
        "SELECT pk_host, pk_job, int_cores_max - int_cores_idle, int_mem_max - int_mem_idle,"
        " int_gpus_max - int_gpus_idle, int_gpu_mem_max - int_gpu_mem_idle FROM host_local"
    ).fetchall()
    assert {(row[0], row[1]): list(row[2:]) for row in shares} == {
        pair: [taken[slot] for slot in ("cores", "mem", "gpus", "gpu_mem")]
        for pair, taken in local.items()
    }


def test_counts_are_as_asked(farm: Farm) -> None:
    asked = {
        "show": farm.size.shows,
        "alloc": farm.size.allocations,
        "subscription": farm.size.shows * farm.size.allocations,
        "dept": farm.size.departments,
        "point": farm.size.shows * farm.size.departments,
        "folder": farm.size.shows * farm.size.folders,
        "folder_level": farm.size.shows * farm.size.folders,
        "host": farm.size.hosts,
        "host_stat": farm.size.hosts,
        "job WHERE str_state = 'PENDING'": farm.size.jobs,
        "job WHERE str_state = 'FINISHED'": farm.size.finished_jobs,
        "job_mem": farm.size.jobs + farm.size.finished_jobs,
        "job_usage": farm.size.jobs + farm.size.finished_jobs,
        "layer": (farm.size.jobs + farm.size.finished_jobs) * farm.size.layers,
        "layer_mem": (farm.size.jobs + farm.size.finished_jobs) * farm.size.layers,
        "layer_usage": (farm.size.jobs + farm.size.finished_jobs) * farm.size.layers,
        "frame WHERE str_state = 'WAITING'": farm.size.jobs * farm.size.layers,
        "frame WHERE str_state = 'RUNNING'": farm.size.procs,
        "proc": farm.size.procs,
    }
    assert {what: count(farm.conn, what) for what in asked} == asked
    told = asdict(farm.summary)
    assert {name: told[name] for name in ("shows", "hosts", "jobs", "finished_jobs", "procs")} == {
        name: asdict(farm.size)[name]
        for name in ("shows", "hosts", "jobs", "finished_jobs", "procs")
    }
    assert told["layers"] == count(farm.conn, "layer")
    assert told["waiting_frames"] == count(farm.conn, "frame WHERE str_state = 'WAITING'")
    assert told["folders"] == count(farm.conn, "folder")
    assert told["points"] == count(farm.conn, "point")
    assert told["subscriptions"] == count(farm.conn, "subscription")
    assert told["local_procs"] == count(farm.conn, "proc WHERE b_local")
    assert told["gpu_procs"] == count(farm.conn, "proc WHERE int_gpus_reserved > 0")
    taken = (
        "SELECT coalesce(sum(int_cores_reserved), 0), coalesce(sum(int_gpus_reserved), 0) FROM proc"
    )
    assert farm.conn.execute(taken).fetchone() == (told["cores"], told["gpus"])


def tier(cores: int, minimum: int) -> Decimal:
    if minimum == 0:
        return Decimal(cores) / 100 + 1
    return Decimal(-minimum) if cores == 0 else Decimal(cores) / minimum


def soft_tier(cores: int, minimum: int) -> Decimal:
    return Decimal(1) if minimum == 0 or cores >= minimum else tier(cores, minimum)


def test_every_tier_follows_the_rule(farm: Farm) -> None:
    rules: list[tuple[LiteralString, Any]] = [
        ("SELECT int_cores, int_size, float_tier FROM subscription", tier),
        ("SELECT int_cores, int_min_cores, float_tier FROM job_resource", tier),
        ("SELECT int_cores, int_min_cores, float_tier FROM folder_resource", soft_tier),
        ("SELECT int_cores, int_min_cores, float_tier FROM point", soft_tier),
        ("SELECT int_cores_max - int_cores_idle, int_cores_max, float_tier FROM host_local", tier),
    ]
    for query, rule in rules:
        for cores, minimum, value in farm.conn.execute(query):
            assert value == rule(cores, minimum).quantize(Decimal("0.01"), ROUND_HALF_UP)


def test_frames_are_counted_and_every_proc_runs_one(farm: Farm) -> None:
    matching = (
        "proc JOIN frame USING (pk_frame, pk_layer, pk_job) JOIN layer USING (pk_layer, pk_job)"
        " JOIN job USING (pk_job, pk_show)"
        " WHERE frame.str_state = 'RUNNING' AND job.str_state = 'PENDING'"
    )
    assert count(farm.conn, matching) == farm.size.procs
    for owner in ("layer", "job"):
        key = f"pk_{owner}"
        counted = sql.SQL(
            "SELECT {key}, int_running_count, int_waiting_count FROM {stat}"
            " EXCEPT SELECT {key}, count(*) FILTER (WHERE frame.str_state = 'RUNNING'),"
            " count(*) FILTER (WHERE frame.str_state = 'WAITING')"
            " FROM {owner} LEFT JOIN frame USING ({key}) GROUP BY {key}"
        ).format(
            key=sql.Identifier(key),
            stat=sql.Identifier(f"{owner}_stat"),
            owner=sql.Identifier(owner),
        )
        assert farm.conn.execute(counted).fetchall() == []
