"""What `retally doctor` finds in the farm's own tables, and in how its shows are served."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest
from doctor_run import see_worker
from psycopg.conninfo import make_conninfo
from small_farm import Rows, Work, corrupt, make_work

from retally.procedures import TOTALS, checks, rights, routines

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from doctor_run import Doctor

    Connect = Callable[[], psycopg.Connection]


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
        "triggers on job_resource: tier_job (mine) is unknown; tier_job (trigger__tier_job) is"
        " missing",
        "triggers on layer_resource: audit (mine) is unknown",
    ]
    assert "OpenCue's migrations" in found[0][2]
    assert "read its function" in found[1][2]


def test_triggers_of_opencue_that_are_off_are_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    farm_db.execute("ALTER TABLE subscription DISABLE TRIGGER verify_subscription")
    ((state, seen, advice),) = doctor("triggers")
    assert state == "warning"
    assert (
        seen == "triggers on subscription: verify_subscription (trigger__verify_subscription) is"
        " disabled"
    )
    assert advice.startswith("ALTER TABLE public.subscription ENABLE TRIGGER verify_subscription")
    assert advice.endswith("without it no burst of a subscription is kept")


def test_of_each_trigger_that_is_off_it_is_told_what_is_not_kept_without_it(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    for table in ("subscription", "job_resource", "folder_resource", "point", "proc"):
        farm_db.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER")
    advice = {seen.split()[2].rstrip(":"): advice for _, seen, advice in doctor("triggers")}
    assert len(advice) == 5
    assert "leaves its cores in the total of the former one" in advice["proc"]
    assert "memory" in advice["proc"]
    assert "without it procs without cores are let in" in advice["proc"]
    assert "tier" not in advice["proc"]
    assert "the tier" in advice["point"]
    assert "no maximum of a job" in advice["job_resource"]


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


def make_late(conn: psycopg.Connection) -> None:
    """The flag was set and the passes were made an hour ago."""
    conn.execute("UPDATE retally.scope_flag SET set_at = set_at - interval '1 h'")
    conn.execute("UPDATE retally.pass SET succeeded_at = succeeded_at - interval '1 h'")


@pytest.mark.usefixtures("comet")
def test_a_managed_show_that_nobody_serves_is_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    make_late(farm_db)
    farm_db.execute("DELETE FROM retally.worker")
    ((state, seen, advice),) = doctor("shows")
    assert state == "problem"
    assert re.match(r"comet: no pass over folder, job, layer, point, subscription since \d", seen)
    assert "start `retally worker`" in advice
    see_worker(farm_db)
    farm_db.execute("DELETE FROM retally.pass WHERE total = 'job'")
    ((_, seen, advice),) = doctor("shows")
    assert seen.endswith("is known")
    assert "log of me" in advice


@pytest.mark.usefixtures("comet")
def test_that_no_worker_is_there_is_told_before_anything_is_late(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    assert doctor("shows") == []
    # it died: two of its ticks running were missed
    farm_db.execute("UPDATE retally.worker SET seen_at = seen_at - interval '1 h'")
    ((state, seen, advice),) = doctor("shows")
    assert (state, seen) == ("warning", "no worker is seen that would look at comet")
    assert advice.startswith("start `retally worker`")
    # as pg_cron does it: again and again
    for _ in range(2):
        farm_db.execute("CALL retally.recompute_all()")
    assert doctor("shows") == []
    farm_db.execute("UPDATE retally.pass SET finished_at = finished_at - interval '1 h'")
    assert len(doctor("shows")) == 1


def test_that_no_worker_is_there_is_told_of_shows_that_are_to_be_watched(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    make_work(Rows(farm_db), "meteor")
    assert doctor("shows") == []
    routines.set_mode(farm_db, "meteor", "watch")
    ((state, seen, _),) = doctor("shows")
    assert (state, seen) == ("warning", "no worker is seen that would look at meteor")


def test_drift_that_stands_in_unmanaged_shows_is_told(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    see_worker(farm_db)
    work = make_work(Rows(farm_db), "meteor")
    corrupt(farm_db)
    found = routines.findings(farm_db, [work.show], TOTALS)
    routines.note_findings(
        farm_db, found, action="watched", tick="resource", worker="me", seconds=0
    )
    ((state, seen, advice),) = doctor("shows")
    assert state == "warning"
    assert seen == "unmanaged shows are adrift, and only watched: meteor (5 rows)"
    assert "retally recompute --show 'meteor'" in advice
    assert "retally unmanaged --show 'meteor' repair" in advice
    # nobody looks: what was found says nothing of now
    routines.set_mode(farm_db, "meteor", "off")
    assert doctor("shows") == []
    routines.set_mode(farm_db, "meteor", "watch")
    assert len(doctor("shows")) == 1
    farm_db.execute("CALL retally.repair_show('meteor', p_force => true)")
    assert doctor("shows") == []


def test_a_repair_that_is_refused_is_a_problem_with_a_way_out(
    farm_db: psycopg.Connection, doctor: Doctor
) -> None:
    see_worker(farm_db)
    work = make_work(Rows(farm_db), "meteor")
    routines.set_mode(farm_db, "meteor", "repair")
    corrupt(farm_db)
    found = routines.findings(farm_db, [work.show], TOTALS)
    routines.claim_due(farm_db, "resource", 10, [work.show], "me")
    routines.note_failure(farm_db, "resource", work.show, 5, "it is refused")
    routines.note_findings(
        farm_db, found, action="refused", tick="resource", worker="me", seconds=0
    )
    ((state, seen, advice),) = doctor("shows")
    assert state == "problem"
    assert seen == "meteor: the passes of tick resource are refused: it is refused"
    assert advice.startswith("retally drift --show 'meteor';")
    assert "retally recompute --show 'meteor' --force" in advice
    routines.set_mode(farm_db, "meteor", "off")
    assert doctor("shows") == []


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
    farm_db: psycopg.Connection, comet: Work, doctor: Doctor
) -> None:
    watched = make_work(Rows(farm_db), "meteor")
    for each in (comet, watched):
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
    farm_db: psycopg.Connection, comet: Work, doctor: Doctor
) -> None:
    rows = Rows(farm_db)
    strays = [rows.proc(comet.host, comet.show, "gone", comet.layer) for _ in range(5)]
    farm_db.execute("ALTER TABLE proc DROP CONSTRAINT c_proc_pk_host")
    lost = rows.proc("no-such-host", comet.show, comet.job, comet.layer)
    host, job = doctor("procs")
    assert (host[0], job[0]) == ("warning", "warning")
    assert host[1] == f"1 proc with no host in the farm: {lost}"
    assert "DELETE FROM public.proc" in host[2]
    assert job[1] == f"5 procs with no job in the farm: {', '.join(strays[:3])} and 2 more"
    assert f"retally.release_proc('{strays[0]}')" in job[2]
    (orphan,) = [each for each in routines.orphans(farm_db) if each.proc_id == lost]
    assert orphan.reason == "no host no-such-host"


def test_what_is_said_about_a_stray_proc_ends_it(
    farm_db: psycopg.Connection, comet: Work, doctor: Doctor
) -> None:
    rows = Rows(farm_db)
    rows.proc(comet.host, comet.show, "gone", None)
    ((_, _, advice),) = doctor("procs")
    statement = re.search(r"SELECT .*\)", advice)
    assert statement is not None
    assert farm_db.execute(statement[0].encode()).fetchone() == (True,)
    assert doctor("procs") == []


def test_totals_without_a_row_are_told(
    farm_db: psycopg.Connection, comet: Work, doctor: Doctor
) -> None:
    farm_db.execute("DELETE FROM subscription; DELETE FROM point")
    subscription, point = doctor("rows")
    assert (subscription[0], point[0]) == ("problem", "problem")
    assert subscription[1].startswith(
        f"the subscription total of {comet.alloc} in show comet is not there"
    )
    assert "hold 3.00 cores and 0 GPUs" in point[1]
    assert "subscribe show comet" in subscription[2]
    assert "department to show comet" in point[2]


@pytest.mark.usefixtures("comet")
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
    farm_db.execute(
        "UPDATE retally.setting SET longest_wait = '5 s', repair_share = 0, history_every = '0',"
        " longest_flip = '0'"
    )
    wait, share, history, flip = doctor("settings")
    assert wait[:2] == (
        "warning",
        "setting.longest_wait is 5 s, and 0.5 s is in force: half of deadlock_timeout",
    )
    assert "0.5 s" in wait[2]
    assert "every repair is refused" in share[1]
    assert "repair_share = 0.5" in share[2]
    for _, seen, advice in (history, flip):
        assert " is 0: " in seen
        farm_db.execute(advice.encode())
    assert doctor("settings") == [wait, share]
