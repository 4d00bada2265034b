"""Every total of a show is, after a recompute, what a brute-force sum over its procs says."""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.procedures import TOTALS

if TYPE_CHECKING:
    import psycopg

Key = tuple[str, str, str]  # total, show (where it tells rows apart, else empty), key
Amounts = tuple[int, int, int, int]  # cores, gpus, local cores, local gpus

TABLES = ("subscription", "layer_resource", "job_resource", "folder_resource", "point")


def brute_force(conn: psycopg.Connection) -> dict[Key, Amounts]:
    """The rule of each total, read from the facts and summed in Python."""
    alloc: dict[str, str] = dict(conn.execute("SELECT pk_host, pk_alloc FROM host").fetchall())
    jobs = {
        job: (show, folder, dept)
        for job, show, folder, dept in conn.execute(
            "SELECT pk_job, pk_show, pk_folder, pk_dept FROM job"
        )
    }
    sums: dict[Key, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
    procs = conn.execute(
        "SELECT pk_host, pk_show, pk_job, pk_layer, b_local, int_cores_reserved,"
        " int_gpus_reserved FROM proc"
    )
    for host, show, job, layer, local, cores, gpus in procs:
        where: list[tuple[Key, int]] = [(("layer", "", layer), 0)]
        where.append((("job", "", job), 2 if local else 0))
        if not local:
            where.append((("subscription", show, alloc[host]), 0))
            if job in jobs:
                job_show, folder, dept = jobs[job]
                where += [(("folder", "", folder), 0), (("point", job_show, dept), 0)]
        for key, slot in where:
            sums[key][slot] += cores
            sums[key][slot + 1] += gpus
    return {key: (a, b, c, d) for key, (a, b, c, d) in sums.items()}


def all_stored(conn: psycopg.Connection) -> dict[Key, Amounts]:
    rows = conn.execute("""
        SELECT 'subscription', pk_show, pk_alloc, int_cores, int_gpus, 0, 0 FROM subscription
        UNION ALL SELECT 'layer', '', pk_layer, int_cores, int_gpus, 0, 0 FROM layer_resource
        UNION ALL SELECT 'job', '', pk_job, int_cores, int_gpus, int_local_cores, int_local_gpus
        FROM job_resource
        UNION ALL SELECT 'folder', '', pk_folder, int_cores, int_gpus, 0, 0 FROM folder_resource
        UNION ALL SELECT 'point', pk_show, pk_dept, int_cores, int_gpus, 0, 0 FROM point
    """)
    return {(total, show, key): (a, b, c, d) for total, show, key, a, b, c, d in rows}


def versions(conn: psycopg.Connection) -> set[tuple[str, str, int]]:
    """Table, place and writing transaction of every row of every total."""
    found: set[tuple[str, str, int]] = set()
    for table in TABLES:
        query = f"SELECT ctid::text, xmin::text::bigint FROM {table}"
        found |= {(table, place, writer) for place, writer in conn.execute(query)}
    return found


def random_farm(conn: psycopg.Connection, seed: int) -> list[str]:
    """A small farm in which anything may disagree with anything; answers with its shows."""
    draw = random.Random(seed)
    rows = Rows(conn)
    shows = [rows.show() for _ in range(draw.randint(1, 3))]
    allocs = [rows.alloc() for _ in range(2)]
    depts = [rows.dept() for _ in range(2)]
    for show in shows:
        for alloc, dept in zip(allocs, depts, strict=True):
            rows.subscription(show, alloc)
            rows.point(show, dept)
    folders = [(show, rows.folder(show, depts[0])) for show in shows for _ in range(2)]
    jobs = {}
    for _ in range(draw.randint(1, 6)):
        show, folder = draw.choice(folders)
        state = draw.choice(["PENDING", "PENDING", "FINISHED"])
        jobs[rows.job(show, folder, draw.choice(depts), state)] = show
    layers = [(job, rows.layer(job)) for job in jobs for _ in range(draw.randint(1, 2))]
    hosts = [rows.host(draw.choice(allocs)) for _ in range(3)]
    random_procs(draw, rows, jobs, layers, hosts)
    for host in hosts:
        if draw.random() < 0.3:  # hosts move between allocations, and nobody tells the totals
            move = "UPDATE host SET pk_alloc = %s WHERE pk_host = %s"
            conn.execute(move, (draw.choice(allocs), host))
    for job, show in jobs.items():
        if draw.random() < 0.3:
            move = "UPDATE job SET pk_folder = %s, pk_dept = %s WHERE pk_job = %s"
            folder = draw.choice([f for s, f in folders if s == show])
            conn.execute(move, (folder, draw.choice(depts), job))
    return shows


def random_procs(
    draw: random.Random,
    rows: Rows,
    jobs: dict[str, str],
    layers: list[tuple[str, str]],
    hosts: list[str],
) -> None:
    """Up to 25 procs; now and then one names what it should not, or nothing, or what is gone."""

    def named(right: str, others: list[str]) -> str | None:
        wrong = [None, "gone", draw.choice(others)]
        return draw.choice(wrong) if draw.random() < 0.2 else right

    for _ in range(draw.randint(0, 25)):
        job, layer = draw.choice(layers)
        rows.proc(
            draw.choice(hosts),
            named(jobs[job], list(jobs.values())),
            named(job, list(jobs)),
            named(layer, [other for _, other in layers]),
            cores=draw.randint(1, 900),
            gpus=draw.choice([0, 0, 1, 3]),
            local=draw.random() < 0.2,
        )


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), order=st.randoms(use_true_random=False))
def test_a_recompute_of_each_show_leaves_the_brute_force_sums(
    farm_db: psycopg.Connection, seed: int, order: random.Random
) -> None:
    with farm_db.transaction(force_rollback=True):
        shows = random_farm(farm_db, seed)
        corrupt(farm_db)
        order.shuffle(shows)
        for show in shows:
            farm_db.execute("CALL retally.recompute_show(%s)", (show,))

        sums = brute_force(farm_db)
        expected = {key: sums.get(key, (0, 0, 0, 0)) for key in all_stored(farm_db)}
        assert all_stored(farm_db) == expected
        for show in shows:
            drift = farm_db.execute("SELECT * FROM retally.drift(%s)", (show,)).fetchall()
            assert drift == []


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_drift_names_just_the_slots_that_differ_from_the_brute_force_sums(
    farm_db: psycopg.Connection, seed: int
) -> None:
    with farm_db.transaction(force_rollback=True):
        shows = random_farm(farm_db, seed)
        sums = brute_force(farm_db)
        slots = ("cores", "gpus", "local_cores", "local_gpus")
        expected = {
            (total, show, key, slot, old, new)
            for (total, show, key), row in all_stored(farm_db).items()
            for slot, old, new in zip(
                slots, row, sums.get((total, show, key), (0, 0, 0, 0)), strict=True
            )
            if old != new
        }
        found = [
            (total, show if total in {"subscription", "point"} else "", *rest)
            for show in shows
            for total, *rest in farm_db.execute("SELECT * FROM retally.drift(%s)", (show,))
        ]
        assert len(found) == len(set(found))
        assert set(found) == expected


