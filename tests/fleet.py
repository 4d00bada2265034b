"""A fleet of dispatchers on one farm, what happens to it, and who watches."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Self

from small_farm import Rows, Work, make_work

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    import psycopg
    from fleet_dispatcher import Post

#: What a dispatcher that has heard nothing of a lower burst may still go by: it hears within a
#: recount, and books no more once its lease is over.
GRACE = 8.0
SCRIPT = Path(__file__).with_name("fleet_dispatcher.py")

# Everything is written down by the server itself, with its transaction: who has booked what, and
# who had which show. For the test alone.
_LOG = """
CREATE SCHEMA fleet;
CREATE TABLE fleet.taking (scope text, holder text, token bigint);
CREATE TABLE fleet.booking (show text, dispatcher text);
CREATE FUNCTION fleet.note_taking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet.taking VALUES (new.scope, new.holder, new.token);
    RETURN NULL;
END
$$;
CREATE FUNCTION fleet.note_booking() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fleet.booking VALUES (new.pk_show, current_setting('application_name'));
    RETURN NULL;
END
$$;
CREATE TRIGGER note_first AFTER INSERT ON retally.lease
FOR EACH ROW EXECUTE FUNCTION fleet.note_taking();
CREATE TRIGGER note_next AFTER UPDATE ON retally.lease
FOR EACH ROW WHEN (old.token IS DISTINCT FROM new.token) EXECUTE FUNCTION fleet.note_taking();
CREATE TRIGGER note_booking AFTER INSERT ON public.proc
FOR EACH ROW EXECUTE FUNCTION fleet.note_booking();
"""

# One snapshot: what is in use at each vertex, and its cap.
_LOOK = """
WITH booked AS (
    SELECT p.pk_show, h.pk_alloc, p.pk_job, j.pk_folder,
        p.int_cores_reserved AS cores, p.int_gpus_reserved AS gpus
    FROM public.proc AS p
    INNER JOIN public.host AS h ON p.pk_host = h.pk_host
    INNER JOIN public.job AS j ON p.pk_job = j.pk_job
    WHERE NOT p.b_local
)

SELECT 'burst of ' || s.pk_show, s.int_burst, coalesce(sum(b.cores), 0)
FROM public.subscription AS s
LEFT JOIN booked AS b ON s.pk_show = b.pk_show AND s.pk_alloc = b.pk_alloc
GROUP BY s.pk_show, s.int_burst
UNION ALL
SELECT 'cores of ' || r.pk_folder, r.int_max_cores, coalesce(sum(b.cores), 0)
FROM public.folder_resource AS r LEFT JOIN booked AS b ON r.pk_folder = b.pk_folder
GROUP BY r.pk_folder, r.int_max_cores
UNION ALL
SELECT 'GPUs of ' || r.pk_job, r.int_max_gpus, coalesce(sum(b.gpus), 0)
FROM public.job_resource AS r LEFT JOIN booked AS b ON r.pk_job = b.pk_job
GROUP BY r.pk_job, r.int_max_gpus
"""

# A booking belongs to the taking that committed last before it.
_FOREIGN = """
WITH taking AS (
    SELECT t.scope, t.holder, t.token, pg_xact_commit_timestamp(t.xmin) AS at FROM fleet.taking AS t
)

