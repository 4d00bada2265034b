"""The stand-alone farm's triggers do what OpenCue's do."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
from psycopg.errors import ForeignKeyViolation, NotNullViolation, RaiseException

from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from typing import LiteralString

    import psycopg

ROWS = """
INSERT INTO facility (pk_facility, str_name) VALUES ('f', 'studio');
INSERT INTO dept (pk_dept, str_name) VALUES ('d1', 'lighting'), ('d2', 'layout'), ('d3', 'hair');
INSERT INTO alloc (pk_alloc, str_name, pk_facility) VALUES ('a', 'studio.a', 'f');
INSERT INTO show (pk_show, str_name) VALUES ('s', 'show1');
INSERT INTO subscription (pk_subscription, pk_show, pk_alloc, int_size, int_burst)
VALUES ('sub', 's', 'a', 300, 1000);
INSERT INTO folder (pk_folder, pk_parent_folder, pk_show, str_name, pk_dept)
VALUES ('root', NULL, 's', 'show1', 'd1'), ('in', 'root', 's', 'in', 'd1'),
       ('deep', 'in', 's', 'deep', 'd1');
INSERT INTO point (pk_point, pk_show, pk_dept) VALUES ('p1', 's', 'd1'), ('p2', 's', 'd2');
INSERT INTO job (pk_job, pk_folder, pk_show, pk_dept, pk_facility, str_name, str_shot, str_user,
                 str_state)
VALUES ('j', 'root', 's', 'd1', 'f', 'show1-sh1-me_j', 'sh1', 'me', 'PENDING');
INSERT INTO layer (pk_layer, pk_job, str_name, str_cmd, str_range, str_type)
VALUES ('l1', 'j', 'one', '', '', 'Render'), ('l2', 'j', 'two', '', '', 'Render');
INSERT INTO host (pk_host, pk_alloc, str_name, str_lock_state, int_cores, int_cores_idle, int_mem,
                  int_mem_idle, int_gpus, int_gpus_idle, int_gpu_mem, int_gpu_mem_idle)
VALUES ('h', 'a', 'host1', 'OPEN', 800, 500, 8000, 7000, 2, 1, 4000, 2000);
INSERT INTO host_stat (pk_host_stat, pk_host) VALUES ('h', 'h');
INSERT INTO frame (pk_frame, pk_layer, pk_job, str_name, str_state, int_number, int_layer_order)
VALUES ('fr', 'l1', 'j', '0001-one', 'RUNNING', 1, 0),
       ('next', 'l1', 'j', '0002-one', 'WAITING', 2, 1);
INSERT INTO proc (pk_proc, pk_host, pk_job, pk_show, pk_layer, pk_frame, int_cores_reserved,
                  int_mem_reserved, int_gpus_reserved)
VALUES ('p', 'h', 'j', 's', 'l1', 'fr', 300, 1000, 1);
UPDATE subscription SET int_cores = 300, int_gpus = 1;
UPDATE layer_resource SET int_cores = 300, int_gpus = 1 WHERE pk_layer = 'l1';
UPDATE job_resource SET int_cores = 300, int_gpus = 1, int_max_cores = 1000, int_max_gpus = 4;
UPDATE folder_resource SET int_cores = 300, int_gpus = 1 WHERE pk_folder = 'root';
UPDATE point SET int_cores = 300, int_gpus = 1 WHERE pk_dept = 'd1';
UPDATE layer_stat SET int_running_count = 1, int_waiting_count = 1 WHERE pk_layer = 'l1';
UPDATE job_stat SET int_running_count = 1, int_waiting_count = 1;
"""


@pytest.fixture
def farm(empty_db: psycopg.Connection) -> psycopg.Connection:
    """One show, one job of two layers, one proc of 3 cores and a GPU that every total counts."""
    create_schema(empty_db)
    empty_db.execute(ROWS)
    return empty_db


def refuses(farm: psycopg.Connection, update: LiteralString) -> bool:
    """Whether the farm refuses, with the plain exception (P0001) that OpenCue's triggers raise."""
    try:
        farm.execute(update)
    except RaiseException:
        return True
    return False


