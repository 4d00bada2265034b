"""Many dispatchers share a farm: no burst is passed and no show is served twice, whoever dies."""

from __future__ import annotations

import os
import random
import time

import psycopg
from fleet import Fleet, Watch, foreign_bookings, holders, make_farm
from fleet_dispatcher import Post
from small_farm import drift

from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

#: How long; RETALLY_FLEET_SECONDS for a longer look.
SECONDS = float(os.environ.get("RETALLY_FLEET_SECONDS", "20"))
DISPATCHERS = 4
SHOWS = 20
EVENTS_EVERY = 0.4
LOOKS_EVERY = 0.05


def test_no_burst_is_passed_and_no_show_served_twice_while_dispatchers_die_sleep_and_go_deaf() -> (
    None
):
    with (
        EmbeddedServer.start(in_memory=True, settings={"track_commit_timestamp": "on"}) as server,
        psycopg.connect(server.dsn(), autocommit=True) as conn,
    ):
        create_schema(conn)
        install(conn)
        works = make_farm(conn, SHOWS)
        post = Post(
            dsn=server.dsn(),
            name="",
            seed=0,
            lease_seconds=1.0,
            recount_seconds=0.5,
            work=[[work.host, work.job, work.layer, work.show] for work in works],
        )
        watch, draw = Watch(), random.Random(int(SECONDS))
        with Fleet(server.dsn(), works, [post] * DISPATCHERS, draw) as fleet:
            until, event_at = time.monotonic() + SECONDS, time.monotonic() + 2
            while time.monotonic() < until:
                watch.look(conn)
                if time.monotonic() >= event_at:
                    fleet.happen(conn)
                    event_at = time.monotonic() + draw.uniform(0, 2 * EVENTS_EVERY)
                time.sleep(LOOKS_EVERY)
        watch.look(conn)
        assert watch.over == []
        assert foreign_bookings(conn) == []
        # and it was no child's play
        row = conn.execute("SELECT count(*), count(DISTINCT show) FROM fleet.booking").fetchone()
        assert row is not None
        assert row[0] > 100 * SECONDS
        assert row[1] == SHOWS
        assert watch.looks > SECONDS
        assert watch.full > SHOWS
        assert min(holders(conn).values()) > 1
        assert set(fleet.events) == {"killed", "stopped", "listeners cut", "raised", "lowered"}
        # what was killed in the middle is there, or is not
        conn.execute("CALL retally.recompute_all()")
        assert drift(conn, *(work.show for work in works)) == []
