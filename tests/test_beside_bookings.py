"""Recomputes beside a dozen sessions that book and release with increments, as the farm does."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from small_farm import Rows, Work, corrupt, make_work

from retally.procedures import TOTALS

if TYPE_CHECKING:
    from collections.abc import Callable

    import psycopg

    Connect = Callable[[], psycopg.Connection]

CLIENTS = 12
SECONDS = 60

# The inline path in the order of the facts; a release is its mirror image.
TABLES = (
    "UPDATE subscription SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_show = %(show)s AND pk_alloc = %(alloc)s",
    "UPDATE layer_resource SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_layer = %(layer)s",
    "UPDATE job_resource SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_job = %(job)s",
    "UPDATE folder_resource SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_folder = %(folder)s",
    "UPDATE point SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_show = %(show)s AND pk_dept = %(dept)s",
)


class Dispatcher:
    """Books and releases on one show until told to stop, each in one transaction."""

    def __init__(self, conn: psycopg.Connection, work: Work, seed: int) -> None:
        self.conn, self.work, self.draw = conn, work, random.Random(seed)
        self.procs: list[tuple[str, int, int]] = []
        self.rows = Rows(conn)

    def run(self, stop: threading.Event) -> Counter[str]:
        done: Counter[str] = Counter()
        while not stop.is_set():
            if self.procs and self.draw.random() < len(self.procs) / 20:
                self._release()
                done["released"] += 1
            else:
                self._book()
                done["booked"] += 1
        return done

    def _book(self) -> None:
        cores, gpus = self.draw.randint(1, 400), self.draw.choice([0, 0, 1])
        with self.conn.transaction():
            work = self.work
            proc = self.rows.proc(work.host, work.show, work.job, work.layer, cores, gpus)
            self._add(cores, gpus)
        self.procs.append((proc, cores, gpus))

    def _release(self) -> None:
        proc, cores, gpus = self.procs.pop(self.draw.randrange(len(self.procs)))
        with self.conn.transaction():
            self.conn.execute("DELETE FROM proc WHERE pk_proc = %s", (proc,))
            self._add(-cores, -gpus)

    def _add(self, cores: int, gpus: int) -> None:
        values = {**vars(self.work), "cores": cores, "gpus": gpus}
        for statement in TABLES:
            self.conn.execute(statement, values)


def drift(conn: psycopg.Connection, work: Work) -> list[tuple[object, ...]]:
    return conn.execute("SELECT * FROM retally.drift(%s)", (work.show,)).fetchall()


def test_a_minute_of_corruption_beside_live_bookings_is_mended_exactly_each_time(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    work = make_work(Rows(farm_db))
    stop = threading.Event()
    with ThreadPoolExecutor(CLIENTS) as pool:
        try:
            running = [
                pool.submit(Dispatcher(connect(), work, seed).run, stop) for seed in range(CLIENTS)
            ]
            mended = 0
            until = time.monotonic() + SECONDS
            while time.monotonic() < until and not any(future.done() for future in running):
                corrupt(farm_db)
                assert {row[0] for row in drift(farm_db, work)} == set(TOTALS)
                row = farm_db.execute("CALL retally.recompute_show(%s)", (work.show,)).fetchone()
                assert row is not None
                assert row[:4] == (5, 5, 0, 0)
                assert drift(farm_db, work) == []
                mended += 1
        finally:
            stop.set()
        done = sum((future.result(60) for future in running), Counter[str]())
    # each booking added to the rows that were mended under it, and nothing was lost or doubled
    assert drift(farm_db, work) == []
    assert mended >= 10
    assert min(done["booked"], done["released"]) > 100


def test_transactions_with_a_lock_order_of_their_own_are_never_the_victims_of_a_deadlock(
    farm_db: psycopg.Connection, connect: Connect
) -> None:
    rows = Rows(farm_db)
    work = make_work(rows)
    layers = sorted([work.layer, *(rows.layer(work.job) for _ in range(5))])
    for layer in layers:
        rows.proc(work.host, work.show, work.job, layer)
    # looked for soon, so that a victim would show up often in a short time
    name = farm_db.info.dbname
    farm_db.execute(f"ALTER DATABASE {name} SET deadlock_timeout = '100ms'")
    stop = threading.Event()
    writers = [connect(), connect()]
    repairer = connect()

    def write_backwards(conn: psycopg.Connection) -> int:
        """Spoil every layer total, last key first; a recompute takes them first key first."""
        written = 0
        while not stop.is_set():
            with conn.transaction():
                for layer in reversed(layers):
                    conn.execute(
                        "UPDATE layer_resource SET int_cores = int_cores + 1 WHERE pk_layer = %s",
                        (layer,),
                    )
            written += 1
        return written

    def repair(conn: psycopg.Connection) -> Counter[str]:
        seen: Counter[str] = Counter()
        while not stop.is_set():
            row = conn.execute(
                "SELECT rows_changed, rows_deferred FROM retally.mend_by_hand(ARRAY("
                " SELECT f FROM retally.findings(ARRAY[%s], ARRAY['layer']) AS f), true)",
                (work.show,),
            ).fetchone()
            assert row is not None
            seen["changed"] += row[0]
            seen["deferred"] += row[1]
        return seen

    with ThreadPoolExecutor(3) as pool:
        try:
            running = [pool.submit(write_backwards, conn) for conn in writers]
            mending = pool.submit(repair, repairer)
            until = time.monotonic() + 20
            while time.monotonic() < until and not (
                mending.done() or any(future.done() for future in running)
            ):
                drift(farm_db, work)
        finally:
            stop.set()
        # a deadlock would have raised in one of them
        assert min(future.result(60) for future in running) > 100
        assert mending.result(60)["changed"] > 100
    farm_db.execute("CALL retally.recompute_layer(%s)", (work.show,))
    assert "layer" not in {row[0] for row in drift(farm_db, work)}