def rows(farm: psycopg.Connection, query: LiteralString) -> list[tuple[Any, ...]]:
    return farm.execute(query).fetchall()


def test_a_subscription_may_rise_to_its_burst_and_not_above(farm: psycopg.Connection) -> None:
    assert not refuses(farm, "UPDATE subscription SET int_cores = 1000")
    assert refuses(farm, "UPDATE subscription SET int_cores = 1001")


def test_a_lowered_burst_stands_but_lets_nothing_rise(farm: psycopg.Connection) -> None:
    assert not refuses(farm, "UPDATE subscription SET int_burst = 200")
    assert refuses(farm, "UPDATE subscription SET int_cores = 301")
    assert not refuses(farm, "UPDATE subscription SET int_cores = 299")
    assert not refuses(farm, "UPDATE subscription SET int_cores = 900, int_burst = 100")
    assert not refuses(farm, "UPDATE subscription SET int_gpus = 1000")


def test_a_job_may_rise_to_its_maxima_and_not_above(farm: psycopg.Connection) -> None:
    assert not refuses(farm, "UPDATE job_resource SET int_cores = 1000, int_gpus = 4")
    assert refuses(farm, "UPDATE job_resource SET int_cores = 1001")
    assert refuses(farm, "UPDATE job_resource SET int_gpus = 5")
    assert not refuses(farm, "UPDATE job_resource SET int_local_cores = 5000, int_local_gpus = 50")


def test_a_job_above_one_maximum_may_not_rise_in_the_other(farm: psycopg.Connection) -> None:
    assert not refuses(farm, "UPDATE job_resource SET int_max_cores = 200")
    assert refuses(farm, "UPDATE job_resource SET int_gpus = 2")
    assert not refuses(farm, "UPDATE job_resource SET int_cores = 900, int_max_cores = 100")
    assert not refuses(farm, "UPDATE job_resource SET int_cores = 800")


def test_folders_and_points_refuse_nothing(farm: psycopg.Connection) -> None:
    farm.execute("UPDATE folder_resource SET int_max_cores = 100, int_max_gpus = 0")
    assert not refuses(farm, "UPDATE folder_resource SET int_cores = 90000, int_gpus = 900")
    assert not refuses(farm, "UPDATE point SET int_cores = 90000, int_gpus = 900")


@pytest.mark.parametrize(
    ("cores", "minimum", "tier", "soft"),
    [
        (0, 0, "1", "1"),
        (250, 0, "3.5", "1"),
        (0, 300, "-300", "-300"),
        (100, 300, "0.33", "0.33"),
        (300, 300, "1", "1"),
        (450, 300, "1.5", "1"),
        (-100, 200, "-0.5", "-0.5"),
    ],
)
def test_every_update_rebuilds_the_tier(
    farm: psycopg.Connection, cores: int, minimum: int, tier: str, soft: str
) -> None:
    updates: list[tuple[LiteralString, str]] = [
        ("UPDATE subscription SET int_cores = %s, int_size = %s", tier),
        ("UPDATE job_resource SET int_cores = %s, int_min_cores = %s", tier),
        ("UPDATE folder_resource SET int_cores = %s, int_min_cores = %s", soft),
        ("UPDATE point SET int_cores = %s, int_min_cores = %s", soft),
    ]
    for update, expected in updates:
        changed = farm.execute(update + " RETURNING float_tier", (cores, minimum)).fetchone()
        assert changed == (Decimal(expected),)


@pytest.mark.parametrize("slot", ["cores", "mem", "gpus", "gpu_mem"])
def test_a_host_cannot_give_more_than_it_has(farm: psycopg.Connection, slot: str) -> None:
    farm.execute(f"UPDATE host SET int_{slot}_idle = 0")
    with pytest.raises(RaiseException, match="host h has not enough idle"):
        farm.execute(f"UPDATE host SET int_{slot}_idle = -1")


