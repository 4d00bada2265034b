"""``retally bench recompute``: what it promises, prints, draws, refuses and leaves behind."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from collections import Counter
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from click.testing import CliRunner

from retally.bench.recompute import Plan, Run, Scenario
from retally.bench.recompute.bars import bars
from retally.bench.recompute.plot import draw
from retally.bench.recompute.records import Cell, Method, Size, Spec
from retally.bench.recompute.summary import lines, ratio
from retally.bench.records import Place
from retally.cli import main

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from retally.bench.records import Bar
    from retally.sql.embedded import EmbeddedServer

QUIET, BUSY_1, BUSY_10, COLD, CHANGED_1000 = Scenario
# the package hands out a function of the same name
running: Any = sys.modules["retally.bench.recompute.run"]


def cell(scenario: Scenario, method: Method, seconds: float, number: int = 1, **more: Any) -> Cell:
    spec = Spec(procs=more.pop("procs", 200_000), scenario=scenario, method=method)
    values: dict[str, Any] = {
        "calls": 1, "wal_bytes": 0, "rows_written": 0, "dead_rows": 0, "buffers": 0,
        "rows_wrong": 0, "slots_adrift": None,
    }  # fmt: skip
    return Cell(spec=spec, round=number, seconds=seconds, **values | more)


def size(procs: int = 200_000, one_show: int = 10_000) -> Size:
    return Size(
        procs=procs, hosts=1, shows=20, jobs=1, finished_jobs=1, layers=1, one_show=one_show
    )


def bar(cells: Sequence[Cell], start: str, sizes: Sequence[Size] = (size(),)) -> Bar:
    (found,) = [bar for bar in bars(cells, sizes) if bar.promise.startswith(start)]
    return found


def a_run(*sizes: Size) -> Run:
    cells = [
        cell(scenario, method, 1.0 + place, procs=one.procs, wal_bytes=1_234_567)
        for one in sizes
        for scenario in Scenario
        for place, method in enumerate(Method)
    ]
    return Run(
        plan=Plan(procs=tuple(one.procs for one in sizes)),
        place=Place(server="PostgreSQL 0", cpus=2, python="3", settings=(("fsync", "on"),)),
        sizes=sizes,
        cells=tuple(cells),
        lines=lines(cells),
        bars=bars(cells, sizes),
    )


def databases(server: EmbeddedServer) -> list[str]:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'retally_bench%'"
        return [str(row[0]) for row in conn.execute(query)]


def program(server: EmbeddedServer, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "retally.cli", "bench", "recompute", "--dsn", server.dsn(),
            "--rounds", "1", *arguments]  # fmt: skip


@pytest.mark.parametrize(
    ("scenario", "method", "other", "start", "most"),
    [
        (QUIET, Method.ALL, Method.TABLES, "quiet: retally, all shows takes at most 1/6 of", 1 / 6),
        (QUIET, Method.ALL, Method.LIMIT, "quiet: retally, all shows takes at most 6 times", 6),
        (BUSY_1, Method.ALL, Method.TABLES, "busy 1 %", 1 / 4),
        (BUSY_10, Method.ALL, Method.TABLES, "busy 10 %", 1 / 3),
        (COLD, Method.ALL, Method.TABLES, "cold: retally, all shows takes at most 1/2 of", 1 / 2),
        (COLD, Method.ALL, Method.ROWS, "cold: retally, all shows takes at most as long", 1),
        (QUIET, Method.ONE, Method.ALL, "quiet: retally, one show", 1 / 15),
    ],
)
def test_a_bar_of_times_is_met_or_not_or_was_not_measured(
    scenario: Scenario, method: Method, other: Method, start: str, most: float
) -> None:
    below = cell(scenario, other, 12.0)
    assert bar([cell(scenario, method, 12 * most * 0.999), below], start).met is True
    assert bar([cell(scenario, method, 12 * most * 1.001), below], start).met is False
    assert bar([below], start).met is None
    assert bar([below], start).measured == "not measured"


def test_a_fold_of_1000_procs_is_held_against_a_quiet_pass_of_a_big_farm() -> None:
    start, big = "journaled, 1,000 changed procs: a tick under 1/50 of the quiet", size(2_000_000)

    def cells(seconds: float, procs: int, number: int = 1, slow: float = 1) -> list[Cell]:
        return [
            cell(CHANGED_1000, Method.JOURNAL, seconds * slow, number, procs=procs),
            cell(QUIET, Method.ALL, 5.0 * slow, number, procs=procs),
        ]

    assert bar(cells(0.0999, 2_000_000), start, [big]).met is True
    assert bar(cells(0.1, 2_000_000), start, [big]).met is False
    # the ratio is taken within each round, on a machine that is slower in the second
    rounds = [*cells(0.099, 2_000_000), *cells(0.099, 2_000_000, 2, 7), *cells(1, 2_000_000, 3)]
    assert bar(rounds, start, [big]).met is True
    small = bar(cells(0.25, 200_000), start)
    assert (small.met, small.measured) == (None, "not measured; 1/20.0 at 200,000")
    both = [*cells(1.0, 200_000), *cells(0.05, 2_000_000)]
    assert bar(both, start, [size(), big]).met is True
    assert bar(cells(0.05, 2_000_000)[:1], start, [big]).measured == "not measured"


def test_a_share_is_written_as_a_share() -> None:
    cells = [cell(QUIET, Method.ALL, 1.0), cell(QUIET, Method.TABLES, 8.0)]
    assert bar(cells, "quiet: retally, all shows takes at most 1/6").measured == "1/8.0 at 200,000"


def test_bars_of_counts_look_at_every_round() -> None:
    good = cell(QUIET, Method.ALL, 1.0, wal_bytes=9_999)
    rows, wal = "quiet: retally, all shows: no row", "quiet: retally, all shows: WAL"
    assert bar([good], rows).met is bar([good], wal).met is True
    bad = cell(QUIET, Method.ALL, 1.0, 2, wal_bytes=10_000, rows_written=1)
    assert bar([good, bad], rows).met is bar([good, bad], wal).met is False
    other = cell(COLD, Method.ALL, 1.0, rows_written=1)
    assert bar([other], rows).met is None


def test_one_wrong_row_after_a_pass_of_retally_breaks_its_bar() -> None:
    start = "no total wrong"
    assert bar([cell(COLD, Method.TABLES, 1.0, rows_wrong=9)], start).met is None
    assert bar([cell(COLD, Method.ALL, 1.0)], start).met is True
    assert bar([cell(COLD, Method.BY_SHOW, 1.0, rows_wrong=1)], start).met is False
    assert bar([cell(COLD, Method.ALL, 1.0, slots_adrift=1)], start).met is False


def test_growth_is_measured_between_sizes_that_are_far_apart() -> None:
    def cells(large: int, times: float) -> list[Cell]:
        return [
            cell(QUIET, method, seconds, procs=procs)
            for procs, seconds, method in (
                (100_000, 0.4, Method.ALL), (100_000, 0.1, Method.LIMIT),
                (large, 4 * times, Method.ALL), (large, 1.0, Method.LIMIT),
            )
        ]  # fmt: skip

    start = "quiet: the ratio"
    ends = [size(100_000), size(2_000_000)]
    assert bar(cells(2_000_000, 1.29), start, ends).met is True
    assert bar(cells(2_000_000, 1.31), start, ends).met is False
    assert bar(cells(900_000, 1.0), start, [size(100_000), size(900_000)]).met is None
    assert bar(cells(2_000_000, 1.0)[:3], start, ends).met is None


def test_a_show_of_another_size_says_nothing_of_one_of_10000() -> None:
    cells = [cell(QUIET, Method.ONE, 0.01), cell(QUIET, Method.ALL, 1.0)]
    assert bar(cells, "quiet: retally, one show", [size(one_show=27_000)]).met is None


def test_a_promise_has_to_hold_at_every_size() -> None:
    cells = [
        cell(COLD, method, seconds, procs=procs)
        for procs, seconds in ((100_000, 1.0), (200_000, 3.0))
        for method, seconds in ((Method.ALL, seconds), (Method.ROWS, 2.0))
    ]
    found = bar(cells, "cold: retally, all shows takes at most as long", [size(100_000), size()])
    assert found.met is False
    assert found.measured == "0.50 at 100,000, 1.50 at 200,000"


def test_ratios_are_taken_within_each_round() -> None:
    # a machine that is three times as slow in the second round, and ten times in the third
    cells = [
        cell(QUIET, method, seconds * slow, number)
        for number, slow in ((1, 1), (2, 3), (3, 10))
        for method, seconds in ((Method.ALL, 2.0), (Method.TABLES, 14.0), (Method.LIMIT, 1.0))
    ]
    above, below = (
        Spec(procs=200_000, scenario=QUIET, method=method) for method in (Method.TABLES, Method.ALL)
    )
    assert ratio(cells, above, below) == 7.0
    by_method = {line.spec.method: line for line in lines(cells)}
    assert by_method[Method.TABLES].seconds == 42.0
    assert by_method[Method.TABLES].retally_times == 7.0
    assert by_method[Method.TABLES].limit_times == 14.0
    assert by_method[Method.ALL].retally_times is None
    assert lines(cells[:1])[0].limit_times is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--plot", "plot.pdf"], "ends neither in .svg nor in .png"),
        (["--json", "nowhere/run.json"], "there is no directory for nowhere/run.json"),
        (["--procs", "10000,none"], "is not a list of numbers above 0"),
        (["--procs", "10000,2000001"], "--procs goes from 1,000 to 2,000,000"),
        (["--procs", "999"], "--procs goes from 1,000 to 2,000,000"),
        (["--scenarios", "quiet,hot"], "there is no scenario 'hot'"),
        (["--methods", "all,magic"], "there is no method 'magic'; there are all, shows, one, jour"),
        (["--methods", ""], "there is no method ''"),
        (["--methods", "one", "--scenarios", "cold"], "none of these --methods is measured in"),
        (["--parallel", "-1"], "-1 is not in the range"),
        (["--parallel", "two"], "'two' is not a valid integer"),
        (["--rounds", "0"], "0 is not in the range"),
        (["--seed", str(2**63)], "is not in the range"),
    ],
)
def test_what_cannot_work_is_refused_as_wrong_usage(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(main, ["bench", "recompute", *arguments])
    assert result.exit_code == 2
    assert said in " ".join(result.stderr.split())


def test_a_small_run_measures_every_method_and_leaves_nothing(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    plot, file = tmp_path / "plot.svg", tmp_path / "run.json"
    result = subprocess.run(
        program(
            server, "--procs", "1000", "--scenarios", "busy10,quiet", "--parallel", "1",
            "--plot", str(plot), "--json", str(file), "--format", "csv",
        ),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert databases(server) == []

    run = json.loads(file.read_text())
    assert {c["spec"]["scenario"] for c in run["cells"]} == {QUIET, BUSY_10}
    assert {c["spec"]["method"] for c in run["cells"]} == set(Method)
    assert all(c["seconds"] > 0 for c in run["cells"])
    settings = dict(run["place"]["settings"])
    assert (settings["jit"], settings["work_mem"]) == ("off", "64MB")
    assert settings["max_parallel_workers_per_gather"] == "1"
    assert "random_page_cost" in settings
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert len(rows) == len(run["cells"])
    assert {row["procs"] for row in rows} == {"1000"}
    texts = {text.strip() for element in ET.parse(plot).iter() for text in element.itertext()}
    assert {Method.ALL, Method.LIMIT, QUIET, BUSY_10} <= texts


def test_only_what_was_asked_for_is_measured(server: EmbeddedServer) -> None:
    arguments = ("--procs", "1000", "--methods", "limit,journal", "--format", "json")
    result = subprocess.run(
        program(server, *arguments, "--scenarios", "cold,changed1000"),
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    specs = [cell["spec"] for cell in json.loads(result.stdout)["cells"]]
    assert [(spec["scenario"], spec["method"]) for spec in specs] == [
        (COLD, Method.LIMIT),
        (CHANGED_1000, Method.JOURNAL),
        (CHANGED_1000, Method.LIMIT),
    ]


def test_a_slow_method_is_measured_once_and_a_quick_one_in_every_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def instead(_farm: object, _counters: object, spec: Spec, number: int) -> Cell:
        slow = spec.method in {Method.ALL, Method.ROWS}
        return cell(spec.scenario, spec.method, 60.0 if slow else 0.1, number)

    farm = SimpleNamespace(
        size=size(), has=lambda _: True, enter=lambda _: None, session=contextlib.nullcontext
    )
    monkeypatch.setattr(running, "own_database", contextlib.nullcontext)
    monkeypatch.setattr(running, "Farm", lambda *_: farm)
    monkeypatch.setattr(running, "Counters", lambda _: None)
    monkeypatch.setattr(running, "place", lambda *_: "here")
    monkeypatch.setattr(running, "measured", instead)
    outcome = running.run("", Plan(scenarios=(COLD,)), lambda *_: None)
    counts = Counter(c.spec.method for c in outcome.cells)
    assert counts[Method.ROWS] == 1
    assert counts[Method.ALL] == counts[Method.TABLES] == 3


def test_ctrl_c_drops_the_database(server: EmbeddedServer) -> None:
    with subprocess.Popen(
        program(server, "--procs", "2000", "--rounds", "1000"),
        stderr=subprocess.PIPE, start_new_session=True, env=os.environ | {"TERM": "dumb"},
    ) as process:  # fmt: skip
        with psycopg.connect(server.dsn(), autocommit=True) as conn:
            busy = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%%recompute_%%' AND pid"
            while not conn.execute(f"{busy} <> pg_backend_pid()").fetchall()[0][0]:
                assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 1
    assert said.decode().strip().endswith("Aborted!")
    assert databases(server) == []


@pytest.mark.parametrize("style", ["table", "markdown"])
def test_tables_name_sizes_methods_and_bars(monkeypatch: pytest.MonkeyPatch, style: str) -> None:
    outcome = a_run(size(), size(2_000_000, 27_000))
    monkeypatch.setattr("retally.cli.bench_recompute.run", lambda *_: outcome)
    result = CliRunner().invoke(main, ["bench", "recompute", "--format", style])
    assert result.exit_code == 0
    for line in (
        "200,000 procs: 20 shows, 2 jobs, 1 layers; the one show has 10,000",
        "2,000,000 procs: 20 shows, 2 jobs, 1 layers; the one show has 27,000",
    ):
        assert line in result.stdout
    found = [line for line in result.stdout.splitlines() if Method.TABLES in line]
    assert sum("1.2 MB" in line for line in found) == 2 * len(Scenario)
    assert "rows left wrong" in result.stdout
    assert "no total wrong after a pass of retally" in result.stdout
    assert "PostgreSQL 0, 2 CPUs, Python 3; rounds: 3, seed 1" in result.stderr
    assert ("| --- | --- | ---: |" in result.stdout) == (style == "markdown")


@pytest.mark.parametrize("suffix", ["svg", "png"])
@pytest.mark.parametrize("sizes", [(size(),), (size(), size(2_000_000))])
def test_a_run_of_any_number_of_sizes_can_be_drawn(
    tmp_path: Path, suffix: str, sizes: tuple[Size, ...]
) -> None:
    path = tmp_path / f"plot.{suffix}"
    draw(a_run(*sizes), path)
    if suffix == "svg":
        texts = {text.strip() for element in ET.parse(path).iter() for text in element.itertext()}
        axis = "times as long as the limit" if len(sizes) > 1 else "seconds of a pass, log scale"
        assert {axis, *Method} <= texts
    else:
        assert path.read_bytes().startswith(b"\x89PNG")
