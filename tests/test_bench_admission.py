"""``retally bench admission``: what it measures, finds and leaves; never how fast it was."""

from __future__ import annotations

import csv
import gc
import io
import json
import subprocess
import sys
import threading
import time
import xml.etree.ElementTree as ET
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import psycopg
import pytest
from click.testing import CliRunner

from retally.bench.admission import Part, Plan
from retally.bench.admission.caps import Looks, Quota, TightClient
from retally.bench.admission.cell import CAPS_SHOWS, measured_caps
from retally.bench.admission.ground import TightGround
from retally.bench.admission.memory import measured_calls
from retally.bench.admission.records import Call
from retally.bench.admission.recount import TimedLock, Watch, measured_recount
from retally.bench.admission.run import specs
from retally.bench.errors import BenchError
from retally.bench.logs import Log, Window
from retally.bench.place import own_database
from retally.cli import main
from retally.dispatch import Booking
from retally.dispatch.admission import Store
from retally.procedures.booking import Answer
from retally.sql.connect import connect
from retally.sql.errors import JustTakenError, OverCapError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from retally.sql.embedded import EmbeddedServer


def databases(server: EmbeddedServer) -> list[str]:
    with psycopg.connect(server.dsn(), autocommit=True) as conn:
        query = "SELECT datname FROM pg_database WHERE datname LIKE 'retally_bench%'"
        return [str(row[0]) for row in conn.execute(query)]


def bench(*arguments: str) -> Any:
    return CliRunner().invoke(main, ["bench", "admission", *arguments])


