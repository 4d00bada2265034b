"""Many dispatchers share a farm: no cap is passed and no show is served twice, whoever dies."""

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
PATIENCE = 120.0
LEAST_BOOKINGS = 2000
EVENTS = {"killed", "stopped", "listeners cut", "raised", "lowered", "maxima set"}


def has_happened(conn: psycopg.Connection, fleet: Fleet, watch: Watch) -> bool:
    """Whether it was no child's play: every fault, every cap met, every show in several hands."""
    row = conn.execute("SELECT count(*) FROM fleet.booking").fetchone()
    had = holders(conn)
    return (
        row is not None
        and row[0] > LEAST_BOOKINGS
        and len(had) == SHOWS
        and min(had.values()) > 1
        and set(fleet.events) == EVENTS
        and min(watch.full[kind] for kind in ("burst", "cores", "GPUs")) > SHOWS
    )


def test_no_cap_is_passed_and_no_show_served_twice_while_dispatchers_die_sleep_and_go_deaf() -> (
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
            end, event_at = time.monotonic() + SECONDS, time.monotonic() + 2
            # as long as it takes until all of it has happened, on a machine that is busy, too
            while time.monotonic() < end or not has_happened(conn, fleet, watch):
                assert time.monotonic() < end + PATIENCE, (fleet.events, watch.full)
                watch.look(conn)
                if time.monotonic() >= event_at:
                    fleet.happen(conn)
                    event_at = time.monotonic() + draw.uniform(0, 2 * EVENTS_EVERY)
                time.sleep(LOOKS_EVERY)
        watch.look(conn)
        assert watch.over == []
        assert foreign_bookings(conn) == []
        # what was killed in the middle is there, or is not
        conn.execute("CALL retally.recompute_all()")
        assert drift(conn, *(work.show for work in works)) == []
