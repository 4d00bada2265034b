"""``retally bench admission``: what it promises, prints and refuses."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from retally.bench.admission import Part, Plan, Run
from retally.bench.admission.records import (
    Call,
    CapsCell,
    Cell,
    Cells,
    RecountCell,
    Spec,
    StoreCell,
)
from retally.bench.admission.run import RELEASE_BATCHES, specs
from retally.bench.admission.summary import bars, costs, lines
from retally.bench.dispatch.records import Action
from retally.bench.records import Place
from retally.cli import main

if TYPE_CHECKING:
    from retally.bench.records import Bar

BOOK = Spec(action=Action.BOOK, clients=64)
RELEASE = Spec(action=Action.RELEASE, clients=16)


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["bench", "admission", *arguments])


def cell(spec: Spec, per_second: float, number: int = 1, **more: Any) -> Cell:
    values: dict[str, Any] = {
        "procs": int(per_second), "seconds": 1.0, "p50_ms": 1.0, "p99_ms": 2.0, "deadlocks": 0,
        "errors": (), "slots_adrift": 0,
    }  # fmt: skip
    return Cell(spec=spec, round=number, **values | more)


def pairs(call: Call, per_second: int, number: int = 1) -> StoreCell:
    return StoreCell(call=call, round=number, calls=per_second, seconds=1.0)


def recount(hold_ms: float, vertices: int = 100_000, number: int = 1) -> RecountCell:
    return RecountCell(
        vertices=vertices, round=number, seconds=1.0, hold_ms=hold_ms, hold_but_gc_ms=1.0,
        gc_ms=2.0, wait_ms=None, bookings=None,
    )  # fmt: skip


def caps(**more: Any) -> CapsCell:
    values: dict[str, Any] = {
        "asked": 1000, "clients": 8, "shows": 4, "bookings": 1000, "per_second": 500.0,
        "refusals": 900, "looks": 10, "over_bookings": 0, "examples": (), "deadlocks": 0,
        "errors": (), "slots_adrift": 0,
    }  # fmt: skip
    return CapsCell(**values | more)


def bar(start: str, **cells: Any) -> Bar:
    (found,) = [bar for bar in bars(Cells(**cells)) if bar.promise.startswith(start)]
    return found


def a_run(**more: Any) -> Run:
    cells = Cells(
        store=tuple(pairs(call, 400_000) for call in Call),
        recounts=(recount(12.5), replace(recount(19.0), wait_ms=33.0, bookings=1000)),
        served=(
            cell(replace(BOOK, admission=False), 1000),
            cell(BOOK, 950),
            cell(replace(RELEASE, notify=False), 3000),
            cell(RELEASE, 1500),
        ),
        caps=(caps(**more),),
    )
    where = Place(server="PostgreSQL 0", cpus=2, python="3", settings=(("fsync", "on"),))
    return Run(plan=Plan(), place=where, cells=cells, lines=lines(cells), bars=bars(cells))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--parts", "store,none"], "there is no part 'none'; there are store, recount, book"),
        (["--parts", "caps", "--plot", "plot.svg"], "a plot shows the part book"),
        (["--clients", "0"], "is not a list of numbers above 0"),
        (["--bookings", "0"], "0 is not in the range"),
    ],
)
def test_what_cannot_work_is_refused_as_wrong_usage(arguments: list[str], said: str) -> None:
    result = bench(*arguments)
    assert result.exit_code == 2
    assert said in result.stderr


def test_the_bar_of_the_store_is_on_bookings_with_gpus_too() -> None:
    start = "Store.book and confirm"
    good = [pairs(Call.PAIR, 300_000), pairs(Call.GPU_PAIR, 300_000)]
    assert bar(start, store=good).met is True
    assert bar(start, store=[good[0], pairs(Call.GPU_PAIR, 299_999)]).met is False
    assert bar(start, store=[good[0], pairs(Call.REFUSAL, 1)]).met is None
    # the median of the rounds
    rounds = [*good, pairs(Call.PAIR, 1, 2), pairs(Call.PAIR, 400_000, 3)]
    assert bar(start, store=rounds).measured == "300,000, with GPUs 300,000"


def test_the_bar_of_the_lock_is_on_the_longest_hold_of_a_big_store() -> None:
    start = "a recount of 100,000 vertices"
    assert bar(start, recounts=[recount(19.9), recount(5.0)]).met is True
    long = bar(start, recounts=[recount(5.0), recount(20.0), recount(5.0)])
    assert (long.met, long.measured) == (False, "20.0 ms; but for gc 1.0 ms")
    assert bar(start, recounts=[recount(20.0, 99_999)]).measured == "not measured"


def test_the_bar_of_the_bookings_is_on_ratios_within_each_round_at_64_clients() -> None:
    start, without = "with admission at least 0.90 times", replace(BOOK, admission=False)
    # a machine that is three times as fast in the second round, and ten times in the third
    rounds = [
        cell(spec, speed * rate, number)
        for number, speed in ((1, 1), (2, 3), (3, 10))
        for spec, rate in ((BOOK, 900), (without, 1000))
    ]
    assert bar(start, served=rounds).met is True
    assert bar(start, served=[cell(BOOK, 899), cell(without, 1000)]).met is False
    assert bar(start, served=[cell(BOOK, 899)]).met is None
    few = [cell(replace(spec, clients=16), 100) for spec in (BOOK, without)]
    assert bar(start, served=few).met is None
    by_what = {line.what: line for line in lines(Cells(served=tuple(rounds)))}
    assert by_what["book: with admission"].times == 0.9
    assert by_what["book: without admission"].times is None
    assert by_what["book: with admission"].per_second == 2700


def test_one_over_booking_breaks_its_bar_and_few_looks_do_not_keep_it() -> None:
    start = "no over-booking"
    assert bar(start, caps=[caps()]).met is True
    assert bar(start, caps=[caps(over_bookings=1)]).met is False
    assert bar(start, caps=[caps(over_bookings=1, looks=2)]).met is False
    assert bar(start, caps=[caps(looks=9)]).met is None
    assert bar(start, caps=[caps(bookings=999)]).met is None
    assert bar(start).measured == "not measured"


@pytest.mark.parametrize(
    ("start", "bad"),
    [
        ("no deadlocks", {"deadlocks": 1}),
        ("no errors of any kind", {"errors": ("RT019 times 2",)}),
        ("no idle amounts", {"slots_adrift": 1}),
    ],
)
def test_what_goes_wrong_in_any_cell_breaks_its_bar(start: str, bad: dict[str, Any]) -> None:
    assert bar(start, served=[cell(BOOK, 1)], caps=[caps()]).met is True
    assert bar(start, served=[cell(BOOK, 1), cell(RELEASE, 1, **bad)]).met is False
    assert bar(start, served=[cell(BOOK, 1)], caps=[caps(**bad)]).met is False
    assert bar(start).met is None


def test_what_notifications_cost_is_said() -> None:
    many = replace(RELEASE, batch=100)
    cells = [cell(RELEASE, 400), cell(replace(RELEASE, notify=False), 1000)]
    cells += [cell(many, 900), cell(replace(many, notify=False), 900)]
    assert costs(lines(Cells(served=tuple(cells)))) == (
        "notify on costs: release takes 2.50 times as long",
        "notify on costs: release 100 a call takes 1.00 times as long",
    )


def test_which_one_of_a_pair_comes_first_takes_turns() -> None:
    plan = Plan(clients=(1, 64))
    first, second = specs(plan), specs(plan, 1)
    assert len(first) == 2 * (2 + len(RELEASE_BATCHES))
    assert [spec.admission for spec in first[:4]] == [False, True, False, True]
    assert [spec.admission for spec in second[:4]] == [True, False, True, False]
    assert [spec.notify for spec in first[4:]] == [False, True, False, True]
    assert [spec.notify for spec in second[4:]] == [True, False, True, False]
    assert {*first} == {*second}
    assert specs(replace(plan, parts=(Part.STORE, Part.CAPS))) == []


def test_every_format_tells_of_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    # the package hands out a function of the same name
    command = sys.modules["retally.cli.bench_admission"]
    monkeypatch.setattr(command, "run", lambda *_: a_run())
    table = bench().stdout
    for said in ("400,000", "19.00", "33.00", "0.95", "1,500", "over-bookings", "900"):
        assert said in table
    assert "notify on costs: release takes 2.00 times as long" in table
    assert "no over-booking while shows are at their caps, in at least 10 looks" in table

    markdown = bench("--format", "markdown").stdout
    assert "| book: with admission | 64 | 950 | 0.95 | 1.00 | 2.00 | 0 | 0 |" in markdown
    assert "| 4 shows at their caps | 8 | 500 | 1,000 | 900 | 10 | 0 | 0 | 0 |" in markdown

    run = json.loads(bench("--format", "json").stdout)
    assert run["cells"]["caps"][0]["refusals"] == 900
    assert {each["met"] for each in run["bars"]} == {True}

    rows = list(csv.DictReader(io.StringIO(bench("--format", "csv").stdout)))
    assert len(rows) == len(a_run().lines)
    assert (rows[0]["what"], rows[0]["clients"]) == ("Store.book and confirm", "")
    assert rows[-1]["looks"] == "10"


def test_an_over_booking_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    command = sys.modules["retally.cli.bench_admission"]
    bad = a_run(over_bookings=1, examples=("job 7: 300 of 200 core units, 0 of 1 GPUs",))
    monkeypatch.setattr(command, "run", lambda *_: bad)
    result = bench()
    assert result.exit_code == 0
    assert "over-booked: job 7: 300 of 200 core units, 0 of 1 GPUs" in result.stderr
