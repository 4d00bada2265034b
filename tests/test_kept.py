"""What passes leave behind: the latest results and the history."""

from __future__ import annotations

import re
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import psycopg
import pytest
from kept_passes import OLD_DRIFT, START, Found, note, times, watch, wrong_show
from small_farm import corrupt, manage

from retally.procedures import TOTALS, install, routines
from retally.procedures.kept import history, kept, latest, left_adrift
from retally.procedures.records import BY_HAND
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

HISTORY = (Path(__file__).parent.parent / "docs" / "history.md").read_text(encoding="utf-8")


def test_quiet_passes_leave_one_row_in_the_history_every_so_often(
    farm_db: psycopg.Connection,
) -> None:
    for second in range(0, 200, 3):
        note(farm_db, second)
    assert times(farm_db) == [0, 63, 126, 189]


def test_how_often_is_a_setting(farm_db: psycopg.Connection) -> None:
    farm_db.execute("UPDATE retally.setting SET history_every = '10 seconds'")
    for second in range(0, 31, 5):
        note(farm_db, second)
    assert times(farm_db) == [0, 15, 30]


@pytest.mark.parametrize(
    "found",
    [
        Found(adrift=1, core_units=100),
        Found(adrift=2, changed=2, core_units=100, action="rebuilt"),
        Found(adrift=2, changed=2, core_units=100, action="repaired"),
        Found(adrift=1, deferred=1, core_units=100, action="rebuilt"),
        Found(failed=1),
    ],
)
def test_a_pass_that_found_or_did_something_is_in_the_history_at_once(
    farm_db: psycopg.Connection, found: Found
) -> None:
    note(farm_db, 0)
    note(farm_db, 3, found)
    note(farm_db, 6)
    assert times(farm_db) == [0, 3]
    row = history(farm_db)[0]
    assert (row.rows_adrift, row.rows_changed, row.rows_deferred, row.rows_failed) == (
        found.adrift,
        found.changed,
        found.deferred,
        found.failed,
    )
    assert (row.core_units, row.action, row.worker, row.tick) == (
        found.core_units,
        found.action,
        "me",
        "t",
    )


def test_each_pass_that_changes_something_is_in_the_history(farm_db: psycopg.Connection) -> None:
    for second in (0, 3, 6, 9):
        note(farm_db, second, Found(adrift=1, changed=1, core_units=100, action="rebuilt"))
    assert times(farm_db) == [0, 3, 6, 9]


def test_the_same_drift_that_nobody_mends_is_no_news_but_a_growing_one_is(
    farm_db: psycopg.Connection,
) -> None:
    for second in (0, 3, 6, 63):
        note(farm_db, second, OLD_DRIFT)
    note(farm_db, 66, Found(adrift=1, core_units=200))
    note(farm_db, 69, Found(adrift=2, core_units=200))
    assert times(farm_db) == [0, 63, 66, 69]


def test_a_clock_that_was_set_back_silences_the_history_for_no_longer(
    farm_db: psycopg.Connection,
) -> None:
    for second in (3600, 0, 3, 63, 66):
        note(farm_db, second)
    assert times(farm_db) == [0, 63, 3600]


def test_each_show_and_tick_has_its_own_history(farm_db: psycopg.Connection) -> None:
    for scope in ("one", "other"):
        for tick in ("t", BY_HAND):
            note(farm_db, 0, scope=scope, tick=tick)
            note(farm_db, 3, scope=scope, tick=tick)
    found = {(row.show_id, row.tick) for row in history(farm_db)}
    assert len(history(farm_db)) == len(found) == 4


def test_the_first_pass_over_a_show_is_in_the_history(farm_db: psycopg.Connection) -> None:
    work = wrong_show(farm_db)
    watch(farm_db, [work.show])
    assert [row.total for row in history(farm_db)] == list(TOTALS)


def test_the_latest_pass_of_each_tick_is_kept_and_counted(farm_db: psycopg.Connection) -> None:
    for second in range(5):
        note(farm_db, second, Found(adrift=second))
    note(farm_db, 9, tick=BY_HAND)
    passes = {each.tick: each for each in routines.last_passes(farm_db)}
    assert passes["t"].passes == 5
    assert passes["t"].rows_adrift == 4
    assert passes[BY_HAND].passes == 1
    (last,) = latest(list(passes.values()))
    assert last.tick == BY_HAND


@pytest.mark.parametrize(
    ("found", "left"),
    [
        (Found(adrift=3), 3),
        (Found(adrift=3, changed=3, action="rebuilt"), 0),
        (Found(adrift=3, changed=1, deferred=2, action="rebuilt"), 2),
        (Found(adrift=3, changed=2, deferred=1, action="repaired"), 1),
    ],
)
def test_what_a_pass_left_adrift_is_what_it_did_not_write(
    farm_db: psycopg.Connection, found: Found, left: int
) -> None:
    note(farm_db, 0, found)
    assert [left_adrift(each) for each in routines.last_passes(farm_db)] == [left]


