"""The one place that connects to a database."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg_pool import ConnectionPool

from retally.sql.errors import DatabaseUnreachableError, translated

if TYPE_CHECKING:
    from collections.abc import Callable

#: Names the connections in ``pg_stat_activity``.
APPLICATION_NAME = "retally"

# Prepared statements are off, so that a transaction pooler may stand between.
_ARGUMENTS: dict[str, Any] = {
    "prepare_threshold": None,
    "fallback_application_name": APPLICATION_NAME,
    "client_encoding": "utf8",
}

# The pool logs what it also raises. A program that has set up logging gets it; without this, the
# others would find raw lines on their standard error.
logging.getLogger("psycopg").addHandler(logging.NullHandler())

# What the DSN leaves open: without them, a host that is gone without a word is noticed after
# minutes or hours. They are all the client's own: a pooler refuses settings of the server.
_TIMEOUTS = {
    "connect_timeout": "10",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "25000",
}


def connect(dsn: str | None = None, *, autocommit: bool = True) -> psycopg.Connection:
    """Open a connection.

    ``dsn`` is a libpq connection string or URI; None leaves it to libpq's own variables and
    service files. Blocks, ``conn.transaction()``, are READ COMMITTED; calls outside of them have
    the default of the role. Raises DatabaseUnreachableError.
    """
    conninfo = _conninfo(dsn)
    with translated():
        conn = psycopg.connect(conninfo, autocommit=autocommit, **_ARGUMENTS)
    _read_committed(conn)
    return conn


def pool(
    dsn: str | None,
    *,
    max_size: int,
    timeout: float,
    check: Callable[[psycopg.Connection], None] | None = None,
    prepared: bool = False,
) -> ConnectionPool[psycopg.Connection]:
    """A pool of connections for a program that runs on; it still has to be opened.

    They are in autocommit, and READ COMMITTED: where the role has another default, not in
    autocommit, so that what is done with one connection is one transaction. ``timeout``: seconds
    to wait for a connection; ``check``, if any, is called before one is handed out. It connects
    only on demand, so that a database that was away is found again by whoever asks next.
    ``prepared``: each statement is prepared when it is first sent, which no transaction pooler may
    stand between.
    Raises DatabaseUnreachableError when ``dsn`` makes no sense.
    """
    return ConnectionPool(
        _conninfo(dsn),
        kwargs={"autocommit": True, **_ARGUMENTS, "prepare_threshold": 0 if prepared else None},
        min_size=0,
        max_size=max_size,
        timeout=timeout,
        # After this it gives up, and the next request starts afresh; with the default of 300 s
        # its pauses double, and a database that is back would be noticed minutes later.
        reconnect_timeout=timeout,
        check=check,
        configure=_always_read_committed,
        open=False,
        name=APPLICATION_NAME,
    )


def _read_committed(conn: psycopg.Connection) -> None:
    # The role or the database may have another default, which hides from a second sum what was
    # booked meanwhile. It is for blocks, which psycopg begins; the session itself is not touched,
    # for a pooler may share it.
    conn.isolation_level = psycopg.IsolationLevel.READ_COMMITTED


def _always_read_committed(conn: psycopg.Connection) -> None:
    """As above for calls outside of blocks, too: where the default is another, all get a block."""
    _read_committed(conn)
    default = conn.execute("SELECT current_setting('default_transaction_isolation')").fetchone()
    conn.autocommit = default == ("read committed",)


def _conninfo(dsn: str | None) -> str:
    try:
        given = conninfo_to_dict(dsn or "")
    except psycopg.ProgrammingError:
        # libpq's message quotes the part that it stumbled over, which may be the password
        raise DatabaseUnreachableError(
            "the DSN is neither a connection string nor a URI that libpq understands",
            'write it as "host=… dbname=…" or postgresql://user@host/dbname; '
            "special characters in a URI have to be percent-encoded",
        ) from None
    if "@" in str(given.get("host", "")):
        # an unescaped @ in a password: what follows it would be shown as a host
        raise DatabaseUnreachableError(
            "the host in the DSN holds an @",
            "special characters in a URI have to be percent-encoded: @ is %40",
        )
    if timeout := os.environ.get("PGCONNECT_TIMEOUT"):
        given.setdefault("connect_timeout", timeout)
    merged: dict[str, Any] = _TIMEOUTS | given
    return make_conninfo(**merged)
