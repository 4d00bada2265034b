"""No deadlock: batches and single calls beside each other, recomputes and Cuebot's bookings."""

from __future__ import annotations

import random
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import psycopg
import pytest
from dispatch_load import REFUSALS, Client, hosts_of, two_shows
from small_farm import Rows, Work, drift

if TYPE_CHECKING:
    from collections.abc import Callable

    Connect = Callable[[], psycopg.Connection]

STEPS = 200  # of each session

TOTALS = (
    "UPDATE subscription SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_show = %(show)s"
    " AND pk_alloc = (SELECT pk_alloc FROM host WHERE pk_host = %(on)s)",
    "UPDATE layer_resource SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_layer = %(layer)s",
    "UPDATE job_resource SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_job = %(job)s",
    "UPDATE folder_resource SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_folder = %(folder)s",
    "UPDATE point SET int_cores = int_cores + %(cores)s, int_gpus = int_gpus + %(gpus)s"
    " WHERE pk_show = %(show)s AND pk_dept = %(dept)s",
)


class Cuebot:
    """Books and releases as Cuebot does: the proc, its host, then the totals by increments."""

    def __init__(self, conn: psycopg.Connection, works: list[Work], seed: int) -> None:
        self.conn, self.works, self.draw = conn, works, random.Random(seed)
        self.hosts = hosts_of(conn)
        self.rows, self.seen = Rows(conn), Counter[str]()

    def step(self, frames: dict[str, list[str]], managed: bool) -> None:
        work, host = self.draw.choice(self.works), self.draw.choice(self.hosts)
        frame = self.draw.choice(frames[work.layer])
        try:
            with self.conn.transaction():
                gone = self.conn.execute(
                    "DELETE FROM proc WHERE pk_frame = %s RETURNING pk_host, -int_cores_reserved,"
                    " -int_mem_reserved, -int_gpus_reserved",
                    (frame,),
                ).fetchone()
                if gone is None:
                    self.rows.proc(host, work.show, work.job, work.layer, cores=200, frame=frame)
                    gone = (host, 200, 1000, 0)
                self.count(work, *gone, counts=not managed)
            self.seen["by Cuebot"] += 1
        except psycopg.errors.UniqueViolation:
            self.seen["FrameBookedError"] += 1

    def count(
        self, work: Work, host: str, cores: int, mem: int, gpus: int, *, counts: bool
    ) -> None:
        self.conn.execute(
            "UPDATE host SET int_cores_idle = int_cores_idle - %s,"
            " int_mem_idle = int_mem_idle - %s, int_gpus_idle = int_gpus_idle - %s"
            " WHERE pk_host = %s",
            (cores, mem, gpus, host),
        )
        for statement in TOTALS if counts else ():
            values = {**vars(work), "on": host, "cores": cores, "gpus": gpus}
            self.conn.execute(statement, values)


@pytest.mark.parametrize("managed", [False, True])
def test_sessions_with_the_same_frames_hosts_and_jobs_in_any_order_never_deadlock(
    farm_db: psycopg.Connection, connect: Connect, managed: bool
) -> None:
    works, frames = two_shows(farm_db, frames=6)
    for work in works:
        farm_db.execute("CALL retally.set_managed(%s, %s)", (work.show, managed))
    # looked for soon, so that a deadlock would show up
    farm_db.execute(f"ALTER DATABASE {farm_db.info.dbname} SET deadlock_timeout = '20ms'")
    clients = [Client(connect(), works, seed, favourite=0.5) for seed in range(8)]
    cuebots = [Cuebot(connect(), works, seed) for seed in range(3)]
    repairer, stop = connect(), threading.Event()

    def repair() -> int:
        mended = 0
        while not stop.is_set():
            for work in works:
                answer = repairer.execute("CALL retally.recompute_show(%s)", (work.show,))
                mended += answer.fetchone()[1]  # type: ignore[index]
        return mended

    def book_on(client: Client | Cuebot) -> Counter[str]:
        for _ in range(STEPS):
            if isinstance(client, Client):
                client.step(frames)
            else:
                client.step(frames, managed)
        return client.seen

    with ThreadPoolExecutor(12) as pool:
        try:
            repairing = pool.submit(repair)
            everyone: list[Client | Cuebot] = [*clients, *cuebots]
            running = [pool.submit(book_on, client) for client in everyone]
            # a deadlock, or anything but a refusal, would have raised in one of them
            seen = sum((future.result(120) for future in running), Counter[str]())
        finally:
            stop.set()
        mended = repairing.result(60)
    assert set(seen) <= REFUSALS | {
        "managed",
        "unmanaged",
        "released",
        "gone",
        "booked",
        "by Cuebot",
    }
    assert seen["managed" if managed else "unmanaged"] > 100
    assert min(seen["FrameBookedError"], seen["gone"], seen["by Cuebot"]) > 20
    assert (mended > 0) == managed  # nothing was ever wrong where each booking counts
    shows = [] if managed else [work.show for work in works]
    assert drift(farm_db, *shows) == []
    count = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    assert farm_db.execute(count).fetchone() == (0,)
