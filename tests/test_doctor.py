"""`retally doctor`: each fault is made, seen and told with what to do; a healthy farm is all ok."""

from __future__ import annotations

import csv
import io
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psycopg
import pytest
from doctor_run import ALL, INSTALLED, lines, run
from psycopg.conninfo import make_conninfo

from retally.cli import diagnosis
from retally.procedures import checks, install, rights
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from doctor_run import Doctor
    from small_farm import Work


@pytest.mark.usefixtures("comet")
def test_a_healthy_farm_is_all_ok(farm_db: psycopg.Connection) -> None:
    result = run(farm_db.info.dsn, "--format", "json")
    assert result.exit_code == 0
    assert [(line["check"], line["state"]) for line in lines(result)] == [
        (check, "ok") for check in ALL
    ]
    assert all(line["seen"] for line in lines(result))


def test_the_table_fits_a_terminal_and_says_what_to_do_beneath(farm_db: psycopg.Connection) -> None:
    farm_db.execute("DROP INDEX public.i_proc_pkjob")
    result = run(farm_db.info.dsn)
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= 100
    at = result.stdout.index("\nwarning  indexes ")
    assert "-> CREATE INDEX CONCURRENTLY ON public.proc (pk_job);" in result.stdout[at:]
    as_csv = csv.DictReader(io.StringIO(run(farm_db.info.dsn, "--format", "csv").stdout))
    assert {row["check"] for row in as_csv} == set(ALL)


def test_no_connection_is_a_finding(farm_db: psycopg.Connection) -> None:
    result = run(make_conninfo(farm_db.info.dsn, dbname="nothing_here"), "--format", "json")
    assert result.exit_code == 1
    (line,) = lines(result)
    assert (line["check"], line["state"]) == ("connection", "problem")
    assert "nothing_here" in line["seen"]
    assert "--dsn" in line["advice"]


def test_a_connection_lost_on_the_way_ends_the_report(
    farm_db: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(conn: psycopg.Connection) -> list[object]:
        conn.execute("SELECT pg_terminate_backend(pg_backend_pid())")
        return []

    monkeypatch.setattr(checks, "odd_triggers", cut)
    result = run(farm_db.info.dsn, "--format", "json")
    assert result.exit_code == 1
    last = lines(result)[-1]
    assert (last["check"], last["state"]) == ("connection", "problem")


@pytest.mark.parametrize(
    ("tested", "state", "advice"),
    [(range(98, 99), "problem", "upgrade"), (range(8, 10), "warning", "newer retally")],
)
def test_a_server_out_of_the_tested_versions_is_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, tested: range, state: str, advice: str
) -> None:
    monkeypatch.setattr(diagnosis, "_SERVERS", tested)
    ((told, seen, what),) = doctor("server")
    assert (told, "PostgreSQL" in seen, advice in what) == (state, True, True)


def test_sessions_that_begin_read_only_are_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    ((state, seen, advice),) = doctor("server")
    assert state == "problem"
    assert "read-only" in seen
    assert "default_transaction_read_only = off" in advice


def test_another_default_isolation_is_told_with_the_role_that_has_it(
    farm_db: psycopg.Connection, doctor: Doctor, role: str
) -> None:
    farm_db.execute(f"ALTER ROLE {role} SET default_transaction_isolation = 'repeatable read'")
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
    every, one = doctor("isolation")
    assert [every[0], one[0]] == ["warning", "warning"]
    assert "every role begin in SERIALIZABLE" in every[1]
    assert f"{role} begin in REPEATABLE READ" in one[1]
    assert "'read committed'" in one[2]


@pytest.mark.parametrize(("shift", "way"), [(-100, "ahead of"), (100, "behind")])
def test_clocks_that_differ_are_told(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, shift: float, way: str
) -> None:
    clock = SimpleNamespace(time=lambda: time.time() + shift)
    monkeypatch.setattr(checks, "time", clock)
    ((state, seen, advice),) = doctor("clock")
    assert state == "warning"
    assert re.search(rf"(99|100)\.\d s {way} this machine's", seen)
    assert "time server" in advice


def test_without_retally_only_the_server_is_looked_at(empty_db: psycopg.Connection) -> None:
    result = run(empty_db.info.dsn, "--format", "json")
    assert result.exit_code == 1
    schema, rest = lines(result)[-2:]
    assert (schema["check"], schema["state"]) == ("schema", "problem")
    assert schema["advice"] == "run `retally install`"
    assert all(name in rest["seen"] for name in INSTALLED)


def test_routines_of_another_version_are_told(farm_db: psycopg.Connection) -> None:
    farm_db.execute("UPDATE retally.installed SET digest = 'another', program = '0.0.1'")
    line = lines(run(farm_db.info.dsn, "--format", "json"))[-2]
    assert (line["check"], line["state"]) == ("schema", "problem")
    assert "0.0.1" in line["seen"]
    assert "retally install" in line["advice"]


