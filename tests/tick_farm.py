"""A farm and what the ticks of a worker share, for tests that run each pass themselves."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
import structlog
from small_farm import Rows, Work, make_work, stored

from retally.procedures import TOTALS, routines
from retally.worker.database import Database
from retally.worker.health import Health
from retally.worker.metrics import Metrics
from retally.worker.ticks import Shared, Tick

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import psycopg

    NewShared = Callable[[], Shared]

FROZEN = 3600.0  # an interval that does not end during a test

EXACT = [(300, 2)] * len(TOTALS)
EMPTY = [(0, 0)] * len(TOTALS)


@pytest.fixture
def plain_logging() -> Iterator[None]:
    """As if no program had configured the log."""
    structlog.reset_defaults()
    yield
    structlog.reset_defaults()


@contextlib.contextmanager
def shared_by_ticks(dsn: str, metrics: Metrics | None = None) -> Iterator[Shared]:
    """What the ticks of one worker share."""
    metrics = metrics or Metrics({})
    database = new_database(dsn, metrics=metrics)
    database.open()
    try:
        with ThreadPoolExecutor(2) as menders:
            yield Shared(
                database,
                menders,
                2,
                f"worker {id(database)}",
                "watch",
                threading.Event(),
                metrics,
                Health({}),
            )
    finally:
        database.close()


def new_database(
    dsn: str, connections: int = 4, limit: float = 30, metrics: Metrics | None = None
) -> Database:
    """A worker's own; ``limit``: seconds for a statement."""
    return Database(
        dsn,
        connections=connections,
        statement_timeout=limit,
        metrics=metrics or Metrics({}),
        health=Health({}),
    )


@pytest.fixture
def new_shared(farm_db: psycopg.Connection) -> Iterator[NewShared]:
    """Makes what the ticks of one worker share, as often as it is called."""
    with contextlib.ExitStack() as undo:
        yield lambda: undo.enter_context(shared_by_ticks(farm_db.info.dsn))


@pytest.fixture
def shared(new_shared: NewShared) -> Shared:
    return new_shared()


def tick(totals: tuple[str, ...] = TOTALS, interval: float = FROZEN) -> Tick:
    return Tick("resource", interval, totals)


def wrong_show(conn: psycopg.Connection, *, managed: bool = True) -> Work:
    """A show with a proc of 300 core units and 2 GPUs, of which its totals know nothing."""
    rows = Rows(conn)
    work = make_work(rows)
    if managed:
        routines.set_managed(conn, work.show, managed=True)
    rows.proc(work.host, work.show, work.job, work.layer, cores=300, gpus=2)
    return work


def everything(conn: psycopg.Connection, work: Work) -> list[tuple[int, ...]]:
    return [stored(conn, work, total)[:2] for total in TOTALS]


def make_due(conn: psycopg.Connection) -> None:
    """The interval is over."""
    conn.execute("UPDATE retally.due SET due_at = '-infinity'")


def fail_for(conn: psycopg.Connection, work: Work) -> None:
    """Writing the subscriptions of this show raises what is not about one row."""
    conn.execute(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'the disk is on fire' USING ERRCODE = 'io_error',"
        " HINT = 'Call them.'; END $$;"
        "CREATE TRIGGER refuse BEFORE UPDATE ON subscription FOR EACH ROW"
        f" WHEN (NEW.pk_show = '{work.show}') EXECUTE FUNCTION refuse()"
    )
