"""What the ticks do with unmanaged shows: nothing, watch, repair; and how that is set."""

from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import structlog
from repair_farm import make_works, spoil, state
from small_farm import Rows, Work, corrupt, manage, stored
from structlog.testing import capture_logs
from test_cli import runner_for

from retally.procedures import TOTALS, routines
from retally.sql.errors import DatabaseError, UnknownShowError
from retally.worker.database import Database
from retally.worker.health import Health
from retally.worker.metrics import Metrics
from retally.worker.ticks import Shared, Tick, TickRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg
    from test_cli import Retally

    from retally.worker.settings import Unmanaged

_TICK = Tick("resource", 3600.0, TOTALS)  # an interval that does not end during a test


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``."""
    return runner_for(farm_db)


@pytest.fixture
def works(farm_db: psycopg.Connection) -> list[Work]:
    """The unmanaged show "comet", whose first work's layer lacks 7 core units."""
    works = make_works(Rows(farm_db), "comet")
    spoil(farm_db, works[0], "layer", -7)
    return works


@pytest.fixture
def shared(farm_db: psycopg.Connection) -> Iterator[Shared]:
    """What the ticks of a worker share that watches unmanaged shows."""
    structlog.reset_defaults()
    database = Database(
        farm_db.info.dsn,
        connections=4,
        statement_timeout=30,
        metrics=Metrics({}),
        health=Health({}),
    )
    database.open()
    with contextlib.closing(database), ThreadPoolExecutor(2) as menders:
        stop = threading.Event()
        yield Shared(database, menders, 2, "me", "watch", stop, Metrics({}), Health({}))


def run(conn: psycopg.Connection, shared: Shared, unmanaged: Unmanaged) -> list[Any]:
    """One pass over what is due: everything."""
    conn.execute("UPDATE retally.due SET due_at = '-infinity'")
    with capture_logs() as logs:
        TickRunner(_TICK, replace(shared, unmanaged=unmanaged)).run()
    return logs


def passes(conn: psycopg.Connection, work: Work, total: str = "layer") -> list[tuple[Any, ...]]:
    found = conn.execute(
        "SELECT action, rows_adrift, rows_changed, core_units_adrift::int FROM retally.pass"
        " WHERE scope = %s AND tick = %s AND total = %s",
        (work.show, _TICK.name, total),
    )
    return found.fetchall()


def ledger_size(conn: psycopg.Connection) -> int:
    return len(conn.execute("SELECT FROM retally.ledger").fetchall())


def test_watched_drift_is_kept_and_nothing_is_written(
    farm_db: psycopg.Connection, shared: Shared, works: list[Work]
) -> None:
    wrong = state(farm_db, works)
    run(farm_db, shared, "watch")
    assert state(farm_db, works) == wrong
    assert passes(farm_db, works[0]) == [("watched", 1, 0, 7)]
    assert passes(farm_db, works[0], "job") == [("watched", 0, 0, 0)]
    assert ledger_size(farm_db) == 0


def test_off_leaves_a_show_alone(
    farm_db: psycopg.Connection, shared: Shared, works: list[Work]
) -> None:
    run(farm_db, shared, "off")
    assert passes(farm_db, works[0]) == []
    assert stored(farm_db, works[0], "layer")[0] == 293


def test_repair_writes_drift_and_keeps_a_run_for_each_show(
    farm_db: psycopg.Connection, shared: Shared, works: list[Work]
) -> None:
    other = make_works(Rows(farm_db), "aurora")
    spoil(farm_db, other[0], "point", 5)
    run(farm_db, shared, "repair")
    assert stored(farm_db, works[0], "layer")[0] == 300
    assert passes(farm_db, works[0]) == [("repaired", 1, 1, 7)]
    assert passes(farm_db, works[0], "job") == [("repaired", 0, 0, 0)]
    entries = farm_db.execute(
        "SELECT l.scope, l.total, l.key, l.before::int, l.after::int, r.worker, r.cause, r.forced"
        " FROM retally.ledger AS l INNER JOIN retally.run AS r USING (run) ORDER BY l.total"
    ).fetchall()
    asked = ("me", "tick resource", False)
    assert entries == [
        (works[0].show, "layer", works[0].layer, 293, 300, *asked),
        (other[0].show, "point", other[0].dept, 305, 300, *asked),
    ]
    assert len(farm_db.execute("SELECT FROM retally.run").fetchall()) == 2
    run(farm_db, shared, "repair")
    assert ledger_size(farm_db) == 2


def test_a_refused_repair_is_an_error_that_is_kept_and_its_drift_is_still_seen(
    farm_db: psycopg.Connection, shared: Shared, works: list[Work]
) -> None:
    other = make_works(Rows(farm_db), "aurora")
    farm_db.execute("DELETE FROM proc WHERE pk_show = %s", (other[0].show,))
    wrong = state(farm_db, other)
    run(farm_db, shared, "repair")
    assert state(farm_db, other) == wrong
    assert passes(farm_db, other[0]) == [("refused", 4, 0, 1200)]
    (due,) = farm_db.execute(
        "SELECT failures, error FROM retally.due WHERE scope = %s", (other[0].show,)
    ).fetchall()
    assert due[0] == 1
    assert due[1].startswith('the repair of show "aurora" is refused (all to zero')
    assert stored(farm_db, works[0], "layer")[0] == 300

    run(farm_db, shared, "repair")
    again = farm_db.execute(
        "SELECT failures FROM retally.due WHERE scope = %s", (other[0].show,)
    ).fetchone()
    assert again == (2,)
    farm_db.execute("CALL retally.repair_show('aurora', p_force => true)")
    run(farm_db, shared, "repair")
    healed = farm_db.execute(
        "SELECT failures, error FROM retally.due WHERE scope = %s", (other[0].show,)
    ).fetchone()
    assert healed == (0, None)