def test_a_proc_needs_cores(farm: psycopg.Connection) -> None:
    book = (
        "INSERT INTO proc (pk_proc, pk_host, int_cores_reserved, int_mem_reserved)"
        " VALUES ('q', 'h', %s, 1)"
    )
    for cores in (0, -100):
        with pytest.raises(RaiseException, match=f"needs cores, {cores} core units"):
            farm.execute(book, [cores])
    farm.execute(book, [1])


def test_local_shares_are_checked_as_opencue_checks_them(farm: psycopg.Connection) -> None:
    farm.execute(
        "INSERT INTO host_local (pk_host_local, pk_host, pk_job, str_type, int_cores_max,"
        " int_cores_idle, int_gpus_max, int_gpus_idle)"
        " VALUES ('hl', 'h', 'j', 'JOB', 400, 300, 2, 2)"
    )
    update = "UPDATE host_local SET int_cores_idle = 100 RETURNING float_tier"
    assert farm.execute(update).fetchone() == (Decimal("0.75"),)
    assert refuses(farm, "UPDATE host_local SET int_cores_idle = -1, int_gpus_idle = 1")
    assert refuses(farm, "UPDATE host_local SET int_mem_idle = 1, int_gpus_idle = -1")
    assert not refuses(farm, "UPDATE host_local SET int_cores_idle = -1")


def test_a_local_job_may_not_rise_above_its_maximum(farm: psycopg.Connection) -> None:
    farm.execute(
        "INSERT INTO job_local (pk_job_local, pk_job, pk_host, str_source, int_max_cores)"
        " VALUES ('jl', 'j', 'h', '', 400)"
    )
    assert not refuses(farm, "UPDATE job_local SET int_cores = 400")
    assert refuses(farm, "UPDATE job_local SET int_cores = 401")
    farm.execute("UPDATE job SET str_state = 'FINISHED'")
    assert rows(farm, "SELECT * FROM job_local") == []


def test_a_job_takes_its_cores_to_another_folder(farm: psycopg.Connection) -> None:
    farm.execute("UPDATE job SET pk_folder = 'deep'")
    assert rows(
        farm, "SELECT pk_folder, int_cores, int_gpus FROM folder_resource ORDER BY int_cores, 1"
    ) == [("in", 0, 0), ("root", 0, 0), ("deep", 300, 1)]


def test_only_a_live_job_takes_its_cores_to_another_department(farm: psycopg.Connection) -> None:
    points: LiteralString = "SELECT pk_dept, int_cores, int_gpus FROM point ORDER BY 1"
    farm.execute("UPDATE job SET pk_dept = 'd2'")
    assert rows(farm, points) == [("d1", 0, 0), ("d2", 300, 1)]
    farm.execute("UPDATE job SET str_state = 'FINISHED'")
    farm.execute("UPDATE job SET pk_dept = 'd1'")
    assert rows(farm, points) == [("d1", 0, 0), ("d2", 300, 1)]


def test_a_department_without_point_swallows_the_cores(farm: psycopg.Connection) -> None:
    farm.execute("UPDATE job SET pk_dept = 'd3'")
    assert rows(farm, "SELECT sum(int_cores), sum(int_gpus) FROM point") == [(0, 0)]


def test_a_proc_takes_its_cores_to_another_layer(farm: psycopg.Connection) -> None:
    farm.execute("UPDATE proc SET pk_layer = 'l2'")
    assert rows(
        farm, "SELECT pk_layer, int_cores, int_gpus FROM layer_resource ORDER BY pk_layer"
    ) == [("l1", 0, 0), ("l2", 300, 1)]


def test_memory_of_a_proc_comes_from_its_host(farm: psycopg.Connection) -> None:
    idle: LiteralString = "SELECT int_mem_idle, int_cores_idle FROM host"
    farm.execute("UPDATE proc SET int_mem_reserved = 3000")
    assert rows(farm, idle) == [(5000, 500)]
    farm.execute("UPDATE proc SET int_mem_reserved = 500")
    assert rows(farm, idle) == [(7500, 500)]
    assert refuses(farm, "UPDATE proc SET int_mem_reserved = 8001")


