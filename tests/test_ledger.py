"""Repairs on the command line: recompute of unmanaged shows, the ledger, undo."""

from __future__ import annotations

import csv
import io
import json
from typing import TYPE_CHECKING

import pytest
from repair_farm import make_works, spoil, state
from small_farm import Rows, Work, corrupt, manage, stored
from test_cli import runner_for

from retally.procedures import TOTALS

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


def test_recompute_of_an_unmanaged_show_tells_its_run_and_undo_puts_it_back(
    farm_db: psycopg.Connection, retally: Retally, works: list[Work]
) -> None:
    wrong = state(farm_db, works)
    result = retally("recompute", "--show", "comet")
    assert result.exit_code == 0
    assert "run 1: `retally undo 1` puts it back\n" in result.stderr
    assert retally("drift").exit_code == 0
    undone = retally("undo", "1")
    assert (undone.exit_code, undone.stdout) == (0, "")
    assert undone.stderr == (
        "1 row put back, 0 kept (changed since, or gone), 0 left because busy\n"
        "run 2: `retally undo 2` takes this undo back\n"
    )
    assert state(farm_db, works) == wrong
    again = retally("undo", "1")
    assert again.stderr == "0 rows put back, 1 kept (changed since, or gone), 0 left because busy\n"


def test_recompute_of_a_managed_show_keeps_no_ledger(
    farm_db: psycopg.Connection, retally: Retally, works: list[Work]
) -> None:
    manage(farm_db, works[0], True)
    corrupt(farm_db)
    result = retally("recompute", "--show", "comet")
    assert result.exit_code == 0
    assert "undo" not in result.stderr
    assert retally("drift").exit_code == 0
    assert "nothing was repaired" in retally("ledger").stderr


@pytest.mark.usefixtures("works")
def test_a_refused_show_is_one_line_and_stops_no_other_one(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    other = make_works(Rows(farm_db), "aurora")
    farm_db.execute("DELETE FROM proc WHERE pk_show = %s", (other[0].show,))
    dry = retally("recompute", "--all", "--unmanaged-too", "--dry-run")
    assert dry.exit_code == 1
    refusal = 'the repair of show "aurora" is refused (all to zero, too many rows,'
    assert f"note: {refusal}" in dry.stderr
    assert '"comet"' not in dry.stderr
    forced = retally("recompute", "--all", "--unmanaged-too", "--dry-run", "--force")
    assert (forced.exit_code, "refused" in forced.stderr) == (0, False)

    result = retally("recompute", "--all", "--unmanaged-too")
    assert result.exit_code == 1
    lines = [line for line in result.stderr.splitlines() if "aurora" in line]
    assert len(lines) == 1
    assert lines[0].startswith(f"failed: show aurora: {refusal}")
    assert "20 of 20 rows" in lines[0]
    assert "run 1: `retally undo 1`" in result.stderr
    drifting = {row["show"] for row in json.loads(retally("drift", "--format", "json").stdout)}
    assert drifting == {"aurora"}

    assert retally("recompute", "--show", "aurora", "--force").exit_code == 0
    assert retally("drift").exit_code == 0
    runs = json.loads(retally("ledger", "--runs", "--format", "json").stdout)
    assert [(run["run"], run["shows"], run["rows"], run["forced"]) for run in runs] == [
        (2, ["aurora"], 20, True),
        (1, ["comet"], 1, False),
    ]
    assert runs[0]["asked_by"] == "retally recompute"


def test_the_ledger_as_json_and_csv_has_keys_and_core_units(
    retally: Retally, works: list[Work]
) -> None:
    retally("recompute", "--show", "comet")
    cores, gpus = json.loads(retally("ledger", "--format", "json").stdout)
    assert cores.pop("changed_at")
    assert cores.pop("worker")
    assert cores == {
        "run": 1,
        "show": "comet",
        "show_id": works[0].show,
        "total": "layer",
        "name": f"{works[0].job}/{works[0].layer}",
        "key": works[0].layer,
        "slot": "cores",
        "before": 293,
        "after": 300,
        "cause": None,
        "asked_by": "retally recompute",
        "forced": False,
        "undoes": None,
    }
    assert (gpus["slot"], gpus["before"], gpus["after"]) == ("gpus", 1, 2)
    rows = list(csv.DictReader(io.StringIO(retally("ledger", "--format", "csv").stdout)))
    assert [row["before"] for row in rows] == ["293", "1"]


@pytest.mark.usefixtures("works")
def test_the_ledger_as_a_table_speaks_of_cores_and_fits_100_columns(retally: Retally) -> None:
    retally("recompute", "--show", "comet")
    retally("undo", "1")
    lines = retally("ledger").stdout.splitlines()
    assert lines[0].split() == [
        "run", "changed", "at", "show", "total", "name", "slot", "before", "after", "cause",
        "asked", "by",
    ]  # fmt: skip
    assert lines[3].split()[-5:] == ["cores", "2.93", "3.00", "-", "recompute"]
    assert lines[1].split()[-7:] == ["cores", "3.00", "2.93", "-", "undo", "of", "1"]
    assert max(map(len, lines)) <= 100
    runs = retally("ledger", "--runs").stdout.splitlines()
    assert max(map(len, runs)) <= 100
    assert "undo of run 1" in runs[1]


@pytest.mark.usefixtures("works")
def test_the_table_tells_what_was_forced_and_the_year_of_old_repairs(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    farm_db.execute("DELETE FROM proc")
    retally("recompute", "--show", "comet", "--force")
    farm_db.execute("UPDATE retally.ledger SET changed_at = '2019-03-01 12:00+00'")
    line = retally("ledger").stdout.splitlines()[1]
    assert line.rstrip().endswith("recompute, forced")
    assert line.split()[1:3] == ["2019-03-01", "12:00:00Z"]


def test_filters_choose_shows_totals_runs_and_times(
    farm_db: psycopg.Connection, retally: Retally, works: list[Work]
) -> None:
    other = make_works(Rows(farm_db), "aurora")
    spoil(farm_db, other[0], "job", 9)
    retally("recompute", "--all", "--unmanaged-too")
    spoil(farm_db, works[0], "point", 5)
    retally("recompute", "--show", "comet")
    farm_db.execute("UPDATE retally.ledger SET changed_at = now() - interval '1 day' WHERE run = 1")

    def listed(*args: str) -> list[tuple[int, str, str]]:
        rows = json.loads(retally("ledger", "--format", "json", *args).stdout)
        return [(row["run"], row["show"], row["total"]) for row in rows]

    everything = [
        (2, "comet", "point"),
        (1, "aurora", "job"),
        (1, "comet", "layer"),
        (1, "comet", "layer"),
    ]
    assert listed() == everything
    assert listed("--show", "aurora") == everything[1:2]
    assert listed("--show", works[0].show, "--total", "layer") == everything[2:]
    assert listed("--run", "2") == everything[:1]
    assert listed("--since", "3h") == everything[:1]
    assert listed("--since", "2d") == everything
    assert listed("--since", "2000-01-01") == everything
    assert listed("--since", "2999-01-01T00:00+02:00") == []
    assert listed("--limit", "1") == everything[:1]
    assert listed("--run", "3") == []
    runs = json.loads(retally("ledger", "--runs", "--total", "job", "--format", "json").stdout)
    assert [(run["run"], run["rows"], run["core_units"]) for run in runs] == [(1, 1, 9)]


@pytest.mark.usefixtures("works")
@pytest.mark.parametrize(
    "args",
    [
        ("ledger", "--since", "yesterday"),
        ("ledger", "--since", "3 h"),
        ("ledger", "--since", "99999999999w"),
        ("ledger", "--limit", "0"),
        ("ledger", "--run", "0"),
        ("ledger", "--run", str(2**63)),
        ("ledger", "--total", "cores"),
        ("undo",),
        ("undo", "last"),
        ("undo", "0"),
        ("undo", "1", "2"),
    ],
)
def test_wrong_arguments_are_exit_code_2(retally: Retally, args: tuple[str, ...]) -> None:
    assert retally(*args).exit_code == 2


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (("ledger", "--run", "x"), "'x' is not a valid whole number."),
        (("ledger", "--limit", "1.5"), "'1.5' is not a valid whole number."),
        (("prune", "--rows", "x"), "'x' is not a valid whole number."),
        (("watch", "--interval", "x"), "'x' is not a valid number."),
        (("watch", "--interval", "inf"), "'inf' is not a valid number."),
        (("recompute", "--all", "--patience", "nan"), "'nan' is not a valid number."),
        (("recompute", "--all", "--patience", "-1"), "-1.0 is not in the range x>=0."),
    ],
)
def test_what_is_no_number_is_told_in_plain_words(
    retally: Retally, args: tuple[str, ...], text: str
) -> None:
    result = retally(*args)
    assert result.exit_code == 2
    assert text in result.stderr