@pytest.mark.parametrize(
    ("default", "mode", "action"),
    [
        ("watch", "repair", "repaired"),
        ("repair", "watch", "watched"),
        ("repair", "off", None),
        ("off", "watch", "watched"),
        ("off", "repair", "repaired"),
    ],
)
def test_the_mode_of_a_show_beats_the_default_of_the_worker(
    farm_db: psycopg.Connection,
    shared: Shared,
    works: list[Work],
    default: Unmanaged,
    mode: str,
    action: str | None,
) -> None:
    routines.set_mode(farm_db, "comet", mode)
    run(farm_db, shared, default)
    assert [kept for kept, *_ in passes(farm_db, works[0])] == ([action] if action else [])
    assert stored(farm_db, works[0], "layer")[0] == (300 if action == "repaired" else 293)


@pytest.mark.parametrize("mode", ["off", "watch", "repair", None])
def test_a_show_that_becomes_managed_is_rebuilt_without_ledger_whatever_its_mode(
    farm_db: psycopg.Connection, shared: Shared, works: list[Work], mode: str | None
) -> None:
    routines.set_mode(farm_db, "comet", mode)
    manage(farm_db, works[0], True)
    corrupt(farm_db)
    run(farm_db, shared, "repair")
    assert passes(farm_db, works[0]) == [("rebuilt", 4, 4, 28)]
    assert farm_db.execute("SELECT * FROM retally.drift('comet')").fetchall() == []
    assert ledger_size(farm_db) == 0


def test_modes_are_set_told_and_taken_away(farm_db: psycopg.Connection, works: list[Work]) -> None:
    def modes() -> list[str | None]:
        return [show.mode for show in routines.shows(farm_db)]

    assert modes() == [None]
    for mode in ("repair", "repair", "off", "watch", None, None):
        routines.set_mode(farm_db, works[0].show, mode)
        assert modes() == [mode]
    with pytest.raises(DatabaseError, match='mode "on"'):
        routines.set_mode(farm_db, "comet", "on")
    with pytest.raises(UnknownShowError):
        routines.set_mode(farm_db, "comte", "off")
    farm_db.execute("INSERT INTO retally.scope_mode (scope, mode) VALUES ('gone', 'off')")
    routines.set_mode(farm_db, "gone", None)
    assert farm_db.execute("SELECT FROM retally.scope_mode").fetchall() == []


@pytest.mark.usefixtures("works")
def test_the_command_tells_and_sets_modes(farm_db: psycopg.Connection, retally: Retally) -> None:
    (other,) = make_works(Rows(farm_db), "aurora", 1)
    manage(farm_db, other, True)
    first = retally("unmanaged")
    assert first.exit_code == 0
    assert [line.split() for line in first.stdout.splitlines()[1:]] == [
        ["aurora", "default", "yes", "rebuilt"],
        ["comet", "default", "no", "watch"],
    ]
    assert "default, by the settings here: watch" in first.stderr
    result = retally("unmanaged", "--show", "comet", "repair", "--format", "json")
    assert json.loads(result.stdout) == [
        {"show": "comet", "mode": "repair", "rebuilt_by_ticks": False, "in_force": "repair"}
    ]
    retally("unmanaged", "--show", "comet", "default")
    told = retally("unmanaged", "--show", "comet", "--format", "csv", RETALLY_UNMANAGED="off")
    assert told.stdout == "show,mode,rebuilt_by_ticks,in_force\ncomet,default,false,off\n"


@pytest.mark.usefixtures("works")
def test_the_command_sets_the_mode_of_every_show(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    make_works(Rows(farm_db), "aurora", 1)
    for switch, mode in (("watch", "watch"), ("off", "off"), ("default", None)):
        result = retally("unmanaged", "--all", switch)
        assert result.exit_code == 0
        assert [show.mode for show in routines.shows(farm_db)] == [mode, mode]
        assert ("a show that is made later" in result.stderr) == (mode is not None)


@pytest.mark.usefixtures("works")
def test_the_default_is_read_from_the_settings_file_and_a_wrong_one_hinders_nothing(
    retally: Retally, tmp_path: Path
) -> None:
    file = tmp_path / "retally.toml"
    file.write_text('unmanaged = "repair"\n')
    assert "settings here: repair" in retally("unmanaged", "--config", str(file)).stderr
    wrong = retally("unmanaged", "--show", "comet", "off", RETALLY_POOL_SIZE="many")
    assert wrong.exit_code == 0
    assert "what is the default is not known: setting pool_size" in wrong.stderr
    assert wrong.stdout.splitlines()[1].split() == ["comet", "off", "no", "off"]


@pytest.mark.usefixtures("works")
@pytest.mark.parametrize(
    "args",
    [
        ("repair",),
        ("--show", "comet", "on"),
        ("--show", "comet", "off", "watch"),
        ("--show", "comet", "--all", "off"),
    ],
)
def test_wrong_arguments_are_exit_code_2(retally: Retally, args: tuple[str, ...]) -> None:
    assert retally("unmanaged", *args).exit_code == 2
