"""`retally doctor`: each fault is made, seen and told with what to do; a healthy farm is all ok."""

from __future__ import annotations

import csv
import io
import json
import re
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg.conninfo import make_conninfo
from small_farm import Rows, Work, make_work

from retally.cli import diagnosis, main
from retally.procedures import checks, install, rights, routines
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Connect = Callable[[], psycopg.Connection]
    Line = tuple[str, str, str]
    Doctor = Callable[..., list[Line]]

INSTALLED = [check.name for check in diagnosis.INSTALLED]
ALL = ["connection", *(check.name for check in diagnosis.BARE), "schema", *INSTALLED]


def run(dsn: str, *args: str) -> Result:
    return CliRunner().invoke(main, ["doctor", *args], env={"RETALLY_DSN": dsn})


def lines(result: Result) -> list[dict[str, str]]:
    found: list[dict[str, str]] = json.loads(result.stdout)
    return found


@pytest.fixture
def work(farm_db: psycopg.Connection) -> Work:
    """A managed show with one proc."""
    rows = Rows(farm_db)
    work = make_work(rows, "comet")
    routines.set_managed(farm_db, "comet", managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    return work


@pytest.fixture
def doctor(farm_db: psycopg.Connection) -> Doctor:
    """Runs the command; answers with state, what was seen and the advice of each line that is
    not ok, and asserts that these all come from the one check, and the exit code that goes with it.
    """

    def ask(check: str, *args: str, dsn: str = farm_db.info.dsn) -> list[Line]:
        result = run(dsn, "--format", "json", *args)
        bad = [line for line in lines(result) if line["state"] != "ok"]
        assert {line["check"] for line in bad} <= {check}
        assert result.exit_code == any(line["state"] == "problem" for line in bad)
        assert all(line["advice"] for line in bad)
        return [(line["state"], line["seen"], line["advice"]) for line in bad]

    return ask


@pytest.fixture
def role(farm_db: psycopg.Connection) -> Iterator[str]:
    """A role that may log in and nothing else."""
    name = f"role_{farm_db.info.dbname}"
    farm_db.execute(f"CREATE ROLE {name} LOGIN")
    yield name
    farm_db.execute(f"DROP OWNED BY {name}; DROP ROLE {name}")


@pytest.mark.usefixtures("work")
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


def test_a_check_that_fails_is_a_finding_and_the_others_go_on(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    farm_db.execute("ALTER FUNCTION retally.orphans() RENAME TO gone")
    ((state, seen, _),) = doctor("procs")
    assert (state, "orphans" in seen) == ("problem", True)


def test_triggers_that_are_not_opencues_are_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    farm_db.execute(
        "CREATE FUNCTION mine() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
        "CREATE TRIGGER audit BEFORE UPDATE ON layer_resource FOR EACH ROW EXECUTE FUNCTION mine();"
        # OpenCue's name, another's function
        "DROP TRIGGER tier_job ON job_resource;"
        "CREATE TRIGGER tier_job BEFORE UPDATE ON job_resource"
        " FOR EACH ROW EXECUTE FUNCTION mine();"
        # one that is off does nothing
        "CREATE TRIGGER off BEFORE UPDATE ON point FOR EACH ROW EXECUTE FUNCTION mine();"
        "ALTER TABLE point DISABLE TRIGGER off;"
    )
    found = doctor("triggers")
    assert {state for state, _, _ in found} == {"warning"}
    assert [seen for _, seen, _ in found] == [
        "trigger tier_job on job_resource (mine) is unknown",
        "trigger tier_job on job_resource (trigger__tier_job) is missing",
        "trigger audit on layer_resource (mine) is unknown",
    ]
    assert "read its function" in found[2][2]


def test_triggers_of_opencue_that_are_off_are_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    farm_db.execute("ALTER TABLE subscription DISABLE TRIGGER verify_subscription")
    ((state, seen, advice),) = doctor("triggers")
    assert state == "warning"
    assert (
        seen == "trigger verify_subscription on subscription (trigger__verify_subscription) is"
        " disabled"
    )
    assert advice.startswith("ALTER TABLE public.subscription ENABLE TRIGGER verify_subscription")


@pytest.mark.parametrize(
    "change",
    [
        "DROP INDEX public.i_proc_pklayer",
        "UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'i_proc_pklayer'::regclass",
        "DROP INDEX public.i_proc_pklayer;"
        "CREATE INDEX partly ON public.proc (pk_layer) WHERE NOT b_local;"
        "CREATE INDEX second ON public.proc (pk_host, pk_layer)",
    ],
    ids=["dropped", "invalid", "of little use"],
)
def test_missing_indexes_are_told_with_the_statement_that_makes_them(
    farm_db: psycopg.Connection, doctor: Doctor, change: str
) -> None:
    farm_db.execute(change.encode())
    ((state, seen, advice),) = doctor("indexes")
    assert state == "warning"
    assert "proc.pk_layer" in seen
    statement = advice.split(";")[0]
    assert statement == "CREATE INDEX CONCURRENTLY ON public.proc (pk_layer)"
    farm_db.execute(statement.encode())
    assert doctor("indexes") == []


def test_a_long_transaction_is_told_with_its_session(connect: Connect, doctor: Doctor) -> None:
    other = connect()
    other.execute("BEGIN; SELECT 1")
    assert doctor("transactions", "--long", "60") == []
    ((state, seen, advice),) = doctor("transactions", "--long", "0")
    assert state == "warning"
    assert f"pid {other.info.backend_pid} " in seen
    assert "idle in transaction" in seen
    assert f"pg_terminate_backend({other.info.backend_pid})" in advice


def test_who_cannot_see_other_sessions_is_told_so(
    farm_db: psycopg.Connection, connect: Connect, role: str, doctor: Doctor
) -> None:
    rights.grant(farm_db, role, "worker")
    connect().execute("BEGIN; SELECT 1")
    dsn = make_conninfo(farm_db.info.dsn, user=role)
    ((state, seen, advice),) = doctor("transactions", "--long", "0", dsn=dsn)
    assert (state, f"by {role}" in seen) == ("warning", True)
    assert f"GRANT pg_read_all_stats TO {role}" in advice
    farm_db.execute(f"GRANT pg_read_all_stats TO {role}")
    assert all("pid" in seen for _, seen, _ in doctor("transactions", "--long", "0", dsn=dsn))


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


def make_late(conn: psycopg.Connection) -> None:
    """The flag was set and the passes were made an hour ago."""
    conn.execute("UPDATE retally.scope_flag SET set_at = set_at - interval '1 h'")
    conn.execute("UPDATE retally.pass SET finished_at = finished_at - interval '1 h'")


@pytest.mark.usefixtures("work")
def test_a_managed_show_that_nobody_serves_is_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    make_late(farm_db)
    ((state, seen, advice),) = doctor("shows")
    assert state == "problem"
    assert re.match(r"comet: no pass over folder, job, layer, point, subscription since \d", seen)
    assert "start `retally worker`" in advice
    farm_db.execute(
        "INSERT INTO retally.worker VALUES ('me', 'resource', '10 s', clock_timestamp())"
    )
    farm_db.execute("DELETE FROM retally.pass WHERE total = 'job'")
    ((_, seen, advice),) = doctor("shows")
    assert seen.endswith("is known")
    assert "log of me" in advice


def test_a_show_that_only_the_farm_flags_is_to_be_served_too(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    make_work(Rows(farm_db), "comet")
    assert doctor("shows") == []
    farm_db.execute("UPDATE show SET b_scheduler_managed = true")
    ((state, seen, _),) = doctor("shows")
    assert (state, seen.startswith("comet: no pass")) == ("problem", True)
    farm_db.execute("UPDATE retally.setting SET follow_farm_flag = false")
    assert doctor("shows") == []


def test_a_show_whose_passes_fail_is_told_with_the_reason(
    farm_db: psycopg.Connection, work: Work, doctor: Doctor
) -> None:
    watched = make_work(Rows(farm_db), "meteor")
    for each in (work, watched):
        routines.claim_due(farm_db, "resource", 10, [each.show], "me")
        routines.note_failure(farm_db, "resource", each.show, 5, "the disk is on fire")
    # they fail: that they are late as well follows from it
    managed, unmanaged = doctor("shows")
    assert managed[:2] == (
        "problem",
        "comet: the passes of tick resource fail: the disk is on fire",
    )
    assert unmanaged[:2] == (
        "warning",
        "meteor: the passes of tick resource fail: the disk is on fire",
    )
    assert "retally recompute --show 'comet'" in managed[2]


def test_procs_without_a_job_or_a_host_are_told(
    farm_db: psycopg.Connection, work: Work, doctor: Doctor
) -> None:
    rows = Rows(farm_db)
    strays = [rows.proc(work.host, work.show, "gone", work.layer) for _ in range(5)]
    farm_db.execute("ALTER TABLE proc DROP CONSTRAINT c_proc_pk_host")
    lost = rows.proc("no-such-host", work.show, work.job, work.layer)
    host, job = doctor("procs")
    assert (host[0], job[0]) == ("warning", "warning")
    assert host[1] == f"1 proc with no host in the farm: {lost}"
    assert "DELETE FROM public.proc" in host[2]
    assert job[1] == f"5 procs with no job in the farm: {', '.join(strays[:3])} and 2 more"
    assert f"retally.release_proc('{strays[0]}')" in job[2]
    (orphan,) = [each for each in routines.orphans(farm_db) if each.proc_id == lost]
    assert orphan.reason == "no host no-such-host"


def test_what_is_said_about_a_stray_proc_ends_it(
    farm_db: psycopg.Connection, work: Work, doctor: Doctor
) -> None:
    rows = Rows(farm_db)
    rows.proc(work.host, work.show, "gone", None)
    ((_, _, advice),) = doctor("procs")
    statement = re.search(r"SELECT .*\)", advice)
    assert statement is not None
    assert farm_db.execute(statement[0].encode()).fetchone() == (True,)
    assert doctor("procs") == []


def test_totals_without_a_row_are_told(
    farm_db: psycopg.Connection, work: Work, doctor: Doctor
) -> None:
    farm_db.execute("DELETE FROM subscription; DELETE FROM point")
    subscription, point = doctor("rows")
    assert (subscription[0], point[0]) == ("problem", "problem")
    assert subscription[1].startswith(f"the subscription total of {work.alloc} is not there")
    assert "hold 3.00 cores and 0 GPUs" in point[1]
    assert "subscribe" in subscription[2]
    assert "department" in point[2]


@pytest.mark.usefixtures("work")
def test_what_is_said_about_a_missing_row_makes_it(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    farm_db.execute(
        "DELETE FROM layer_resource; DELETE FROM job_resource; DELETE FROM folder_resource"
    )
    layer, job, folder = doctor("rows")
    for _, _, advice in (layer, job, folder):
        farm_db.execute(advice.encode())
    assert doctor("rows") == []
    farm_db.execute("CALL retally.recompute_show('comet')")
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []


def test_of_many_missing_rows_some_are_named(farm_db: psycopg.Connection, doctor: Doctor) -> None:
    rows = Rows(farm_db)
    for _ in range(7):
        work = make_work(rows)
        rows.proc(work.host, work.show, work.job, work.layer)
    farm_db.execute("DELETE FROM point")
    found = doctor("rows")
    assert len(found) == 6
    assert found[-1][1] == "and 2 rows more"


def test_tables_that_autovacuum_leaves_alone_are_told(
    farm_db: psycopg.Connection, connect: Connect, doctor: Doctor
) -> None:
    farm_db.execute("ALTER TABLE public.proc SET (autovacuum_enabled = false)")
    farm_db.execute("ALTER TABLE retally.worker SET (autovacuum_enabled = off)")
    with connect() as other:
        other.execute(
            "INSERT INTO retally.worker"
            " SELECT n::text, 'tick', '1 s', '-infinity' FROM generate_series(1, 10001) AS n"
        )
        other.execute("DELETE FROM retally.worker")
    # statistics come when the session has ended
    while max(table.dead for table in checks.dead_rows(farm_db)) <= 10_000:
        farm_db.execute("SELECT pg_stat_clear_snapshot()")
    found = doctor("vacuum")
    assert {state for state, _, _ in found} == {"warning"}
    assert sorted(seen for _, seen, _ in found) == [
        "autovacuum is off for public.proc",
        "autovacuum is off for retally.worker",
        "retally.worker has 10,001 dead rows beside 0 live",
    ]
    assert any("VACUUM retally.worker" in advice for _, _, advice in found)


def test_settings_that_make_no_sense_are_told(farm_db: psycopg.Connection, doctor: Doctor) -> None:
    farm_db.execute("UPDATE retally.setting SET longest_wait = '5 s', repair_share = 0")
    wait, share = doctor("settings")
    assert wait[:2] == (
        "warning",
        "setting.longest_wait is 5 s, and 0.5 s is in force: half of deadlock_timeout",
    )
    assert "0.5 s" in wait[2]
    assert "every repair is refused" in share[1]
    assert "repair_share = 0.5" in share[2]