def test_new_folders_know_their_depth(farm: psycopg.Connection) -> None:
    assert rows(
        farm,
        "SELECT pk_folder, int_level, b_default FROM folder_level JOIN folder USING (pk_folder)"
        " ORDER BY int_level",
    ) == [("root", 0, True), ("in", 1, False), ("deep", 2, False)]
    with pytest.raises(NotNullViolation):
        farm.execute(
            "INSERT INTO folder (pk_folder, pk_parent_folder, pk_show, str_name, pk_dept)"
            " VALUES ('lost', 'nowhere', 's', 'lost', 'd1')"
        )


def test_side_rows_come_and_go_with_their_owner(farm: psycopg.Connection) -> None:
    kinds = ("resource", "stat", "usage", "mem")
    sides = [f"{owner}_{kind}" for owner in ("job", "layer") for kind in kinds]
    per_side = {side: 1 if side.startswith("job") else 2 for side in sides}

    def counted() -> dict[str, int]:
        found = {side: farm.execute(f"SELECT count(*) FROM {side}").fetchone() for side in sides}
        return {side: row[0] for side, row in found.items() if row}

    assert counted() == per_side
    with pytest.raises(ForeignKeyViolation):
        farm.execute("DELETE FROM job")
    farm.execute("DELETE FROM proc")
    farm.execute("DELETE FROM job")
    assert counted() == dict.fromkeys(sides, 0)
    assert rows(farm, "SELECT * FROM frame") == rows(farm, "SELECT * FROM layer") == []
    farm.execute("DELETE FROM folder WHERE pk_folder = 'deep'; DELETE FROM host")
    assert rows(farm, "SELECT * FROM host_stat") == []
    assert rows(farm, "SELECT * FROM folder_resource WHERE pk_folder = 'deep'") == []


def counts(farm: psycopg.Connection) -> tuple[Any, ...]:
    """(waiting, running, succeeded, depend) of the layer, which the job's must equal."""
    columns = "int_waiting_count, int_running_count, int_succeeded_count, int_depend_count"
    of_layer = farm.execute(f"SELECT {columns} FROM layer_stat WHERE pk_layer = 'l1'").fetchone()
    assert of_layer == farm.execute(f"SELECT {columns} FROM job_stat").fetchone()
    return tuple(of_layer or ())


def test_frames_are_counted_when_they_change_their_state(farm: psycopg.Connection) -> None:
    farm.execute("UPDATE frame SET str_state = 'RUNNING' WHERE pk_frame = 'next'")
    assert counts(farm) == (0, 2, 0, 0)
    farm.execute("UPDATE frame SET str_state = 'SUCCEEDED' WHERE pk_frame = 'next'")
    assert counts(farm) == (0, 1, 1, 0)
    farm.execute("UPDATE frame SET str_state = 'EATEN' WHERE pk_frame = 'next'")
    assert counts(farm) == (0, 1, 1, 0)
    farm.execute("UPDATE frame SET int_depend_count = 2 WHERE pk_frame = 'next'")
    assert counts(farm) == (0, 1, 0, 1)
    farm.execute("UPDATE frame SET int_depend_count = 0 WHERE pk_frame = 'next'")
    assert counts(farm) == (1, 1, 0, 0)


def test_a_frame_with_checkpoints_does_not_go_back_to_waiting(farm: psycopg.Connection) -> None:
    farm.execute(
        "UPDATE frame SET str_state = 'WAITING', str_checkpoint_state = 'ENABLED'"
        " WHERE pk_frame = 'fr'"
    )
    assert rows(farm, "SELECT str_state FROM frame WHERE pk_frame = 'fr'") == [("CHECKPOINT",)]
    assert counts(farm) == (1, 0, 0, 0)
