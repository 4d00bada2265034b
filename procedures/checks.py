"""What `retally doctor` asks of a database: one typed call per question, and none changes anything.

Every one raises the typed errors of ``retally.sql.errors``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, LiteralString, TypeVar

from psycopg.rows import class_row

from retally.sql.errors import NotInstalledError, translated

if TYPE_CHECKING:
    from collections.abc import Mapping

    import psycopg

T = TypeVar("T")


@dataclass(frozen=True)
class Server:
    """The server, and what it gives to new sessions of this role; times in seconds."""

    version: str
    major: int
    database: str
    role: str
    is_replica: bool
    read_only: bool
    isolation: str
    deadlock_timeout: float
    autovacuum: bool


@dataclass(frozen=True)
class Setting:
    """The row of ``retally.setting`` as far as it can make no sense; times in seconds."""

    longest_wait: float
    repair_share: float
    history_every: float
    longest_flip: float


@dataclass(frozen=True)
class OddTrigger:
    """A trigger that is ``unknown``, or one of OpenCue's that is ``disabled`` or ``missing``."""

    table_name: str
    trigger_name: str
    function_name: str
    fault: str


@dataclass(frozen=True)
class MissingIndex:
    """A column that ``used_by``, ticks or bookings, look rows up by, without an index."""

    table_name: str
    column_name: str
    used_by: str


@dataclass(frozen=True)
class LongTransaction:
    """``name``: its pid, or the gid of a prepared one; then ``state`` is prepared."""

    name: str
    role_name: str
    application: str
    state: str
    seconds: float


@dataclass(frozen=True)
class MissingRow:
    """A total's row that is not there; ``cores`` (core units) and ``gpus``: what procs hold."""

    show_id: str
    total: str
    key: str
    name: str
    cores: int
    gpus: int
    show_name: str


@dataclass(frozen=True)
class DeadRows:
    """A busy table: rows as the statistics know them; ``vacuumed``: autovacuum may come to it."""

    table_name: str
    live: int
    dead: int
    vacuumed: bool


def server(conn: psycopg.Connection) -> Server:
    """The facts of the server and of this session."""
    query: LiteralString = """
        SELECT
            split_part(current_setting('server_version'), ' ', 1) AS version,
            current_setting('server_version_num')::integer / 10000 AS major,
            current_database()::text AS database,
            current_user::text AS role,
            pg_is_in_recovery() AS is_replica,
            -- as sessions begin: this one has been set otherwise
            (
                SELECT s.reset_val = 'on' FROM pg_catalog.pg_settings AS s
                WHERE s.name = 'default_transaction_read_only'
            ) AS read_only,
            (
                SELECT s.reset_val FROM pg_catalog.pg_settings AS s
                WHERE s.name = 'default_transaction_isolation'
            ) AS isolation,
            extract(EPOCH FROM current_setting('deadlock_timeout')::interval)::float8
                AS deadlock_timeout,
            current_setting('autovacuum')::boolean AND current_setting('track_counts')::boolean
                AS autovacuum
    """
    return answers(conn, Server, query)[0]


def seconds_ahead(conn: psycopg.Connection) -> float:
    """By how much the server's clock is ahead of ours at least, below 0 for behind; seconds.

    What may have been the way of the question or the answer does not count.
    """
    asked = time.time()
    with translated():
        row = conn.execute("SELECT extract(EPOCH FROM clock_timestamp())::float8").fetchone()
    answered = time.time()
    told = float(row[0]) if row else answered
    return min(0.0, told - asked) or max(0.0, told - answered)


def other_isolations(conn: psycopg.Connection) -> list[tuple[str, str]]:
    """Roles, or the database, whose sessions do not begin in READ COMMITTED, and in what."""
    query: LiteralString = """
        SELECT
            CASE WHEN s.setrole = 0 THEN 'every role' ELSE pg_get_userbyid(s.setrole)::text END,
            split_part(c.entry, '=', 2)
        FROM pg_catalog.pg_db_role_setting AS s
        CROSS JOIN LATERAL unnest(s.setconfig) AS c (entry)
        LEFT JOIN pg_catalog.pg_database AS d ON s.setdatabase = d.oid
        WHERE
            (s.setdatabase = 0 OR d.datname = current_database())
            AND split_part(c.entry, '=', 1) = 'default_transaction_isolation'
            AND split_part(c.entry, '=', 2) NOT IN ('read committed', 'read uncommitted')
        ORDER BY 1
    """
    with translated():
        return [(role, level) for role, level in conn.execute(query)]


