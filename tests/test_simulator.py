"""The farm simulator: the same seed gives the same draws, and the farm adds up afterwards."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner, Result
from concurrency import in_background

from retally.cli import main
from retally.dispatch.simulator import Counts, Report, Simulation, simulate
from retally.dispatch.simulator.audit import APPLICATION_NAME
from retally.procedures import TOTALS, routines
from retally.sql.farm_build import FarmSize, load_farm

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]

_PATIENCE = 60.0  # seconds, for what takes far below that
_SIZE = FarmSize(shows=4, hosts=16, jobs=16, finished_jobs=2, layers=3, procs=120, gpu_share=0.2)
_QUICK = Simulation(
    dispatchers=3,
    seconds=_PATIENCE,
    frame_seconds=0.5,
    arrivals=200,
    hosts_down_every=0.2,
    down_seconds=0.3,
    moves_every=0.1,
    caps_every=0.05,
    pause=0.01,
)


@pytest.fixture
def farm(farm_db: psycopg.Connection) -> psycopg.Connection:
    """A small farm with work for a dispatcher, every second show managed."""
    load_farm(farm_db, _SIZE)
    for show in ("show1", "show3"):
        routines.set_managed(farm_db, show, managed=True)
    return farm_db


def run(
    conn: psycopg.Connection, simulation: Simulation, enough: Callable[[Counts], bool]
) -> Report:
    """Simulate until there was enough of it."""
    stop = threading.Event()

    def look(counts: Counts, _: float) -> None:
        if enough(counts):
            stop.set()

    report = simulate(conn.info.dsn, simulation, stop, look)
    assert stop.is_set(), f"too slow: {report.counts}"
    return report


def assert_whole(report: Report) -> None:
    """No drift where shows are managed, and no host has lost or gained anything."""
    assert report.audit.rows_adrift == 0
    assert report.audit.rows_busy == 0
    assert report.audit.failures == ()
    assert report.audit.hosts_off == ()
    assert report.audit.lost == 0
    assert (report.counts.deadlocks, report.counts.errors) == (0, {}), report.counts.samples


def caps(conn: psycopg.Connection) -> list[tuple[object, ...]]:
    """Every cap, and the state of every host."""
    return conn.execute(
        "SELECT pk_subscription, int_burst, 0 FROM subscription"
        " UNION ALL SELECT pk_job, int_max_cores, int_max_gpus FROM job_resource"
        " UNION ALL SELECT pk_folder, int_max_cores, 0 FROM folder_resource"
        " UNION ALL SELECT pk_host, 0, (str_state = 'UP')::int FROM host_stat ORDER BY 1, 2, 3"
    ).fetchall()


def procs(conn: psycopg.Connection) -> set[str]:
    return {row[0] for row in conn.execute("SELECT pk_proc FROM proc")}


def frames_without_proc(conn: psycopg.Connection) -> tuple[object, ...] | None:
    return conn.execute(
        "SELECT count(*) FROM frame AS f WHERE f.str_state = 'RUNNING'"
        " AND NOT EXISTS (SELECT FROM proc AS p WHERE p.pk_frame = f.pk_frame)"
    ).fetchone()


# -- draws


def test_threads_leave_managed_shows_exact_after_one_tick_and_hosts_exact(
    farm: psycopg.Connection,
) -> None:
    before = caps(farm)
    report = run(
        farm,
        _QUICK,
        lambda counts: counts.booked >= 400 and counts.released >= 300 and len(counts.events) >= 6,
    )
    assert_whole(report)
    assert report.audit.rows_rebuilt > 0, "bookings of managed shows write no totals"
    assert report.counts.refused, "they compete"
    assert caps(farm) == before, "caps and hosts are put back"
    assert frames_without_proc(farm) == (0,)


def test_shows_that_are_not_managed_are_exact_where_no_job_moves(farm: psycopg.Connection) -> None:
    simulation = replace(_QUICK, moves_every=None)
    report = run(farm, simulation, lambda counts: counts.booked >= 300)
    assert_whole(report)
    assert report.audit.rows_adrift_unmanaged == 0


def test_frames_are_counted_in_their_layers_and_jobs(farm: psycopg.Connection) -> None:
    simulation = replace(_QUICK, caps_every=None, moves_every=None)
    run(farm, simulation, lambda counts: counts.events.get("frames arrived", 0) >= 100)
    for table, key in (("layer_stat", "pk_layer"), ("job_stat", "pk_job")):
        wrong = farm.execute(
            f"SELECT s.{key} FROM {table} AS s LEFT JOIN frame AS f USING ({key})"
            f" GROUP BY s.{key}, s.int_waiting_count, s.int_running_count, s.int_succeeded_count"
            " HAVING (s.int_waiting_count, s.int_running_count, s.int_succeeded_count) <>"
            " (count(*) FILTER (WHERE f.str_state = 'WAITING'),"
            " count(*) FILTER (WHERE f.str_state = 'RUNNING'),"
            " count(*) FILTER (WHERE f.str_state = 'SUCCEEDED'))"
        ).fetchall()
        assert wrong == []


def test_processes_that_are_killed_leave_nothing_adrift_or_lost(farm: psycopg.Connection) -> None:
    simulation = replace(_QUICK, dispatchers=2, processes=True, kill_every=1.0)
    report = run(farm, simulation, lambda counts: counts.kills >= 3 and counts.booked >= 200)
    assert_whole(report)
    assert report.audit.rows_rebuilt > 0
    assert frames_without_proc(farm) == (0,)


def test_what_a_killed_dispatcher_has_booked_is_ended_by_its_successor(
    farm: psycopg.Connection,
) -> None:
    # one dispatcher, frames that run longer than it lives, and none that arrive later
    simulation = replace(
        _QUICK,
        dispatchers=1,
        processes=True,
        kill_every=3.0,
        seed=48,  # the first kill is due after 2 s, the second one 5 s later
        frame_seconds=0.7,
        arrivals=0,
        hosts_down_every=None,
        caps_every=None,
    )
    loaded = procs(farm)
    orphaned: set[str] = set()
    kills = 0

    def enough(counts: Counts) -> bool:
        nonlocal kills
        if counts.kills > kills and not orphaned:  # just now; its successor is still starting
            orphaned.update(procs(farm) - loaded)
            kills = counts.kills
        return bool(orphaned) and not orphaned & procs(farm)

    report = run(farm, simulation, enough)
    assert_whole(report)
    ended = farm.execute("SELECT count(*) FROM frame WHERE str_state = 'SUCCEEDED'").fetchone()
    assert ended is not None
    assert ended[0] >= len(orphaned)


# -- the commands


def retally(conn: psycopg.Connection, *args: str) -> Result:
    return CliRunner().invoke(main, args, env={"RETALLY_DSN": conn.info.dsn})


def test_simulate_reports_as_json_and_exits_with_0(farm: psycopg.Connection) -> None:
    args = ("simulate", "--dispatchers", "2", "--seconds", "1.5", "--seed", "3")
    result = retally(farm, *args, "--frame-seconds", "0.5", "--format", "json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["exit_code"] == 0
    assert report["counts"]["booked"] > 0
    assert report["counts"]["released"] > 0
    assert report["counts"]["kills"] == 0
    assert report["audit"]["rows_adrift"] == 0
    assert report["audit"]["hosts_off"] == []
    assert "no drift in managed shows, nothing lost" in result.stderr


def test_simulate_refuses_a_database_of_a_cuebot_unless_told_otherwise(
    farm: psycopg.Connection,
) -> None:
    farm.execute("CREATE TABLE public.flyway_schema_history (installed_rank integer)")
    procs = farm.execute("SELECT array_agg(pk_proc ORDER BY pk_proc) FROM proc").fetchone()
    refused = retally(farm, "simulate", "--seconds", "0.5")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr.splitlines()[-1]
    assert farm.execute("SELECT array_agg(pk_proc ORDER BY pk_proc) FROM proc").fetchone() == procs
    assert retally(farm, "simulate", "--seconds", "0.5", "--yes").exit_code == 0


def test_a_kill_without_processes_is_wrong_usage(farm: psycopg.Connection) -> None:
    result = retally(farm, "simulate", "--seconds", "1", "--kill-every", "1")
    assert result.exit_code == 2
    assert "processes" in result.stderr


def test_a_host_that_loses_a_core_meanwhile_is_named_and_is_exit_code_3(
    farm: psycopg.Connection, connect: Connect
) -> None:
    spoiler = connect()
    at_work = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name = %s"

    def spoil() -> str:
        while spoiler.execute(at_work, (APPLICATION_NAME,)).fetchone() != (True,):
            pass
        row = spoiler.execute(
            "UPDATE host SET int_cores_idle = int_cores_idle - 1 WHERE pk_host ="
            " (SELECT pk_host FROM host ORDER BY int_cores_idle DESC LIMIT 1) RETURNING str_name"
        ).fetchone()
        assert row is not None
        return str(row[0])

    spoiled = in_background(spoil)
    result = retally(farm, "simulate", "--seconds", "1.5", "--dispatchers", "1")
    assert f"host {spoiled.result(_PATIENCE)}: cores idle is" in result.stderr
    assert result.exit_code == 3


def test_a_host_that_was_wrong_before_is_not_held_against_the_run(farm: psycopg.Connection) -> None:
    farm.execute("UPDATE host SET int_mem_idle = int_mem_idle - 1 WHERE str_name = 'host1'")
    assert len(routines.host_drift(farm)) == 1
    assert retally(farm, "simulate", "--seconds", "0.5", "--dispatchers", "1").exit_code == 0
    assert len(routines.host_drift(farm)) == 1


def test_errors_are_told_with_one_message_and_are_exit_code_1(farm: psycopg.Connection) -> None:
    farm.execute(
        "CREATE FUNCTION no_more() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE EXCEPTION 'the farm is full of frames'; END $$;"
        "CREATE TRIGGER no_more BEFORE INSERT ON frame FOR EACH ROW EXECUTE FUNCTION no_more()"
    )
    result = retally(farm, "simulate", "--seconds", "1", "--arrivals", "200")
    assert result.exit_code == 1
    assert "database, for example: the farm is full of frames" in result.stderr
    assert "errors: database" in result.stdout


def test_a_signal_ends_it_with_its_report_and_its_dispatchers_end_in_order(
    farm: psycopg.Connection,
) -> None:
    with started(farm, "--processes", "--format", "json") as process:
        await_sessions(farm, at_least=3)
        process.send_signal(signal.SIGINT)
        output, notes = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0, notes
    assert json.loads(output)["counts"]["errors"] == {}
    await_sessions(farm, at_most=0)


def test_dispatchers_end_when_whoever_started_them_is_killed(farm: psycopg.Connection) -> None:
    with started(farm, "--processes") as process:
        await_sessions(farm, at_least=3)
        process.kill()
        process.communicate(timeout=_PATIENCE)
    await_sessions(farm, at_most=0)
    shows = [show.show_id for show in routines.shows(farm) if show.rebuilt]
    for show in shows:
        farm.execute("CALL retally.recompute_show(%s)", (show,))
    assert routines.drift(farm, shows, TOTALS) == []
    assert routines.host_drift(farm) == []


def test_the_demo_ends_without_drift_and_leaves_nothing_behind() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "retally.cli", "demo", "--seconds", "4"],
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines()[-1] == "no drift at the end"
    lines = done.stdout.splitlines()
    assert any(line.startswith("booking: ") and " 0 rows adrift" not in line for line in lines)
    assert lines[-1].startswith("resting: ")
    assert lines[-1].endswith(" 0 rows adrift by 0.00 cores")


def started(conn: psycopg.Connection, *args: str) -> subprocess.Popen[str]:
    """``retally simulate`` in a process of its own, with two dispatchers."""
    command = [sys.executable, "-m", "retally.cli", "simulate", "--dispatchers", "2"]
    return subprocess.Popen(
        [*command, "--seconds", str(_PATIENCE), *args],
        env=os.environ | {"RETALLY_DSN": conn.info.dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def await_sessions(conn: psycopg.Connection, at_least: int = 0, at_most: int = 100) -> None:
    """Return once so many sessions of a simulator are there; dispatchers' own come after others."""
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
    deadline = time.monotonic() + _PATIENCE
    while True:
        row = conn.execute(count, (APPLICATION_NAME,)).fetchone()
        assert row is not None
        if at_least <= row[0] <= at_most:
            return
        assert time.monotonic() < deadline
