"""``retally undo``: what it says, and its exit codes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from repair_farm import make_works, spoil, state
from small_farm import Rows, Work, manage, stored
from test_cli import runner_for

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg
    from test_cli import Retally

    Connect = Callable[[], psycopg.Connection]


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``."""
    return runner_for(farm_db)


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    """The unmanaged show "comet", whose first work's layer lacks 7 core units and a GPU."""
    works = make_works(Rows(farm_db), "comet")
    spoil(farm_db, works[0], "layer", -7)
    spoil(farm_db, works[0], "layer", -1, "int_gpus")
    return works


def test_a_dry_run_of_undo_names_what_would_be_put_back_and_what_is_kept(
    farm_db: psycopg.Connection, retally: Retally, works: list[Work]
) -> None:
    spoil(farm_db, works[1], "job", 9)
    retally("recompute", "--show", "comet")
    spoil(farm_db, works[1], "job", 1)
    exact = state(farm_db, works)
    result = retally("undo", "1", "--dry-run")
    assert result.exit_code == 0
    assert (
        "1 row would be put back, 1 kept (changed since, gone, or managed); nothing"
        in result.stderr
    )
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == [
        "show", "total", "name", "slot", "before", "after", "now", "restorable",
    ]  # fmt: skip
    assert lines[3] == ["comet", "job", works[1].job, "cores", "3.09", "3.00", "3.01", "no"]
    assert state(farm_db, works) == exact
    rows = json.loads(retally("undo", "1", "--dry-run", "--format", "json").stdout)
    assert [(row["total"], row["now"], row["restorable"]) for row in rows] == [
        ("layer", 300, True),
        ("layer", 2, True),
        ("job", 301, False),
    ]


def test_undo_with_busy_rows_is_exit_code_5(
    connect: Connect, retally: Retally, works: list[Work]
) -> None:
    retally("recompute", "--show", "comet")
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM layer_resource WHERE pk_layer = %s FOR UPDATE", (works[0].layer,))
    result = retally("undo", "1", "--format", "json")
    assert result.exit_code == 5
    assert json.loads(result.stdout) == [
        {
            "run": None,
            "undoes": 1,
            "rows_restored": 0,
            "rows_kept": 0,
            "rows_deferred": 1,
            "shows_busy": 0,
            "shows_refused": 0,
        }
    ]


def test_undo_of_a_show_that_another_session_is_rebuilding_is_exit_code_5(
    connect: Connect, retally: Retally, works: list[Work]
) -> None:
    retally("recompute", "--show", "comet")
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT retally.hold_scope(%s, false)", (works[0].show,))
    result = retally("undo", "1")
    assert result.exit_code == 5
    assert "not done: show comet: another session is rebuilding" in result.stderr


@pytest.mark.usefixtures("works")
def test_undo_warns_of_a_show_that_the_ticks_repair_again(retally: Retally) -> None:
    retally("recompute", "--show", "comet")
    assert "note:" not in retally("undo", "1", "--dry-run").stderr
    retally("unmanaged", "--show", "comet", "repair")
    for args in (("undo", "1", "--dry-run"), ("undo", "1")):
        assert "note: show comet is in mode repair" in retally(*args).stderr


def test_undo_of_a_managed_show_is_exit_code_1_and_puts_back_the_others(
    farm_db: psycopg.Connection, retally: Retally, works: list[Work]
) -> None:
    other = make_works(Rows(farm_db), "aurora")
    spoil(farm_db, other[0], "layer", -7)
    retally("recompute", "--all", "--unmanaged-too")
    manage(farm_db, works[0], True)

    dry = retally("undo", "1", "--dry-run", "--format", "json")
    assert dry.exit_code == 0
    assert {(row["show"], row["restorable"]) for row in json.loads(dry.stdout)} == {
        ("comet", False),
        ("aurora", True),
    }
    assert "note: show comet is managed: it would not be put back" in dry.stderr

    result = retally("undo", "1", "--format", "json")
    assert result.exit_code == 1
    assert 'not done: show "comet" is managed' in result.stderr
    assert "`retally managed --show comet off` first" in result.stderr
    [told] = json.loads(result.stdout)
    assert (told["rows_restored"], told["shows_refused"]) == (1, 1)
    assert stored(farm_db, works[0], "layer")[0] == 300
    assert stored(farm_db, other[0], "layer")[0] == 293