@pytest.mark.usefixtures("works")
def test_unknown_shows_and_runs_are_exit_code_1(retally: Retally) -> None:
    unknown = retally("ledger", "--show", "comte")
    assert unknown.exit_code == 1
    assert "comet" in unknown.stderr
    for args in (("undo", "7"), ("undo", "7", "--dry-run"), ("undo", str(10**30))):
        result = retally(*args)
        assert result.exit_code == 1
        assert f"there is no run {args[1]}: `retally ledger --runs`" in result.stderr


def test_totals_chosen_are_the_only_ones_repaired(
    farm_db: psycopg.Connection, retally: Retally, works: list[Work]
) -> None:
    spoil(farm_db, works[0], "job", 9)
    retally("recompute", "--show", "comet", "--total", "job")
    assert stored(farm_db, works[0], "layer")[0] == 293
    rows = json.loads(retally("ledger", "--format", "json").stdout)
    assert [row["total"] for row in rows] == ["job"]


@pytest.mark.usefixtures("works")
def test_a_table_of_more_than_it_shows_says_so(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    retally("recompute", "--show", "comet")
    farm_db.execute(
        "INSERT INTO retally.ledger (run, scope, total, key, slot, before, after)"
        " SELECT 1, 'gone', t, n::text, 'gpus', 0, 1 FROM generate_series(1, 120) AS n,"
        f" unnest('{{{','.join(TOTALS)}}}'::text[]) AS t"
    )
    result = retally("ledger")
    assert len(result.stdout.splitlines()) == 501
    assert "… and more" in result.stderr
    assert len(retally("ledger", "--limit", "3").stdout.splitlines()) == 4
    assert len(json.loads(retally("ledger", "--format", "json").stdout)) == 602