@settings(
    max_examples=40,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32))
def test_reading_the_whole_farm_finds_what_reading_each_show_by_its_indexes_finds(
    farm_db: psycopg.Connection, seed: int
) -> None:
    """Which of the two a pass does depends on how many procs there are."""
    with farm_db.transaction(force_rollback=True):
        shows = random_farm(farm_db, seed)
        corrupt(farm_db)
        farm_db.execute(
            "UPDATE layer_resource SET int_cores = 0, int_gpus = 0 WHERE random() < 0.5"
        )
        query = "SELECT c.* FROM retally.compared(%s, retally.totals(), 'procs') AS c"
        whole = [row for row in farm_db.execute(query, (None,)) if row[0] in shows]
        singly = [row for show in shows for row in farm_db.execute(query, ([show],))]
        assert sorted(map(repr, whole)) == sorted(map(repr, singly))


@pytest.mark.parametrize("total", TOTALS)
def test_one_total_alone_is_rebuilt_and_the_others_are_left(
    farm_db: psycopg.Connection, total: str
) -> None:
    work = booked_show(farm_db)
    before = {t: stored(farm_db, work, t) for t in TOTALS}
    corrupt(farm_db)
    wrong = {t: stored(farm_db, work, t) for t in TOTALS}

    farm_db.execute(f"CALL retally.recompute_{total}(%s)", (work.show,))

    for other in TOTALS:
        expected = before[other] if other == total else wrong[other]
        assert stored(farm_db, work, other) == expected