def setting(conn: psycopg.Connection) -> Setting:
    """What ``retally.setting`` holds. Raises NotInstalledError when its row is gone."""
    query: LiteralString = """
        SELECT
            extract(EPOCH FROM s.longest_wait)::float8 AS longest_wait,
            s.repair_share::float8 AS repair_share,
            extract(EPOCH FROM s.history_every)::float8 AS history_every,
            extract(EPOCH FROM s.longest_flip)::float8 AS longest_flip
        FROM retally.setting AS s
    """
    rows = answers(conn, Setting, query)
    if not rows:
        raise NotInstalledError(
            "retally.setting has lost its row: no show is served, no drift found",
            "run `retally install`, which puts it back",
        )
    return rows[0]


def odd_triggers(conn: psycopg.Connection) -> list[OddTrigger]:
    """Where the triggers on totals and procs are not as OpenCue leaves them."""
    return answers(conn, OddTrigger, "SELECT * FROM retally.odd_triggers()")


def missing_indexes(conn: psycopg.Connection) -> list[MissingIndex]:
    """The columns that should lead an index."""
    return answers(conn, MissingIndex, "SELECT * FROM retally.missing_indexes()")


def long_transactions(conn: psycopg.Connection, longer: float) -> list[LongTransaction]:
    """The transactions of this database open for ``longer`` seconds, the oldest first."""
    query: LiteralString = (
        "SELECT * FROM retally.long_transactions(make_interval(secs => %(longer)s))"
    )
    return answers(conn, LongTransaction, query, {"longer": longer})


def hidden_sessions(conn: psycopg.Connection) -> int:
    """How many sessions of this database do not show this role what they do."""
    query: LiteralString = """
        SELECT count(*)
        FROM pg_catalog.pg_stat_activity AS a
        WHERE
            a.datname = current_database()
            AND NOT pg_has_role(a.usesysid, 'USAGE')
            AND NOT pg_has_role('pg_read_all_stats', 'USAGE')
    """
    with translated():
        row = conn.execute(query).fetchone()
    return int(row[0]) if row else 0


def missing_rows(conn: psycopg.Connection) -> list[MissingRow]:
    """The rows of totals that are not there, while procs belong into them; reads every proc."""
    query: LiteralString = """
        SELECT
            m.show_id, m.total, m.key, m.name, m.cores::bigint AS cores, m.gpus::bigint AS gpus,
            coalesce(m.show_name, m.show_id) AS show_name
        FROM retally.missing_rows() AS m
    """
    return answers(conn, MissingRow, query)


def dead_rows(conn: psycopg.Connection) -> list[DeadRows]:
    """The busy tables, the farm's and ours."""
    query: LiteralString = """
        SELECT
            s.schemaname || '.' || s.relname AS table_name,
            s.n_live_tup AS live,
            s.n_dead_tup AS dead,
            NOT EXISTS (
                SELECT FROM unnest(c.reloptions) AS o (entry)
                WHERE
                    split_part(o.entry, '=', 1) = 'autovacuum_enabled'
                    AND NOT split_part(o.entry, '=', 2)::boolean
            ) AS vacuumed
        FROM pg_catalog.pg_stat_all_tables AS s
        INNER JOIN pg_catalog.pg_class AS c ON s.relid = c.oid
        WHERE
            (s.schemaname = 'retally' AND s.relname IN ('pass', 'due', 'worker', 'history'))
            OR (
                s.schemaname = 'public'
                AND s.relname IN (
                    'proc', 'host', 'subscription', 'layer_resource', 'job_resource',
                    'folder_resource', 'point'
                )
            )
        ORDER BY s.n_dead_tup DESC, 1
    """
    return answers(conn, DeadRows, query)


def answers(
    conn: psycopg.Connection,
    kind: type[T],
    query: LiteralString,
    params: Mapping[str, Any] | None = None,
) -> list[T]:
    """The rows of a query, each as a record of this kind."""
    with translated(), conn.cursor(row_factory=class_row(kind)) as cursor:
        return cursor.execute(query, params).fetchall()