def test_a_watched_show_is_kept_with_what_was_found(farm_db: psycopg.Connection) -> None:
    work = wrong_show(farm_db)

    watch(farm_db, [work.show])

    state = kept(farm_db)
    assert state is not None
    assert [(p.total, p.action, p.rows_adrift, p.core_units) for p in state.passes] == [
        (total, "watched", 1, 310 if total == "job" else 307) for total in TOTALS
    ]
    assert not state.empty


def test_who_is_due_who_fails_and_who_works_can_be_read(farm_db: psycopg.Connection) -> None:
    routines.claim_due(farm_db, "t", 10, ["one", "other"], "me")
    routines.claim_due(farm_db, "t", 10, [], "dead")
    routines.note_failure(farm_db, "t", "one", 60, "on fire")
    farm_db.execute("UPDATE retally.due SET due_at = clock_timestamp() WHERE scope = 'other'")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = clock_timestamp() - interval '26 s'"
        " WHERE worker = 'dead'"
    )

    state = kept(farm_db)

    assert state is not None
    assert [(t.show_id, t.is_due, t.failures, t.error, t.claimed_by) for t in state.turns] == [
        ("one", False, 1, "on fire", "me"),
        ("other", True, 0, None, "me"),
    ]
    assert [(b.worker, b.tick, b.every, b.alive) for b in state.heartbeats] == [
        ("dead", "t", 10.0, False),
        ("me", "t", 10.0, True),
    ]


def test_the_history_is_read_by_show_and_time(farm_db: psycopg.Connection) -> None:
    for second in range(0, 400, 100):
        for scope in ("one", "other"):
            note(farm_db, second, scope=scope)
    found = history(farm_db, show_ids=["one"], since=START + timedelta(seconds=100), limit=2)
    assert [(row.show_id, (row.finished_at - START).seconds) for row in found] == [
        ("one", 300),
        ("one", 200),
    ]


def queries() -> list[str]:
    return re.findall(r"```sql\n(.*?)```", HISTORY, re.DOTALL)


def decimals(value: object) -> str:
    """The value as it is printed, if it is a decimal number."""
    return str(value) if isinstance(value, Decimal) else ""


@pytest.mark.parametrize("query", queries())
def test_each_query_of_the_page_on_the_history_answers(
    farm_db: psycopg.Connection, query: str
) -> None:
    work = wrong_show(farm_db, "show1")
    manage(farm_db, work, True)
    routines.claim_due(farm_db, "subscription", 3, [work.show], "me")
    routines.note_failure(farm_db, "subscription", work.show, 60, "on fire")
    corrupt(farm_db)
    found = routines.findings(farm_db, [work.show], TOTALS)
    routines.note_findings(
        farm_db, found, action="watched", tick="resource", worker="me", seconds=0.5
    )
    rows = farm_db.execute(query.encode()).fetchall()
    assert rows
    # a division has up to twenty decimals
    assert not [value for row in rows for value in row if re.search(r"\.\d{4}", decimals(value))]


def test_the_page_leaves_out_of_what_is_adrift_now_what_nobody_looks_at(
    farm_db: psycopg.Connection,
) -> None:
    (query,) = [query for query in queries() if "DISTINCT ON" in query]

    def adrift() -> set[str]:
        return {str(row[0]) for row in farm_db.execute(query.encode())}

    work = wrong_show(farm_db, "show1")
    routines.claim_due(farm_db, "t", 60, [work.show], "me")
    watch(farm_db, [work.show])
    assert adrift() == {"show1"}
    for mode, names in (("off", set()), ("watch", {"show1"}), (None, {"show1"})):
        routines.set_mode(farm_db, work.show, mode)
        assert adrift() == names
    for minutes, names in ((9, {"show1"}), (11, set())):
        farm_db.execute(
            "UPDATE retally.pass SET finished_at = clock_timestamp() - %s",
            (timedelta(minutes=minutes),),
        )
        assert adrift() == names


def test_after_a_crash_of_the_server_nothing_is_kept_and_passes_go_on() -> None:
    with EmbeddedServer.start(in_memory=True) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
            note(conn, 0)
            conn.execute("CHECKPOINT")  # this server does not wait for its disk
        own.crash()
        own.start_server()
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            state = kept(conn)
            assert state is not None
            assert state.empty
            note(conn, 3)
            assert times(conn) == [3]


def test_a_replica_has_nothing_kept_and_says_so() -> None:
    with EmbeddedServer.start(in_memory=True) as own:
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            create_schema(conn)
            install(conn)
        own.stop_server()
        (own.data_dir / "standby.signal").touch()
        own.start_server()
        with psycopg.connect(own.dsn(), autocommit=True) as conn:
            assert kept(conn) is None
