"""Workers on a farm with traffic, for as long as asked: some are killed, the server restarts.

A program: ``python tests/soak.py --seconds 600 --workers 3 --kill-every 20 --restart-server 2``;
``--rest`` measures a worker that has nothing to do. It prints a table, and ends with 1 when a claim
does not hold.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

import psycopg
from bouncer import bouncer
from psycopg.conninfo import make_conninfo
from rich.console import Console
from rich.table import Table
from soak_farm import Options, build_farm, parse
from soak_passes import Claim
from soak_run import Soak
from soak_workers import Place, cpu_seconds

from retally.sql.embedded import EmbeddedServer
from retally.sql.scratch import ScratchDir, bases

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_STEP = 0.1  # seconds between two looks
_PATIENCE = 60.0
_REST_WARM_UP = 20.0  # seconds; the start, and what autovacuum finds in a new farm


def rest(options: Options, server: EmbeddedServer, dsn: str, home: Path) -> list[Claim]:
    """What one worker and the database use while nothing happens, in shares of one core."""
    place = Place(0, dsn, options, home)
    assert server.pid is not None
    try:
        await_served(server.dsn("farm"))
        time.sleep(min(_REST_WARM_UP, options.seconds))
        pids = {"the worker": (place.life.process.pid, 5.0), "the database": (server.pid, 10.0)}
        before = {pid: cpu_seconds(pid) for pid, _ in pids.values()}
        with psycopg.connect(server.dsn("farm"), autocommit=True) as conn:
            passes = _passes(conn)
            started = time.monotonic()
            time.sleep(options.seconds)
            seconds = time.monotonic() - started
            claims = []
            for name, (pid, bar) in pids.items():
                share = 100 * (cpu_seconds(pid) - before[pid]) / seconds
                text = f"{share:.2f} % over {seconds:.0f} s"
                claims.append(Claim(f"at rest, {name} uses under {bar:g} %", share < bar, text))
            passes = _passes(conn) - passes
        claims.append(Claim("the shows were served meanwhile", passes > 0, f"{passes:,} passes"))
        claims.append(Claim("the worker ends with 0", place.end() == 0, f"{place.events()}"))
        return claims
    finally:
        place.life.process.kill()
        place.life.process.wait()


def await_served(dsn: str) -> None:
    """Return once a worker has served its first show."""
    deadline = time.monotonic() + _PATIENCE
    with psycopg.connect(dsn, autocommit=True) as conn:
        while not _passes(conn):
            assert time.monotonic() < deadline, "no pass"
            time.sleep(_STEP)


def _passes(conn: psycopg.Connection) -> int:
    row = conn.execute("SELECT coalesce(sum(passes), 0) FROM retally.pass").fetchone()
    return int(row[0]) if row else 0


def soak(options: Options) -> list[Claim]:
    """Set everything up, run, and leave nothing behind."""
    with contextlib.ExitStack() as undo:
        home = ScratchDir.make(bases()[0], 0o700)
        undo.callback(home.remove)
        server = undo.enter_context(EmbeddedServer.start(in_memory=not options.on_disk))
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute("CREATE DATABASE farm")
        build_farm(options, server.dsn("farm"))
        dsn = server.dsn("farm")
        if options.pgbouncer:
            pooler = undo.enter_context(bouncer(server, pool_size=6))
            dsn = pooler.dsn("farm")
        if options.rest:
            return rest(options, server, dsn, home.path)
        run = Soak(options, server, make_conninfo(dsn, connect_timeout=5), home.path)
        undo.callback(run.close)
        return run.run()


def main(arguments: Sequence[str]) -> int:
    """The exit code: 1 when a claim does not hold."""
    claims = soak(parse(arguments, __doc__))
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("claim", "holds", "seen"):
        table.add_column(column)
    for claim in claims:
        table.add_row(claim.name, "yes" if claim.holds else "NO", claim.seen)
    Console(highlight=False, width=160 if not sys.stdout.isatty() else None).print(table)
    return 0 if all(claim.holds for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
