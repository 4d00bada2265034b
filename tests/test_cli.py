"""The command line as a user meets it: what it prints, where, and with which exit code."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from click import Group
from click.testing import CliRunner, Result
from concurrency import in_background
from small_farm import Rows, Work, corrupt, make_work

from retally.cli import main
from retally.procedures import uninstall

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]
    Retally = Callable[..., Result]


def runner_for(conn: psycopg.Connection) -> Retally:
    def run(*args: str, **env: str) -> Result:
        return CliRunner().invoke(main, args, env={"RETALLY_DSN": conn.info.dsn, **env})

    return run


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``."""
    return runner_for(farm_db)


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A show with one proc of 300 core units and 2 GPUs, whose every total is wrong."""
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    rows.proc(work.host, work.show, work.job, work.layer, cores=300, gpus=2)
    corrupt(farm_db)
    return work


def test_drift_lists_each_slot_and_exits_with_3(retally: Retally, work: Work) -> None:
    result = retally("drift", "--format", "json")
    assert result.exit_code == 3
    rows = json.loads(result.stdout)
    assert len(rows) == 12
    assert rows[0] == {
        "show": "comet",
        "total": "subscription",
        "name": work.alloc,
        "key": work.alloc,
        "slot": "cores",
        "stored": -7,
        "booked": 300,
        "drift": -307,
    }
    assert result.stderr == "adrift: 12 slots in 5 rows of 1 show\n"


def test_drift_as_csv_has_the_same_rows_and_columns(retally: Retally, work: Work) -> None:
    as_json = json.loads(retally("drift", "--format", "json").stdout)
    rows = list(csv.DictReader(io.StringIO(retally("drift", "--format", "csv").stdout)))
    assert rows == [{name: str(value) for name, value in row.items()} for row in as_json]
    assert rows[0]["show"] == "comet"
    assert rows[0]["key"] == work.key("subscription")


@pytest.mark.usefixtures("work")
def test_drift_as_a_table_speaks_of_cores(retally: Retally) -> None:
    result = retally("drift", "--total", "point", "--show", "comet")
    assert result.exit_code == 3
    header, cores, gpus = result.stdout.splitlines()
    assert header.split() == ["show", "total", "name", "key", "slot", "stored", "booked", "drift"]
    assert cores.split()[-4:] == ["cores", "-0.07", "3.00", "-3.07"]
    assert gpus.split()[-4:] == ["gpus", "-1", "2", "-3"]


def test_without_drift_it_says_so_and_exits_with_0(retally: Retally) -> None:
    result = retally("drift")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no drift\n")
    assert json.loads(retally("drift", "--format", "json").stdout) == []


def test_drift_names_procs_that_no_total_can_hold(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    farm_db.execute("CALL retally.recompute_show('comet')")
    rows = Rows(farm_db)
    lost = rows.proc(work.host, work.show, "gone-job", work.layer, cores=50)
    stranger = rows.proc(work.host, "gone-show", None, None, cores=50)
    notes = retally("drift").stderr
    wrong = "is in no total of its kind"
    assert f"note: proc {lost} {wrong}: no job gone-job\n" in notes
    assert f"note: proc {stranger} {wrong}: no show gone-show, no job null, no layer null" in notes
    of_the_show = retally("drift", "--show", "comet").stderr
    assert lost in of_the_show
    assert stranger not in of_the_show


def test_recompute_mends_and_a_second_run_finds_nothing(retally: Retally, work: Work) -> None:
    result = retally("recompute", "--show", "comet", "--force", "--format", "json")
    assert result.exit_code == 0
    rows = json.loads(result.stdout)
    assert [row["rows_changed"] for row in rows] == [1] * 5
    assert rows[0]["core_units_adrift"] == 307
    assert result.stderr.startswith("5 rows changed in 1 show, 0 left because busy\n")
    assert retally("drift").exit_code == 0
    again = retally("recompute", "--show", work.show)
    assert (again.exit_code, again.stdout) == (0, "")
    assert again.stderr == "0 rows changed in 0 shows, 0 left because busy\n"


@pytest.mark.usefixtures("work")
def test_recompute_takes_only_the_totals_that_are_asked_for(retally: Retally) -> None:
    retally("recompute", "--show", "comet", "--force", "--total", "job", "--total", "layer")
    rows = json.loads(retally("drift", "--format", "json").stdout)
    assert {row["total"] for row in rows} == {"subscription", "folder", "point"}


def test_recompute_counts_the_shows_that_it_has_changed(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    for name in ("one", "other", "third"):
        make_work(Rows(farm_db), name)
    farm_db.execute(
        "UPDATE point SET int_cores = 7 WHERE pk_show IN"
        " (SELECT pk_show FROM show WHERE str_name IN ('one', 'other'))"
    )
    result = retally("recompute", "--all", "--unmanaged-too", "--force")
    assert result.stderr.startswith("2 rows changed in 2 shows, 0 left because busy\n")


@pytest.mark.usefixtures("work")
def test_a_dry_run_tells_and_writes_nothing(retally: Retally) -> None:
    result = retally("recompute", "--show", "comet", "--dry-run")
    assert result.exit_code == 1  # the real one would be refused
    assert "3.07" in result.stdout
    assert "5 rows adrift; nothing written" in result.stderr
    assert retally("drift").exit_code == 3


@pytest.mark.usefixtures("work")
def test_all_means_every_managed_show(farm_db: psycopg.Connection, retally: Retally) -> None:
    make_work(Rows(farm_db), "other")
    none = retally("recompute", "--all")
    assert (none.exit_code, none.stdout) == (0, "")
    assert "no show is managed" in none.stderr
    retally("managed", "--show", "other", "on")
    corrupt(farm_db)
    assert "in 1 show," in retally("recompute", "--all").stderr
    assert retally("drift").exit_code == 3
    corrupt(farm_db)
    assert "in 2 shows" in retally("recompute", "--all", "--unmanaged-too", "--force").stderr
    assert retally("drift").exit_code == 0


@pytest.mark.parametrize("wait", ["--wait", "--no-wait"])
def test_rows_left_because_they_were_busy_are_exit_code_5(
    farm_db: psycopg.Connection, connect: Connect, work: Work, wait: str
) -> None:
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM folder_resource WHERE pk_folder = %s FOR UPDATE", (work.folder,))
    args = ("recompute", "--show", "comet", "--force", wait, "--patience", "0", "--format", "json")
    result = runner_for(farm_db)(*args)
    assert result.exit_code == 5
    assert [row["rows_deferred"] for row in json.loads(result.stdout)] == [0, 0, 0, 1, 0]


@pytest.mark.parametrize("wait", ["--wait", "--no-wait"])
def test_a_show_that_another_session_is_rebuilding_is_exit_code_5(
    connect: Connect, retally: Retally, work: Work, wait: str
) -> None:
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, false)", (work.show,))
    result = retally("recompute", "--show", "comet", wait, "--patience", "0")
    assert result.exit_code == 5
    assert "another session is rebuilding" in result.stderr


def test_with_patience_it_comes_back_for_a_row_that_was_busy(
    farm_db: psycopg.Connection, connect: Connect, work: Work
) -> None:
    holder, watcher = connect(), connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM point WHERE pk_dept = %s FOR UPDATE", (work.dept,))
    # nothing is waited for longer than half a deadlock_timeout, so several tries are needed
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '20ms'")
    args = ("recompute", "--show", "comet", "--force", "--patience", "60", "--format", "json")
    tries = "SELECT passes >= 2 FROM retally.deferred"
    running = in_background(lambda: runner_for(farm_db)(*args))
    while watcher.execute(tries).fetchone() != (True,):
        pass
    holder.execute("COMMIT")
    result = running.result(60)
    assert result.exit_code == 0
    assert [row["rows_changed"] for row in json.loads(result.stdout)] == [1] * 5


def test_what_cannot_be_rebuilt_is_named_and_is_an_error(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    farm_db.execute("DELETE FROM point WHERE pk_dept = %s", (work.dept,))
    result = retally("recompute", "--show", "comet", "--force")
    assert result.exit_code == 1
    assert f"note: point {work.dept}: its row is missing" in result.stderr
    assert "Error: 1 row cannot be rebuilt, all others are" in result.stderr


@pytest.mark.usefixtures("work")
def test_managed_tells_flips_and_rebuilds(retally: Retally) -> None:
    told = json.loads(retally("managed", "--show", "comet", "--format", "json").stdout)
    assert told == [
        {"show": "comet", "managed": False, "farm_flag": False, "rebuilt_by_ticks": False}
    ]
    flipped = retally("managed", "--show", "comet", "on", "--format", "json")
    assert json.loads(flipped.stdout)[0]["managed"] is True
    assert retally("drift").exit_code == 0
    off = retally("managed", "--show", "comet", "off", "--format", "json")
    assert json.loads(off.stdout)[0]["managed"] is False


@pytest.mark.usefixtures("work")
def test_status_tells_versions_flags_writers_and_last_passes(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    before = json.loads(retally("status", "--format", "json").stdout)
    assert before[0]["last_pass"] is None
    assert before[0]["written_by"] == "bookings"
    retally("managed", "--show", "comet", "on")
    (row,) = json.loads(retally("status", "--format", "json").stdout)
    assert row["last_pass"] is not None
    assert row["rows_changed"] == 5
    text = retally("status").stdout
    assert f"database {farm_db.info.dbname}" in text
    assert "OpenCue 1.19 or newer" in text
    assert "bookings, ticks" in text


def test_install_and_uninstall_may_be_repeated(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    assert "migrations applied: none needed" in retally("install").stdout
    refused = retally("uninstall")
    assert refused.exit_code == 2
    assert "--yes" in refused.stderr
    assert retally("uninstall", "--yes").exit_code == 0
    assert "nothing to do" in retally("uninstall", "--yes").stdout
    gone = retally("drift")
    assert gone.exit_code == 1
    name = farm_db.info.dbname
    assert gone.stderr == (
        f"Error: retally is not installed in database {name}: run `retally install`\n"
    )
    assert "migrations applied: 0001_state" in retally("install").stdout


def test_farm_create_makes_a_farm_and_refuses_a_second_one(empty_db: psycopg.Connection) -> None:
    retally = runner_for(empty_db)
    sizes = ("--shows", "2", "--procs", "30", "--jobs", "5", "--hosts", "4", "--seed", "7")
    made = retally("farm", "create", *sizes, "--managed")
    assert made.exit_code == 0
    assert "30 procs" in made.stdout
    assert {
        row["managed"] for row in json.loads(retally("managed", "--format", "json").stdout)
    } == {True}
    assert retally("drift").exit_code == 0
    again = retally("farm", "create", *sizes)
    assert again.exit_code == 1
    assert again.stderr.startswith("Error: this database already holds the tables")


def test_an_unknown_show_is_one_line_with_the_nearest_name(retally: Retally, work: Work) -> None:
    for args in (("drift",), ("recompute",), ("managed",)):
        result = retally(*args, "--show", "commet")
        assert result.exit_code == 1
        assert result.stderr == 'Error: there is no show "commet": Did you mean comet?\n'
    assert work.show


@pytest.mark.parametrize(
    "args",
    [
        ("recompute",),
        ("recompute", "--all", "--show", "comet"),
        ("recompute", "--show", "comet", "--unmanaged-too"),
        ("managed", "on"),
        ("drift", "--total", "layers"),
        ("drift", "--format", "xml"),
        ("nonsense",),
    ],
)
def test_wrong_usage_is_exit_code_2(retally: Retally, args: tuple[str, ...]) -> None:
    assert retally(*args).exit_code == 2


@pytest.mark.parametrize(
    "dsn",
    [
        "host=/no/such/place dbname=x",
        "nonsense",
        "postgresql://user:secret@localhost:1/x?connect_timeout=1",
    ],
)
def test_a_wrong_dsn_is_one_line_and_keeps_the_password(retally: Retally, dsn: str) -> None:
    result = retally("drift", "--dsn", dsn)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert "secret" not in result.stderr


def test_a_server_that_goes_away_in_mid_run_is_one_line(
    farm_db: psycopg.Connection, retally: Retally, work: Work
) -> None:
    # the farm's own trigger ends the session that writes: as near to mid-run as can be
    farm_db.execute("""
        CREATE FUNCTION public.cut() RETURNS trigger LANGUAGE plpgsql
        AS $$BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END$$;
        CREATE TRIGGER cut BEFORE UPDATE ON public.point FOR EACH ROW EXECUTE FUNCTION public.cut()
    """)
    result = retally("recompute", "--show", "comet", "--force")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("Error: terminating connection")
    farm_db.execute("DROP TRIGGER cut ON public.point")
    assert retally("drift", "--show", work.show).exit_code == 3


@pytest.mark.usefixtures("work")
def test_debug_adds_the_traceback(retally: Retally) -> None:
    quiet, loud = retally("drift", "--show", "x"), retally("drift", "--show", "x", "--debug")
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr
    assert loud.stderr.splitlines()[-1].startswith('Error: there is no show "x"')


def test_a_farm_that_lacks_columns_is_told_by_status_and_install(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    uninstall(farm_db)
    farm_db.execute("ALTER TABLE proc DROP COLUMN int_gpus_reserved CASCADE")
    assert "before migration V11" in retally("status").stdout
    result = retally("install")
    assert result.exit_code == 1
    assert "the farm schema lacks proc.int_gpus_reserved" in result.stderr


def test_every_command_has_help_with_an_example() -> None:
    commands = [
        [name, *inner]
        for name, command in main.commands.items()
        for inner in ([[each] for each in command.commands] if isinstance(command, Group) else [[]])
    ]
    assert {"farm create", "bench dispatch", "bench recompute", "simulate"} <= {
        " ".join(names) for names in commands
    }
    for command in [[], *commands]:
        result = CliRunner().invoke(main, [*command, "--help"])
        assert result.exit_code == 0
        assert "Example:\n  " in result.stdout, command
        assert "--help" in result.stdout


def test_a_setting_that_makes_no_sense_is_one_line(retally: Retally) -> None:
    result = retally("worker", "--pool-size", "0")
    assert result.exit_code == 2
    assert "pool_size" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_flip_that_meets_a_busy_row_is_exit_code_5(
    connect: Connect, retally: Retally, work: Work
) -> None:
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM point WHERE pk_dept = %s FOR UPDATE", (work.dept,))
    result = retally("managed", "--show", "comet", "on")
    assert result.exit_code == 5
    assert 'show "comet" stays as it is' in result.stderr


def test_programs_get_an_empty_list_where_there_is_nothing_to_do(retally: Retally) -> None:
    assert json.loads(retally("recompute", "--all", "--format", "json").stdout) == []


def test_an_unescaped_at_sign_in_a_password_shows_nothing_of_it(retally: Retally) -> None:
    result = retally("drift", "--dsn", "postgresql://u:s3c@ret@host/db")
    assert result.exit_code == 1
    assert "ret@host" not in result.stderr
    assert "%40" in result.stderr