def test_a_small_run_measures_every_part_and_leaves_nothing(
    server: EmbeddedServer, tmp_path: Path
) -> None:
    plot, file = tmp_path / "plot.svg", tmp_path / "run.json"
    # spawned children need the real program
    result = subprocess.run(
        [
            sys.executable, "-m", "retally.cli", "bench", "admission", "--dsn", server.dsn(),
            "--clients", "1,2", "--seconds", "0.2", "--rounds", "1", "--hosts", "20",
            "--vertices", "500", "--bookings", "2000",
            "--plot", str(plot), "--json", str(file), "--format", "csv",
        ],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert databases(server) == []

    run = json.loads(file.read_text())
    cells = run["cells"]
    assert [each["call"] for each in cells["store"]] == [*Call]
    alone, booked_beside = cells["recounts"]
    assert alone["vertices"] == 500
    assert alone["wait_ms"] is None
    assert booked_beside["wait_ms"] > 0
    assert booked_beside["bookings"] > 0
    assert len(cells["served"]) == len(specs(Plan(clients=(1, 2)))) == 8
    assert all(each["procs"] > 0 for each in cells["served"])
    (at_caps,) = cells["caps"]
    assert at_caps["bookings"] >= 2000
    assert at_caps["refusals"] > 0
    assert at_caps["looks"] > 0
    assert at_caps["over_bookings"] == 0
    for each in (*cells["served"], at_caps):
        assert (each["errors"], each["deadlocks"], each["slots_adrift"]) == ([], 0, 0)
    assert run["place"]["server"].startswith("PostgreSQL")

    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert {row["part"] for row in rows} == {*Part}
    assert len(rows) == len(run["lines"])
    texts = {text.strip() for element in ET.parse(plot).iter() for text in element.itertext()}
    assert {"book: with admission", "book: without admission", "bookings per second"} <= texts


def test_the_store_needs_no_server(tmp_path: Path) -> None:
    result = bench(
        "--parts", "store,recount", "--seconds", "0.1", "--rounds", "1", "--vertices", "200",
        "--dsn", f"host={tmp_path}",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    assert "Store.book, refused" in result.stdout
    assert "recount of 200 vertices, booked beside it" in result.stdout
    assert "no server" in result.stderr
    assert "settings" not in result.stderr


def test_too_few_connections_are_named(server: EmbeddedServer) -> None:
    result = bench("--dsn", server.dsn(), "--parts", "book", "--clients", "5000")
    assert result.exit_code == 1
    assert "5000 clients need" in result.stderr
    assert databases(server) == []


@pytest.fixture
def tight(server: EmbeddedServer) -> Iterator[TightGround]:
    with own_database(server.dsn()) as dsn, connect(dsn) as conn:
        yield TightGround(conn, dsn, shows=1, clients=1, seed=1)


def looked(ground: TightGround) -> Counter[str]:
    looks, stop = Looks(ground.dsn), threading.Event()
    stop.set()
    looks(stop)
    assert looks.looks == 1
    assert looks.over_bookings >= len(looks.examples)
    return Counter(example.split()[0] for example in looks.examples)


def test_a_look_finds_every_cap_that_was_passed_and_no_other(tight: TightGround) -> None:
    tight.clear(booked=50)
    assert looked(tight) == {}
    for cap, kind in (
        ("subscription SET int_burst", "subscription"),
        ("folder_resource SET int_max_cores", "folder"),
    ):
        tight.conn.execute(f"UPDATE {cap} = 5000".encode())
        assert looked(tight) == {}
        tight.conn.execute(f"UPDATE {cap} = 1".encode())
        assert looked(tight).keys() == {kind}
        tight.conn.execute(f"UPDATE {cap} = 0".encode())
        # a burst of 0 books nothing, a maximum of 0 is none
        assert looked(tight).keys() == ({kind} if kind == "subscription" else set())
        tight.conn.execute(f"UPDATE {cap} = 20000".encode())
    tight.conn.execute("UPDATE proc SET int_gpus_reserved = 1")
    tight.conn.execute("UPDATE folder_resource SET int_max_gpus = 0")
    tight.conn.execute("UPDATE job_resource SET int_max_gpus = 1")
    assert looked(tight).keys() == {"job"}
    tight.conn.execute("UPDATE proc SET b_local = true")
    assert looked(tight) == {}


def test_a_subscription_that_is_not_there_is_one_that_was_passed(tight: TightGround) -> None:
    tight.clear(booked=50)
    tight.conn.execute("DELETE FROM subscription")
    assert looked(tight) == {"subscription": 2}


class HalfFull:
    """Stands in for a Dispatcher: books every other one."""

    def __init__(self) -> None:
        self.asked: list[Booking] = []
        self.ended: list[str] = []

    def book_many(self, bookings: Sequence[Booking]) -> list[Answer]:
        self.asked += bookings
        errors = (None, OverCapError(""), None, JustTakenError(""))
        return [
            Answer(each, None if error else f"proc of {each.frame}", error)
            for each, error in zip(bookings, errors, strict=True)
        ]

    def release_many(self, procs: Sequence[str]) -> list[bool]:
        self.ended += procs
        return [True for _ in procs]


def test_a_client_at_the_caps_counts_what_was_refused_and_makes_room_for_it() -> None:
    dispatcher = HalfFull()
    work = [Booking("host", "job", "layer", f"f{nr}", 100, 1) for nr in range(8)]
    client = TightClient(cast("Any", dispatcher), work, Quota(4), 4)
    assert client() == client() == 2
    assert client.refused == {"OverCapError": 2, "JustTakenError": 2}
    assert dispatcher.ended == ["proc of f0", "proc of f2", "proc of f4", "proc of f6"]
    # what was refused, and what was ended, may be booked again
    assert {each.frame for each in client._free} == {each.frame for each in work}
    with pytest.raises(StopIteration):
        client()


def test_refusals_that_no_cap_explains_are_errors(monkeypatch: pytest.MonkeyPatch) -> None:
    log = Log(errors=Counter({"57P01": 1}), refused=Counter(OverCapError=7, MovedError=2))
    log.ends.extend([5, 20])
    log.took.extend([1, 1])
    log.procs.extend([30, 12])
    tasks: list[Any] = []
    crew = SimpleNamespace(
        dealt=lambda clients: [tuple(range(clients))],
        ready=tasks.extend,
        run=lambda *_: (Window(0, 10), [log]),
    )
    ground = SimpleNamespace(dsn="", shows=("a", "b"), deadlocks=lambda: 0, slots_adrift=lambda: 0)
    monkeypatch.setattr("retally.bench.admission.cell.beside", _nothing_beside)
    found = measured_caps(cast("Any", ground), cast("Any", crew), Plan(bookings=40))
    assert (found.refusals, found.errors) == (7, ("57P01 times 1", "MovedError times 2"))
    assert found.bookings == 42
    assert found.per_second == pytest.approx(30 / 1e-8)
    assert [task.bookings for task in tasks] == [40]
    assert tasks[0].shows == ground.shows[:CAPS_SHOWS]


@contextmanager
def _nothing_beside(_work: object) -> Iterator[None]:
    yield


def test_a_lock_is_watched_while_this_thread_has_it() -> None:
    store = Store()
    before = store._lock
    with Watch() as watch, TimedLock(store, watch) as lock:

        def hold() -> None:
            with store._lock:
                time.sleep(0.05)

        other = threading.Thread(target=hold)
        other.start()
        other.join()
        assert lock.longest == 0
        with store._lock, watch.on():
            gc.collect()
        assert lock.longest > lock.longest_but_gc > 0
        assert watch.watched >= watch.longest_pause > 0
        pause = watch.longest_pause
        hold()
        assert lock.longest >= lock.longest_but_gc >= 50_000_000
        gc.collect()  # nobody has the lock, and nothing is watched
        assert watch.longest_pause == pause
    assert store._lock is before


def test_a_store_that_lets_in_what_it_should_refuse_is_no_figure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert measured_calls(Call.REFUSAL, 0.01, 1).calls > 0
    assert measured_recount(300, 1, booked_beside=True).vertices == 300
    monkeypatch.setattr(Store, "book", lambda *_: None)
    with pytest.raises(BenchError, match="let in what it should refuse"):
        measured_calls(Call.REFUSAL, 0.01, 1)
    monkeypatch.setattr(Store, "end_recount", lambda *_: False)
    with pytest.raises(BenchError, match="came to nothing"):
        measured_recount(300, 1, booked_beside=False)
