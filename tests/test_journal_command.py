"""``retally journal``, and what other commands make of a journaled show."""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

import pytest
from doctor_run import lines, run
from psycopg.conninfo import make_conninfo
from small_farm import Rows, Work, make_work, manage
from test_cli import runner_for

from retally.cli import journal
from retally.procedures import TOTALS, rights, routines, uninstall
from retally.procedures.journal import fold, journal_state, set_journal
from retally.procedures.rebuild import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from test_cli import Retally

    Connect = Callable[[], psycopg.Connection]

_TRIGGERS = """
SELECT t.tgrelid::regclass::text, t.tgname::text FROM pg_trigger AS t
INNER JOIN pg_class AS c ON t.tgrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace ORDER BY 1, 2
"""


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``."""
    return runner_for(farm_db)


@pytest.fixture
def comet(farm_db: psycopg.Connection) -> Work:
    """The managed show comet, with a proc that its totals do not know yet."""
    work = make_work(Rows(farm_db), "comet")
    manage(farm_db, work, True)
    Rows(farm_db).proc(work.host, work.show, work.job, work.layer, cores=300)
    return work


@pytest.mark.usefixtures("comet")
def test_a_show_is_journaled_and_its_totals_are_true_from_then_on(retally: Retally) -> None:
    result = retally("journal", "--show", "comet", "on", "--format", "json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [{"show": "comet", "managed": True, "journaled": True}]
    assert result.stderr == "journal: 1 show, triggers on proc, 0 entries to fold\n"
    assert retally("drift").exit_code == 0


def test_recompute_folds_what_waits(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    retally("journal", "--show", "comet", "on")
    Rows(farm_db).proc(comet.host, comet.show, comet.job, comet.layer)
    assert "1 entry to fold" in retally("journal").stderr
    adrift = retally("drift")
    assert adrift.exit_code == 3
    assert "note: 1 entry of the journal to fold" in adrift.stderr
    assert retally("recompute", "--all").exit_code == 0
    assert retally("drift").exit_code == 0
    assert journal_state(farm_db).entries == 0


def test_off_leaves_no_trace_on_the_farm(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    before = farm_db.execute(_TRIGGERS).fetchall()
    retally("journal", "--all", "on")
    Rows(farm_db).proc(comet.host, comet.show, comet.job, comet.layer)
    assert farm_db.execute(_TRIGGERS).fetchall() != before
    result = retally("journal", "--all", "off")
    assert (result.exit_code, result.stderr) == (0, "journal: off\n")
    assert farm_db.execute(_TRIGGERS).fetchall() == before
    assert retally("drift").exit_code == 0


@pytest.mark.usefixtures("comet")
def test_uninstall_takes_the_triggers_along(farm_db: psycopg.Connection, retally: Retally) -> None:
    before = farm_db.execute(_TRIGGERS).fetchall()
    retally("journal", "--all", "on")
    assert uninstall(farm_db)
    assert farm_db.execute(_TRIGGERS).fetchall() == before


def test_an_unmanaged_show_is_refused_by_name_and_left_by_all(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    make_work(Rows(farm_db), "other")
    result = retally("journal", "--show", "other", "on")
    assert result.exit_code == 1
    assert 'show "other" is not managed' not in result.stdout
    assert "is not managed" in result.stderr
    assert "retally managed" in result.stderr
    assert comet
    result = retally("journal", "--all", "on")
    assert result.exit_code == 0
    assert "left, as they are not managed: 1 show\n" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("on",), "which show?"),
        (("--all", "--show", "comet", "on"), "leave --show away"),
        (("--show", "comet", "perhaps"), "'perhaps' is not one of"),
    ],
)
def test_wrong_usage_is_exit_code_2(
    retally: Retally, comet: Work, arguments: tuple[str, ...], message: str
) -> None:
    result = retally("journal", *arguments)
    assert comet
    assert result.exit_code == 2
    assert message in result.stderr


def test_a_writer_in_flight_is_exit_code_5(
    farm_db: psycopg.Connection, connect: Connect, retally: Retally, comet: Work
) -> None:
    farm_db.execute("UPDATE retally.setting SET longest_flip = '50 ms'")
    writer = connect()
    with writer.transaction():
        Rows(writer).proc(comet.host, comet.show, comet.job, comet.layer)
        result = retally("journal", "--show", "comet", "on")
    assert result.exit_code == 5
    assert "proc locked for too long" in result.stderr


def test_status_says_who_is_journaled(retally: Retally, comet: Work) -> None:
    assert comet
    assert "journal     off\n" in retally("status").stdout
    retally("journal", "--all", "on")
    table = retally("status").stdout
    assert "journal     1 show, triggers on proc, 0 entries to fold\n" in table
    (row,) = json.loads(retally("status", "--format", "json").stdout)
    assert (row["journaled"], row["mode"]) == (True, "journal")
    assert row["written_by"] == "journal, ticks"
    (told,) = json.loads(retally("unmanaged", "--format", "json").stdout)
    assert told["in_force"] == "folded"


def test_a_flip_leaves_triggers_that_status_and_doctor_tell_of(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    retally("journal", "--all", "on")
    manage(farm_db, comet, False)
    assert "`retally journal --all off` takes them away" in retally("status").stdout
    told = {line["check"]: line for line in lines(run(farm_db.info.dsn, "--format", "json"))}
    assert told["journal"]["state"] == "warning"
    retally("journal", "--all", "off")
    assert journal_state(farm_db).triggers == 0


@pytest.mark.usefixtures("comet")
def test_doctor_finds_a_trigger_that_is_gone_and_none_of_ours_odd(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    retally("journal", "--all", "on")
    before = {line["check"]: line for line in lines(run(farm_db.info.dsn, "--format", "json"))}
    assert (before["journal"]["state"], before["triggers"]["state"]) == ("ok", "ok")
    farm_db.execute("ALTER TABLE proc DISABLE TRIGGER retally_released")
    after = {line["check"]: line for line in lines(run(farm_db.info.dsn, "--format", "json"))}
    assert after["journal"]["state"] == "problem"
    assert "2 of the journal's 3 triggers" in after["journal"]["seen"]
    assert "only 2 of 3 triggers on proc" in retally("status").stdout
    # what the advice says, where none is left, as after a restore of proc alone
    farm_db.execute("DROP TRIGGER retally_booked ON proc; DROP TRIGGER retally_changed ON proc")
    for switch in ("off", "on"):
        assert retally("journal", "--show", "comet", switch).exit_code == 0
    assert journal_state(farm_db).triggers == 3


def test_doctor_tells_of_entries_that_nobody_folds(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    retally("journal", "--all", "on")
    farm_db.execute(
        "INSERT INTO retally.journal SELECT %s, NULL, NULL, NULL, false, 1, 0"
        " FROM generate_series(1, 100001)",
        (comet.show,),
    )
    told = {line["check"]: line for line in lines(run(farm_db.info.dsn, "--format", "json"))}
    assert told["journal"]["state"] == "warning"
    assert told["journal"]["seen"].startswith("100,001 entries")


@pytest.mark.usefixtures("comet")
def test_who_does_not_own_proc_is_told_to_connect_as_its_owner(
    farm_db: psycopg.Connection, retally: Retally, role: str
) -> None:
    rights.grant(farm_db, role, "worker")
    as_role = {"RETALLY_DSN": make_conninfo(farm_db.info.dsn, user=role)}
    result = retally("journal", "--show", "comet", "on", **as_role)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: permission denied for table proc")
    assert "connect as its owner" in result.stderr
    assert "retally grants" not in result.stderr
    assert not routines.shows(farm_db)[0].journaled
    set_journal(farm_db, "comet", on=True)
    result = retally("journal", "--show", "comet", "off", **as_role)
    assert result.exit_code == 1
    assert "connect as its owner" in result.stderr
    assert routines.shows(farm_db)[0].journaled


def test_of_shows_by_name_an_unmanaged_one_is_refused_before_anything_changes(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    make_work(Rows(farm_db), "other")
    assert comet
    result = retally("journal", "--show", "comet", "--show", "other", "on")
    assert result.exit_code == 1
    assert journal_state(farm_db).triggers == 0


def test_an_unknown_show_is_one_line_that_names_it(retally: Retally, comet: Work) -> None:
    assert comet
    result = retally("journal", "--show", "comte", "on")
    assert result.exit_code == 1
    assert 'Error: there is no show "comte"' in result.stderr


def test_rows_that_stay_busy_are_exit_code_5_and_the_show_is_journaled(
    farm_db: psycopg.Connection,
    connect: Connect,
    retally: Retally,
    comet: Work,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(journal, "rebuild", functools.partial(rebuild, patience=0.1))
    other = connect()
    with other.transaction():
        other.execute("SELECT FROM job_resource WHERE pk_job = %s FOR UPDATE", (comet.job,))
        result = retally("journal", "--show", "comet", "on")
    assert result.exit_code == 5
    assert routines.shows(farm_db)[0].journaled


@pytest.mark.usefixtures("comet")
def test_a_row_that_cannot_be_made_exact_is_named(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    farm_db.execute("DELETE FROM point")
    result = retally("journal", "--show", "comet", "on")
    assert result.exit_code == 0
    assert "note: show comet: point" in result.stderr


@pytest.mark.parametrize("others", [0, 1])
def test_ticks_are_told_in_their_order_though_each_fold_is_over_all_totals(
    farm_db: psycopg.Connection, retally: Retally, comet: Work, others: int
) -> None:
    retally("journal", "--all", "on")
    for tick, totals in (("resource", TOTALS[1:]), ("subscription", TOTALS[:1])):
        routines.claim_due(farm_db, tick, 10, [comet.show], "me")
        fold(farm_db, [comet.show], wait=True, tick=tick, worker="me")
        for _ in range(others):
            show = make_work(Rows(farm_db)).show
            found = routines.findings(farm_db, [show], totals)
            routines.note_findings(
                farm_db, found, action="watched", tick=tick, worker="me", seconds=0
            )
    assert "subscription every 10 s, resource every 10 s; under" in retally("status").stdout


def test_all_off_takes_away_what_shows_that_are_gone_have_left(
    farm_db: psycopg.Connection, retally: Retally, comet: Work
) -> None:
    set_journal(farm_db, "comet", on=True)
    farm_db.execute("UPDATE retally.scope_flag SET scope = 'gone' WHERE scope = %s", (comet.show,))
    assert "its triggers are on proc" in retally("journal").stderr
    assert retally("journal", "--all", "off").stderr == "journal: off\n"
    assert farm_db.execute("SELECT FROM retally.journal_triggers()").rowcount == 0


@pytest.mark.usefixtures("comet")
def test_triggers_that_are_left_over_are_told_though_switched_off(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    set_journal(farm_db, "comet", on=True)
    farm_db.execute("UPDATE retally.scope_flag SET journaled = FALSE")
    farm_db.execute("ALTER TABLE proc DISABLE TRIGGER USER")
    assert "its triggers are on proc" in retally("journal").stderr
    assert "the journal's triggers are on proc" in run(farm_db.info.dsn).stdout


@pytest.mark.usefixtures("comet")
def test_of_two_journaled_shows_only_the_busy_one_is_reported(
    farm_db: psycopg.Connection, retally: Retally, connect: Connect
) -> None:
    other = make_work(Rows(farm_db), "other")
    manage(farm_db, other, True)
    assert retally("journal", "--all", "on").exit_code == 0
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, FALSE)", (other.show,))
    result = retally("recompute", "--all", "--no-wait")
    assert result.exit_code == 5
    assert "show other: another session" in result.stdout + result.stderr
    assert "comet: another session" not in result.stdout + result.stderr