def test_a_farm_that_lacks_a_column_is_told(farm_db: psycopg.Connection) -> None:
    farm_db.execute("ALTER TABLE public.dept RENAME COLUMN str_name TO something_else")
    told = {line["check"]: line for line in lines(run(farm_db.info.dsn, "--format", "json"))}
    assert told["farm"]["state"] == "problem"
    assert "dept.str_name" in told["farm"]["seen"]
    # and the checks that do not need it go on
    assert told["indexes"]["state"] == "ok"


def test_a_role_without_any_right_is_told_how_to_get_them(
    farm_db: psycopg.Connection, role: str
) -> None:
    told = lines(run(make_conninfo(farm_db.info.dsn, user=role), "--format", "json"))
    (schema,) = [line for line in told if line["check"] == "schema"]
    assert schema["state"] == "problem"
    assert f"retally grants --to {role} --for worker" in schema["advice"]


def test_missing_rights_are_named_and_how_to_get_them(
    farm_db: psycopg.Connection, role: str
) -> None:
    rights.grant(farm_db, role, "worker")
    farm_db.execute(f"REVOKE UPDATE (int_burst) ON public.subscription FROM {role}")
    dsn = make_conninfo(farm_db.info.dsn, user=role)
    (found,) = [
        line for line in lines(run(dsn, "--format", "json")) if line["check"] == "privileges"
    ]
    assert found["state"] == "problem"
    assert "UPDATE (int_burst) on public.subscription" in found["seen"]
    assert found["advice"].endswith(f"retally grants --to {role} --for worker --apply")
    reader = lines(run(dsn, "--for", "reader", "--format", "json"))
    assert {line["state"] for line in reader if line["check"] == "privileges"} == {"ok"}


def test_a_dispatcher_is_asked_for_no_more_than_it_may_see(
    farm_db: psycopg.Connection, comet: Work, role: str
) -> None:
    rights.grant(farm_db, role, "dispatcher")
    farm_db.execute("DELETE FROM point")
    dsn = make_conninfo(farm_db.info.dsn, user=role)
    result = run(dsn, "--for", "dispatcher", "--format", "json")
    told = {line["check"]: line for line in lines(result)}
    assert result.exit_code == 0, told
    assert {name for name in told if told[name]["state"] == "skipped"} == {
        "shows",
        "journal",
        "rows",
    }
    assert "not looked at" in told["rows"]["seen"]
    # this test's own session is another role's
    warned = {name for name in told if told[name]["state"] == "warning"}
    assert warned <= {"transactions"}
    assert f"skipped  shows{'':8}not looked at" in run(dsn, "--for", "dispatcher").stdout
    # who may see it is told
    reader = lines(run(farm_db.info.dsn, "--for", "reader", "--format", "json"))
    (rows,) = [line for line in reader if line["check"] == "rows"]
    assert comet.dept in rows["seen"]


def test_a_setting_without_its_row_is_a_problem_and_install_puts_it_back(
    farm_db: psycopg.Connection,
) -> None:
    farm_db.execute("TRUNCATE retally.setting")
    result = run(farm_db.info.dsn, "--format", "json")
    assert result.exit_code == 1
    found = [line for line in lines(result) if "lost its row" in line["seen"]]
    assert {line["state"] for line in found} == {"problem"}
    assert "retally install" in found[0]["advice"]
    install(farm_db)
    assert run(farm_db.info.dsn).exit_code == 0


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    farm_db.execute("ALTER FUNCTION retally.orphans() RENAME TO gone")
    ((state, seen, _),) = doctor("procs")
    assert (state, "orphans" in seen) == ("problem", True)


def test_prepared_transactions_are_told_and_a_replica_is_reported_without_a_crash() -> None:
    with EmbeddedServer.start(in_memory=True, settings={"max_prepared_transactions": "2"}) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            conn.execute("BEGIN; SELECT 1; PREPARE TRANSACTION 'forgotten'")
            conn.execute("CHECKPOINT")
        result = run(own.dsn(), "--long", "0", "--format", "json")
        (found,) = [line for line in lines(result) if line["state"] != "ok"]
        assert found["check"] == "transactions"
        assert "prepared transaction forgotten" in found["seen"]
        assert "ROLLBACK PREPARED 'forgotten'" in found["advice"]

        own.stop_server()
        (own.data_dir / "standby.signal").touch()
        own.start_server()
        result = run(own.dsn(), "--format", "json")
        assert result.exit_code == 1
        told = {line["check"]: line for line in lines(result)}
        assert "replica" in told["server"]["seen"]
        assert "primary" in told["server"]["advice"]
        assert set(told) == set(ALL)