SELECT b.show, b.dispatcher, coalesce(t.holder, 'nobody')
FROM (
    SELECT k.*, pg_xact_commit_timestamp(k.xmin) AS at FROM fleet.booking AS k
) AS b
LEFT JOIN LATERAL (
    SELECT t.holder FROM taking AS t
    WHERE t.scope = b.show AND t.at < b.at
    ORDER BY t.at DESC LIMIT 1
) AS t ON TRUE
WHERE t.holder IS DISTINCT FROM b.dispatcher
"""


@dataclass
class Watch:
    """Reads one snapshot at a time, and keeps what is over a cap that nobody has lowered.

    ``full``: how often each kind of cap was nearly reached.
    """

    looks: int = 0
    full: Counter[str] = field(default_factory=Counter)
    over: list[str] = field(default_factory=list)
    _caps: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    _last: dict[str, int] = field(default_factory=dict)

    def look(self, conn: psycopg.Connection) -> None:
        now = time.monotonic()
        self.looks += 1
        for vertex, cap, used in conn.execute(_LOOK.encode()).fetchall():
            known = self._caps[vertex]
            known.append((now, cap))
            while len(known) > 1 and known[1][0] < now - GRACE:
                known.pop(0)
            allowed = max(cap for _, cap in known)
            # what is over it after a lowering may only get less
            if used > max(allowed, self._last.get(vertex, 0)):
                self.over.append(f"{vertex}: {used} of {allowed}")
            self._last[vertex] = used
            self.full[vertex.split()[0]] += used > 0.9 * cap


@dataclass
class Fleet:
    """Some dispatchers; whoever is killed is followed by another one."""

    dsn: str
    works: list[Work]
    posts: list[Post]
    draw: random.Random
    events: Counter[str] = field(default_factory=Counter)
    _running: dict[int, subprocess.Popen[str]] = field(default_factory=dict)
    _stopped: dict[int, float] = field(default_factory=dict)
    _lives: int = 0

    def __enter__(self) -> Self:
        for place in range(len(self.posts)):
            self._start(place)
        return self

    def __exit__(self, *_: object) -> None:
        for place in list(self._stopped):
            self._go_on(place)
        for process in self._running.values():
            assert process.stdin
            process.stdin.close()
        for process in self._running.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
            process.wait()

    def happen(self, conn: psycopg.Connection) -> None:
        """One thing happens."""
        for place, until in list(self._stopped.items()):
            if time.monotonic() >= until:
                self._go_on(place)
        for place, process in list(self._running.items()):
            assert process.poll() is None, f"dispatcher {place} has ended by itself"
        self.draw.choice(self._happenings())(conn)

    def _happenings(self) -> list[Callable[[psycopg.Connection], None]]:
        caps = [self._set_burst, self._set_burst, self._update_burst, self._set_maxima]
        return [*caps, self._kill, self._stop, self._stop, self._cut_listener]

    def _start(self, place: int) -> None:
        self._lives += 1
        post = replace(self.posts[place], name=f"fleet-{self._lives}", seed=self._lives)
        process = subprocess.Popen(
            [sys.executable, str(SCRIPT)], stdin=subprocess.PIPE, text=True, process_group=0
        )
        assert process.stdin
        process.stdin.write(json.dumps(asdict(post)) + "\n")
        process.stdin.flush()
        self._running[place] = process

    def _kill(self, _: psycopg.Connection) -> None:
        place = self.draw.choice(list(self._running))
        self._stopped.pop(place, None)
        process = self._running[place]
        process.kill()
        process.wait()
        assert process.stdin
        process.stdin.close()
        self._start(place)
        self.events["killed"] += 1

    def _stop(self, _: psycopg.Connection) -> None:
        """For longer than its leases last, or for less."""
        place = self.draw.choice(list(self._running))
        if place not in self._stopped and len(self._stopped) < len(self._running) - 1:
            self._running[place].send_signal(signal.SIGSTOP)
            self._stopped[place] = time.monotonic() + self.draw.uniform(0.2, 3.0)
            self.events["stopped"] += 1

    def _go_on(self, place: int) -> None:
        del self._stopped[place]
        self._running[place].send_signal(signal.SIGCONT)

    def _cut_listener(self, conn: psycopg.Connection) -> None:
        cut = conn.execute(
            "SELECT pg_terminate_backend(a.pid) FROM pg_stat_activity AS a"
            " WHERE a.application_name = 'fleet listener' ORDER BY random() LIMIT 2"
        ).fetchall()
        self.events["listeners cut"] += len(cut)

    def _set_burst(self, conn: psycopg.Connection) -> None:
        work = self.draw.choice(self.works)
        burst = self._burst(conn, work)
        conn.execute("CALL retally.set_burst(%s, %s, %s)", (work.show, work.alloc, burst))

    def _set_maxima(self, conn: psycopg.Connection) -> None:
        """Of a folder and a job, about what the bursts let in."""
        work = self.draw.choice(self.works)
        cores, gpus = self.draw.choice((700, 1500, 3000)), self.draw.choice((2, 4, 8))
        conn.execute("CALL retally.set_folder_max(%s, %s)", (work.folder, cores))
        conn.execute("CALL retally.set_job_max(%s, 1000000, %s)", (work.job, gpus))
        self.events["maxima set"] += 1

    def _update_burst(self, conn: psycopg.Connection) -> None:
        """As an admin's tool that tells nobody."""
        work = self.draw.choice(self.works)
        burst = self._burst(conn, work)
        conn.execute(
            "UPDATE public.subscription SET int_burst = %s WHERE pk_show = %s", (burst, work.show)
        )

    def _burst(self, conn: psycopg.Connection, work: Work) -> int:
        row = conn.execute(
            "SELECT int_burst FROM public.subscription WHERE pk_show = %s", (work.show,)
        ).fetchone()
        burst = self.draw.choice((300, 1000, 2000, 4000))
        self.events["raised" if row and burst > row[0] else "lowered"] += 1
        return burst


def make_farm(conn: psycopg.Connection, shows: int) -> list[Work]:
    """Managed shows with room on their hosts, whose releases are told, and all of it logged."""
    conn.execute(_LOG.encode())
    conn.execute("UPDATE retally.setting SET notify = true")
    rows = Rows(conn)
    works = [make_work(rows, burst=2000) for _ in range(shows)]
    conn.execute("UPDATE public.folder_resource SET int_max_cores = 1500")
    conn.execute("UPDATE public.job_resource SET int_max_gpus = 6")
    conn.execute("CALL retally.set_override('all')")
    return works


def foreign_bookings(conn: psycopg.Connection) -> list[tuple[str, str, str]]:
    """Show, who has booked, and who had the show then."""
    return [(show, by, holder) for show, by, holder in conn.execute(_FOREIGN.encode()).fetchall()]


def holders(conn: psycopg.Connection) -> dict[str, int]:
    """How many dispatchers have had each show, one after the other."""
    query = "SELECT scope, count(DISTINCT holder) FROM fleet.taking GROUP BY scope"
    return dict(conn.execute(query).fetchall())
