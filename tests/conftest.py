"""A real server for every test: one embedded PostgreSQL a run, one template, fresh copies of it.

A test that stops or crashes the server starts one of its own, with ``EmbeddedServer.start``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo
from pytest_postgresql.factories import postgresql_noproc

from retally.procedures import install
from retally.sql.embedded import EmbeddedServer
from retally.sql.farm_build import create_schema

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pytest_postgresql.executors import NoopExecutor

    Connect = Callable[[], psycopg.Connection]

# fixtures that stand beside the helpers which they go with
pytest_plugins = ("worker_process", "tcp_proxy", "tick_farm", "metrics_scene", "doctor_run")

_numbers = itertools.count(1)

# They speak of another server, and libpq takes them for what a DSN leaves open.
for _name in [name for name in os.environ if name.startswith("PG")]:
    del os.environ[_name]


@dataclass(frozen=True)
class Address:
    """Where pytest-postgresql finds the embedded server."""

    host: str
    port: int
    user: str
    password: str | None = None
    options: str = ""
    maintenance_dbname: str = "postgres"
    template_dbname: str | None = None


@pytest.fixture(scope="session")
def server() -> Iterator[EmbeddedServer]:
    with EmbeddedServer.start(in_memory=True) as running:
        yield running


@pytest.fixture(scope="session")
def address(server: EmbeddedServer) -> Address:
    return Address(str(server.socket_dir), server.port, server.user)


def _load(*, host: str, port: int, user: str, dbname: str, **_: object) -> None:
    dsn = make_conninfo(host=host, port=port, user=user, dbname=dbname)
    with psycopg.connect(dsn, autocommit=True) as conn:
        create_schema(conn)
        install(conn)


#: The template database of the run: the stand-alone farm's schema with retally, without a row.
farm_template = postgresql_noproc(depends_on="address", dbname="farm", load=[_load])


@pytest.fixture
def empty_db(server: EmbeddedServer) -> Iterator[psycopg.Connection]:
    """A connection (autocommit) to an empty database."""
    with fresh_database(server, "template1") as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def farm_db(server: EmbeddedServer, farm_template: NoopExecutor) -> Iterator[psycopg.Connection]:
    """A connection (autocommit) to a farm without rows, with retally installed."""
    template = farm_template.template_dbname
    with fresh_database(server, template) as dsn, psycopg.connect(dsn, autocommit=True) as conn:
        yield conn


@pytest.fixture
def connect(farm_db: psycopg.Connection) -> Iterator[Connect]:
    """Opens more connections (autocommit) to the database of ``farm_db``, and closes them."""
    with contextlib.ExitStack() as opened:
        yield lambda: opened.enter_context(
            contextlib.closing(psycopg.connect(farm_db.info.dsn, autocommit=True))
        )


@contextlib.contextmanager
def fresh_database(server: EmbeddedServer, template: str) -> Iterator[str]:
    """The DSN of a copy of ``template``, which is dropped with whoever is still connected."""
    name = f"test{next(_numbers)}"
    identifiers = {"name": sql.Identifier(name), "template": sql.Identifier(template)}
    # Copying the files takes 27 ms, half of the default way through the WAL; the only way in 14.
    strategy = "" if server.version.startswith("14") else " STRATEGY file_copy"
    create = sql.SQL("CREATE DATABASE {name} TEMPLATE {template}" + strategy)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(create.format(**identifiers))
    try:
        yield server.dsn(name)
    finally:
        with psycopg.connect(server.dsn(), autocommit=True) as admin:
            admin.execute(sql.SQL("DROP DATABASE {name} WITH (FORCE)").format(**identifiers))
