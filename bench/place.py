"""Where a benchmark runs: a server, and on it a database of its own."""

from __future__ import annotations

import contextlib
import os
import platform
import secrets
import time
from typing import TYPE_CHECKING

from psycopg import sql
from psycopg.conninfo import make_conninfo

from retally.bench.errors import BenchError
from retally.bench.records import Place
from retally.sql.connect import connect
from retally.sql.embedded import EmbeddedServer
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import psycopg

# What the embedded server gets: no checkpoint falls into a cell, the farm fits into memory.
_SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h"}
#: Settings that decide about every figure.
SHOWN = (
    "shared_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "fsync",
    "synchronous_commit",
    "full_page_writes",
    "max_connections",
    "autovacuum",
)

_LEAVE_SECONDS = 20.0
_POLL_SECONDS = 0.02
_OTHERS = """
SELECT count(*) FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()
"""


@contextlib.contextmanager
def server(
    dsn: str | None, *, connections: int = 50, settings: Mapping[str, str] | None = None
) -> Iterator[str]:
    """The DSN of the server: ``dsn``, else an embedded one, durable and on disk, with ``settings``.

    Raises EmbeddedServerError.
    """
    if dsn is not None:
        yield dsn
        return
    with EmbeddedServer.start(
        durable=True, max_connections=connections, settings=_SETTINGS | dict(settings or {})
    ) as running:
        yield running.dsn()


@contextlib.contextmanager
def own_database(dsn: str) -> Iterator[str]:
    """The DSN of a new database on this server, which is dropped at the end, however that comes.

    No other database is touched. Raises the typed errors of ``retally.sql.errors``.
    """
    name = f"retally_bench_{secrets.token_hex(4)}"
    identifier = sql.Identifier(name)
    with connect(dsn) as admin, translated():
        admin.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(identifier))
    try:
        yield make_conninfo(dsn, dbname=name)
    finally:
        with connect(dsn) as admin, translated():
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


def place(conn: psycopg.Connection, shown: Sequence[str] = SHOWN) -> Place:
    """Where this connection leads to, with the settings ``shown`` as its session has them."""
    rows = conn.execute(
        "SELECT name, current_setting(name) FROM unnest(%s::text[]) AS name", [list(shown)]
    )
    settings = tuple((str(name), str(value)) for name, value in rows)
    version = conn.info.parameter_status("server_version") or ""
    return Place(
        server=f"PostgreSQL {version}",
        cpus=cpus(),
        python=platform.python_version(),
        settings=settings,
    )


def nowhere() -> Place:
    """The machine, where no server took part."""
    return Place(server="no server", cpus=cpus(), python=platform.python_version(), settings=())


def await_alone(conn: psycopg.Connection) -> None:
    """Wait for those who are just leaving this database. Raises BenchError when somebody stays."""
    until = time.monotonic() + _LEAVE_SECONDS
    while (row := conn.execute(_OTHERS).fetchone()) and row[0]:
        if time.monotonic() > until:
            raise BenchError("somebody else is connected to the benchmark's database")
        time.sleep(_POLL_SECONDS)


def cpus() -> int:
    """How many CPUs of this machine we may use."""
    with contextlib.suppress(AttributeError):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
