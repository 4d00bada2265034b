"""``retally bench dispatch``: what it prints, draws and leaves behind; never how fast it was."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from retally.bench.dispatch.ground import Ground
from retally.bench.dispatch.records import Action, Cell, Mode, Plan, Spec
from retally.bench.dispatch.run import specs
from retally.bench.dispatch.summary import bars, lines, ratio
from retally.bench.place import own_database
from retally.cli import main
from retally.procedures.journal import TRIGGERS, JournalState, journal_state
from retally.sql.connect import connect

if TYPE_CHECKING:
    from pathlib import Path

    from retally.bench.records import Bar
    from retally.sql.embedded import EmbeddedServer


def databases(server: EmbeddedServer) -> list[str]:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'retally_bench%'"
        return [str(row[0]) for row in conn.execute(query)]


def cell(mode: Mode, clients: int, per_second: float, number: int = 1, **more: Any) -> Cell:
    spec = Spec(
        mode=mode, clients=clients, **{k: more.pop(k) for k in ("batch", "journaled") if k in more}
    )
    values: dict[str, Any] = {
        "procs": int(per_second), "seconds": 1.0, "p50_ms": 1.0, "p99_ms": 2.0, "deadlocks": 0,
        "errors": (), "recomputes": 0, "rows_adrift": None, "slots_adrift": 0,
    }  # fmt: skip
    return Cell(spec=spec, round=number, **values | more)


def bar(cells: list[Cell], start: str) -> Bar:
    (found,) = [bar for bar in bars(cells) if bar.promise.startswith(start)]
    return found


def test_a_small_run_measures_every_mode_and_leaves_nothing(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    plot, file = tmp_path / "plot.svg", tmp_path / "run.json"
    # on a terminal Ctrl-C and a spawned child both need the real program
    result = subprocess.run(
        [
            sys.executable, "-m", "retally.cli", "bench", "dispatch", "--dsn", server.dsn(),
            "--clients", "1,2", "--seconds", "0.2", "--rounds", "1", "--hosts", "20",
            "--plot", str(plot), "--json", str(file), "--format", "csv",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert databases(server) == []

    run = json.loads(file.read_text())
    cells = run["cells"]
    assert len(cells) == len(specs(Plan(clients=(1, 2))))
    assert all(cell["procs"] > 0 for cell in cells)
    assert all(cell["deadlocks"] == 0 and cell["errors"] == [] for cell in cells)
    unmanaged = [c for c in cells if c["spec"]["mode"] in {Mode.FLAG_OFF, Mode.INLINE}]
    assert {c["rows_adrift"] for c in unmanaged} == {0}
    assert {c["slots_adrift"] for c in cells} == {0}
    assert run["place"]["server"].startswith("PostgreSQL")

    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == len(cells)
    assert {row["what"] for row in rows} >= {f"book: {mode}" for mode in Mode}
    texts = {text.strip() for element in ET.parse(plot).iter() for text in element.itertext()}
    assert {*Mode, "bookings per second", "clients"} <= texts


def test_ctrl_c_drops_the_database(server: EmbeddedServer) -> None:
    command = [
        sys.executable, "-m", "retally.cli", "bench", "dispatch", "--dsn", server.dsn(),
        "--clients", "2", "--seconds", "60", "--hosts", "20",
    ]  # fmt: skip
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, start_new_session=True, env=os.environ | {"TERM": "dumb"}
    ) as process:
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%book_proc%%' AND pid"
            while not conn.execute(f"{busy} <> pg_backend_pid()").fetchall()[0][0]:
                assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the clients get it, too
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.decode().strip().endswith("Aborted!")
    assert databases(server) == []


def test_without_matplotlib_a_plot_is_refused_before_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    plot = str(tmp_path / "plot.png")
    # nobody listens there: the run would fail in another way
    result = CliRunner().invoke(
        main, ["bench", "dispatch", "--dsn", f"host={tmp_path}", "--plot", plot]
    )
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: a plot needs matplotlib, which is not installed: pip install 'retally[bench]'\n"
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plot", "plot.pdf"], "ends neither in .svg nor in .png"),
        (["--plot", "nowhere/plot.svg"], "there is no directory for nowhere/plot.svg"),
        (["--clients", "4,none"], "is not a list of numbers above 0"),
    ],
)
def test_what_cannot_work_is_refused_as_wrong_usage(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["bench", "dispatch", *arguments])
    assert result.exit_code == 2
    assert said in result.stderr


def test_too_few_connections_are_named(server: EmbeddedServer) -> None:
    result = CliRunner().invoke(
        main, ["bench", "dispatch", "--dsn", server.dsn(), "--clients", "5000"]
    )
    assert result.exit_code == 1
    assert "5000 clients need 5006: raise max_connections" in result.stderr
    assert databases(server) == []


def test_ratios_are_taken_within_each_round() -> None:
    on, off = Spec(mode=Mode.FLAG_ON, clients=64), Spec(mode=Mode.FLAG_OFF, clients=64)
    # a machine that is three times as fast in the second round, and ten times in the third
    cells = [
        cell(mode, 64, speed * rate, number)
        for number, speed in ((1, 1), (2, 3), (3, 10))
        for mode, rate in ((Mode.FLAG_ON, 700), (Mode.FLAG_OFF, 100))
    ]
    assert ratio(cells, on, off) == 7.0
    assert ratio(cells, on, replace(off, clients=1)) is None
    by_spec = {line.spec: line for line in lines(cells)}
    assert by_spec[off].per_second == 300
    assert by_spec[off].flag_on_times == 7.0
    assert by_spec[on].flag_on_times is None


def test_a_bar_is_met_or_not_or_was_not_measured() -> None:
    on, off = cell(Mode.FLAG_ON, 64, 500), cell(Mode.FLAG_OFF, 64, 100)
    assert bar([on, off], "flag on at least 5 times").met is True
    assert bar([on, cell(Mode.FLAG_OFF, 64, 101)], "flag on at least 5 times").met is False
    assert bar([on], "flag on at least 5 times").met is None
    cost = "flag on, journaled at most 1.25 times"
    journaled = [cell(Mode.FLAG_ON, 64, 400, journaled=True), cell(Mode.FLAG_ON, 16, 500)]
    assert bar([on, *journaled], cost).met is True
    assert bar([on, *journaled, cell(Mode.FLAG_ON, 16, 399, journaled=True)], cost).met is False
    assert bar([on], cost).met is bar(journaled, cost).met is None
    assert bar([on, *journaled], cost).measured == "1.25 at 64 clients"
    bare = [cell(Mode.BARE, 64, 400), cell(Mode.BARE, 1, 95), cell(Mode.FLAG_ON, 1, 100)]
    assert bar([on, *bare], "flag on at least 1.2 times").met is False
    steady = [cell(Mode.FLAG_ON, n, rate) for n, rate in ((16, 100), (64, 120), (256, 81))]
    assert bar(steady, "flag on: no fall").met is True
    assert bar([*steady[:2], cell(Mode.FLAG_ON, 256, 79)], "flag on: no fall").met is False
    assert bar(steady[:2], "flag on: no fall").met is None
    assert bar([cell(Mode.FLAG_ON, 8, 11_999, batch=100)], "batches").met is False
    assert bar([cell(Mode.FLAG_ON, 8, 1, deadlocks=1)], "no deadlocks, flag on").met is False
    wrong = cell(Mode.FLAG_OFF, 8, 1, rows_adrift=1, errors=("40P01 times 2",))
    assert bar([wrong], "no totals").met is False
    assert bar([wrong], "no errors").measured == "2 in 1 cells"


def test_what_the_journal_costs_is_measured_beside_the_same_without_it() -> None:
    for number in range(2):
        cells = specs(Plan(clients=(1, 16, 64)), number)
        journaled = [spec for spec in cells if spec.journaled]
        assert {(spec.action, spec.clients, spec.batch) for spec in journaled} == {
            (Action.BOOK, 16, 1),
            (Action.BOOK, 64, 1),
            (Action.BOOK, 8, 100),
            (Action.RELEASE, 16, 1),
        }
        for spec in journaled:
            there = cells.index(spec)
            assert cells[there + (1 if number else -1)] == replace(spec, journaled=False)


def test_a_journal_is_there_for_its_cells_only_and_no_entry_is_lost_unseen(
    server: EmbeddedServer,
) -> None:
    plain = Spec(mode=Mode.FLAG_ON, clients=1, action=Action.RELEASE)
    journaled = replace(plain, journaled=True)
    with own_database(server.dsn()) as dsn, connect(dsn) as conn:
        ground = Ground(conn, dsn, hosts=5, frames=40, seed=1)
        ground.reset(journaled)
        assert journal_state(conn) == JournalState(TRIGGERS, 0, 0)
        conn.execute("DELETE FROM proc")
        assert journal_state(conn).entries == ground.frames_for(plain) > 0
        assert ground.rows_adrift(plain) is None
        assert ground.rows_adrift(journaled) == 0
        conn.execute("UPDATE point SET int_cores = int_cores + 1")
        assert ground.rows_adrift(journaled) == 1
        for mode in (Mode.FLAG_ON, Mode.FLAG_OFF):
            ground.reset(journaled)
            ground.reset(replace(plain, mode=mode))
            assert journal_state(conn) == JournalState(0, 0, 0)


def test_each_round_begins_with_another_mode() -> None:
    plan = Plan(clients=(4,))
    first = [specs(plan, number)[0].mode for number in range(4)]
    assert sorted(first) == sorted(Mode)
    assert {frozenset(specs(plan, number)) for number in range(4)} == {frozenset(specs(plan))}
    assert {spec.action for spec in specs(plan)} == set(Action)