def test_a_quiet_recompute_writes_no_row_of_any_total(farm_db: psycopg.Connection) -> None:
    work = booked_show(farm_db)
    before = versions(farm_db)
    farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    farm_db.execute("CALL retally.recompute_all(p_unmanaged_too => true)")
    assert versions(farm_db) == before


def test_only_the_rows_that_differ_are_written(farm_db: psycopg.Connection) -> None:
    work = booked_show(farm_db)
    before = versions(farm_db)
    farm_db.execute("UPDATE point SET int_cores = 5 WHERE pk_show = %s", (work.show,))
    farm_db.execute("CALL retally.recompute_show(%s)", (work.show,))
    changed = versions(farm_db) - before
    assert [table for table, _, _ in changed] == ["point"]


def test_another_shows_rows_are_never_written(farm_db: psycopg.Connection) -> None:
    mine, other = booked_show(farm_db), booked_show(farm_db)
    corrupt(farm_db)
    wrong = {t: stored(farm_db, other, t) for t in TOTALS}
    farm_db.execute("CALL retally.recompute_show(%s)", (mine.show,))
    assert {t: stored(farm_db, other, t) for t in TOTALS} == wrong


def test_recompute_all_takes_managed_shows_and_says_how_many(farm_db: psycopg.Connection) -> None:
    mine, other = booked_show(farm_db), booked_show(farm_db)
    farm_db.execute("CALL retally.set_managed(%s, true)", (mine.show,))
    before = {t: stored(farm_db, mine, t) for t in TOTALS}
    corrupt(farm_db)
    wrong = {t: stored(farm_db, other, t) for t in TOTALS}
    row = farm_db.execute("CALL retally.recompute_all()").fetchone()
    assert row is not None
    assert row[:6] == (1, 0, 5, 5, 0, 0)
    assert {t: stored(farm_db, mine, t) for t in TOTALS} == before
    assert {t: stored(farm_db, other, t) for t in TOTALS} == wrong


def test_booked_and_stored_speak_of_the_same_rows_in_one_shape(
    farm_db: psycopg.Connection,
) -> None:
    work = booked_show(farm_db)
    query = "SELECT * FROM retally.{}(%s) WHERE cores <> 0 ORDER BY total, key"
    booked = farm_db.execute(query.format("booked"), (work.show,)).fetchall()
    in_rows = farm_db.execute(query.format("stored"), (work.show,)).fetchall()
    assert booked == in_rows
    assert {row[0] for row in booked} == set(TOTALS)


def booked_show(conn: psycopg.Connection) -> Work:
    """A show with a common, a GPU and a local proc, and exact totals."""
    rows = Rows(conn)
    work = make_work(rows)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    rows.proc(work.host, work.show, work.job, work.layer, cores=200, gpus=2)
    rows.proc(work.host, work.show, work.job, work.layer, cores=150, gpus=1, local=True)
    conn.execute("CALL retally.recompute_show(%s)", (work.show,))
    return work
