"""The one place that connects to a database."""

from __future__ import annotations

import psycopg

from retally.sql.errors import translated

#: Names the connections in ``pg_stat_activity``.
APPLICATION_NAME = "retally"


def connect(dsn: str | None = None, *, autocommit: bool = True) -> psycopg.Connection:
    """Open a connection.

    ``dsn`` is a libpq connection string or URI; None leaves it to libpq's own variables and
    service files. Raises DatabaseUnreachableError. Prepared statements are off, so that a
    transaction pooler may stand between.
    """
    with translated():
        return psycopg.connect(
            dsn or "",
            autocommit=autocommit,
            prepare_threshold=None,
            fallback_application_name=APPLICATION_NAME,
            client_encoding="utf8",
        )
