"""Workers as processes, with the real command: their log as it comes, and what a scrape says."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from typing import TYPE_CHECKING, Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from small_farm import Rows, Work, corrupt, make_work, stored

from retally.procedures import TOTALS, routines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    Connect = Callable[[], psycopg.Connection]
    Start = Callable[..., "WorkerProcess"]

PATIENCE = 60.0  # seconds, for what takes far below one

#: Settings of a worker that serves its metrics.
METRICS = {"RETALLY_METRICS_PORT": "0"}

_QUICK = {
    "RETALLY_CONFIG": os.devnull,
    "RETALLY_SUBSCRIPTION_INTERVAL": "0.2",
    "RETALLY_RESOURCE_INTERVAL": "0.3",
    "RETALLY_LOG_FORMAT": "json",
}


class WorkerProcess:
    """``retally worker`` in a process of its own, whose log is read as it comes.

    ``settings``: its variables, RETALLY_<NAME>.
    """

    def __init__(self, dsn: str, **settings: str) -> None:
        self.log: list[dict[str, Any]] = []
        self.text = ""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "retally.cli", "worker"],
            env=os.environ | _QUICK | {"RETALLY_DSN": dsn} | settings,
            stderr=subprocess.PIPE,
            text=True,
        )
        # reading cannot hang for ever: the pipe ends with the process
        self._limit = threading.Timer(PATIENCE, self._process.kill)
        self._limit.start()

    def await_event(self, name: str) -> dict[str, Any]:
        """Read on to the next event of this name."""
        for entry in self._lines():
            if entry["event"] == name:
                return entry
        raise AssertionError(f"no event {name!r} in: {self.text}")

    def metrics_url(self) -> str:
        """Read on to its start; where its metrics are served."""
        url = str(self.await_event("metrics served")["url"])
        self.await_event("worker started")
        return url

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send the signal and read on to the end; answers with the exit code."""
        self._process.send_signal(number)
        return self.exit_code()

    def exit_code(self) -> int:
        """Read on to the end."""
        for _ in self._lines():
            pass
        return self._process.wait(PATIENCE)

    def close(self) -> None:
        self._limit.cancel()
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def events(self, name: str) -> list[dict[str, Any]]:
        return [entry for entry in self.log if entry["event"] == name]

    def _lines(self) -> Iterator[dict[str, Any]]:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.text += line
            try:
                self.log.append(json.loads(line))
            except ValueError:  # a traceback, of which the rest is of use
                self.text += self._process.stderr.read()
                raise AssertionError(f"no JSON: {self.text}") from None
            yield self.log[-1]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts worker processes, and sees to it that none is left."""
    with contextlib.ExitStack() as undo:

        def started(dsn: str, **settings: str) -> WorkerProcess:
            process = WorkerProcess(dsn, **settings)
            undo.callback(process.close)
            return process

        yield started


@pytest.fixture
def in_hand(farm_db: psycopg.Connection, connect: Connect) -> tuple[Work, psycopg.Connection]:
    """A show, the writing of which waits for as long as the connection's transaction is open."""
    work = managed_show(farm_db)
    # what a pass waits for is bounded by half of this
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '{2 * PATIENCE}s'")
    farm_db.execute(
        "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_advisory_xact_lock_shared(42); RETURN NULL; END $$;"
        "CREATE TRIGGER hold AFTER UPDATE ON subscription FOR EACH ROW EXECUTE FUNCTION hold()"
    )
    holder = connect()
    holder.execute("BEGIN")
    holder.execute("SELECT pg_advisory_xact_lock(42)")
    return work, holder


def managed_show(conn: psycopg.Connection) -> Work:
    """A managed show with a proc of 300 core units that its totals do not know."""
    rows = Rows(conn)
    work = make_work(rows)
    routines.set_managed(conn, work.show, managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    return work


def flagged_show(conn: psycopg.Connection) -> Work:
    """The same, managed by the farm's own flag: ticks rebuild it in a transaction of its own."""
    work = managed_show(conn)
    routines.set_managed(conn, work.show, managed=False)
    conn.execute("UPDATE show SET b_scheduler_managed = TRUE WHERE pk_show = %s", (work.show,))
    conn.execute("UPDATE retally.setting SET follow_farm_flag = TRUE")
    corrupt(conn)
    return work


def cores(conn: psycopg.Connection, work: Work) -> list[int]:
    return [stored(conn, work, total)[0] for total in TOTALS]


def await_true(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not claim():
        assert time.monotonic() < deadline


def await_exact(conn: psycopg.Connection, work: Work) -> None:
    """Return once all totals of a ``managed_show`` are exact."""
    await_true(lambda: cores(conn, work) == [300] * len(TOTALS))


def waits(conn: psycopg.Connection) -> bool:
    """Whether a session of this database waits for the lock of the trigger ``hold``."""
    waiting = (
        "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT d.oid FROM pg_database AS d WHERE datname = current_database()))"
    )
    return conn.execute(waiting).fetchone() == (True,)


def await_waiter(conn: psycopg.Connection) -> None:
    await_true(lambda: waits(conn))


def value(url: str, name: str, **labels: str) -> float:
    """The sum of the samples of a metric that have these labels."""
    with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
        text = answer.read().decode()
    assert f"# TYPE retally_{name} " in text, f"no metric {name}"
    samples = [s for f in text_string_to_metric_families(text) for s in f.samples]
    return sum(
        s.value
        for s in samples
        if s.name == f"retally_{name}" and labels.items() <= s.labels.items()
    )


def faults(url: str, kind: str) -> float:
    """How many faults of a kind the worker has met."""
    return value(url, "faults_total", kind=kind)
