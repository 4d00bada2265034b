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
GRACE = 4.0
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

_LOOK = """
SELECT s.pk_show, s.int_burst, coalesce(sum(p.int_cores_reserved), 0)
FROM public.subscription AS s
LEFT JOIN (
    public.proc AS p INNER JOIN public.host AS h ON p.pk_host = h.pk_host
) ON s.pk_show = p.pk_show AND s.pk_alloc = h.pk_alloc AND NOT p.b_local
GROUP BY s.pk_show, s.int_burst
"""

# A booking belongs to the taking that committed last before it.
_FOREIGN = """
WITH taking AS (
    SELECT t.scope, t.holder, t.token, pg_xact_commit_timestamp(t.xmin) AS at FROM fleet.taking AS t
)

SELECT b.show, b.dispatcher, t.holder
FROM (
    SELECT k.*, pg_xact_commit_timestamp(k.xmin) AS at FROM fleet.booking AS k
) AS b
CROSS JOIN LATERAL (
    SELECT t.holder FROM taking AS t
    WHERE t.scope = b.show AND t.at < b.at
    ORDER BY t.at DESC LIMIT 1
) AS t
WHERE t.holder IS DISTINCT FROM b.dispatcher
"""


@dataclass
class Watch:
    """Reads one snapshot at a time, and keeps what is over a burst that nobody has lowered."""

    looks: int = 0
    full: int = 0
    over: list[str] = field(default_factory=list)
    _bursts: dict[str, list[tuple[float, int]]] = field(default_factory=lambda: defaultdict(list))
    _last: dict[str, int] = field(default_factory=dict)

    def look(self, conn: psycopg.Connection) -> None:
        now = time.monotonic()
        self.looks += 1
        for show, burst, cores in conn.execute(_LOOK.encode()).fetchall():
            known = self._bursts[show]
            known.append((now, burst))
            while len(known) > 1 and known[1][0] < now - GRACE:
                known.pop(0)
            allowed = max(burst for _, burst in known)
            # what was over it after a lowering may only get less
            if cores > max(allowed, self._last.get(show, 0)):
                self.over.append(f"{show}: {cores} of {allowed}")
            self._last[show] = cores if cores > allowed else 0
            self.full += cores > 0.9 * burst


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
        caps = [self._set_burst, self._set_burst, self._update_burst]
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
    conn.execute("CALL retally.set_override('all')")
    return works


def foreign_bookings(conn: psycopg.Connection) -> list[tuple[str, str, str]]:
    """Show, who has booked, and who had the show then."""
    return [(show, by, holder) for show, by, holder in conn.execute(_FOREIGN.encode()).fetchall()]


def holders(conn: psycopg.Connection) -> dict[str, int]:
    """How many dispatchers have had each show, one after the other."""
    query = "SELECT scope, count(DISTINCT holder) FROM fleet.taking GROUP BY scope"
    return dict(conn.execute(query).fetchall())
