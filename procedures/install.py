"""Puts retally into a database and takes it out again, each in one transaction."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from importlib.metadata import version as version_of
from typing import TYPE_CHECKING

from psycopg import errors as pg_errors
from psycopg import sql

from retally.sql.errors import PermissionDeniedError, RetallyError, translated
from retally.sql.migrate import (
    ROOMS,
    known_digest,
    known_version,
    migrate,
    refuse_newer,
    schema_version,
)
from retally.sql.text import sql_texts

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

_ROUTINES = """
SELECT p.oid::regprocedure::text
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = to_regnamespace('retally') AND p.proname = %(name)s
ORDER BY 1
"""

_NAMES = "SELECT proname FROM pg_catalog.pg_proc WHERE pronamespace = to_regnamespace('retally')"

# In the order in which they may go. Our own names only: what others have put into the schema, or
# built on what is ours, makes the server refuse, and name it.
_TABLES = (
    "ledger",
    "run",
    "worker",
    "due",
    "deferred",
    "history",
    "pass",
    "scope_mode",
    "scope_flag",
    "lease",
    "journal",
    "setting",
    "installed",
    "migration",
)
_DROP_REST = """
DROP TYPE retally.finding;
DROP TYPE retally.booking;
DROP TYPE retally.amount;
DROP TYPE retally.change;
DROP TYPE retally.comparison;
DROP TYPE retally.seizure;
DROP TYPE retally.delta;
DROP SCHEMA retally;
"""

_MANAGED = """
SELECT s.show_id FROM retally.shows() AS s
WHERE s.managed
ORDER BY s.show_id
"""

_TRIGGERS = """
SELECT t.tgname
FROM pg_catalog.pg_trigger AS t
INNER JOIN pg_catalog.pg_proc AS p ON t.tgfoid = p.oid
WHERE
    t.tgrelid = to_regclass('public.proc') AND p.pronamespace = to_regnamespace('retally')
ORDER BY t.tgname
"""

# A TRUNCATE, or a restore without rows, takes it away.
_SETTING = "INSERT INTO retally.setting DEFAULT VALUES ON CONFLICT (only_row) DO NOTHING"

_OWNER = """
SELECT pg_catalog.pg_get_userbyid(n.nspowner)::text, pg_catalog.current_database()::text
FROM (SELECT pg_catalog.to_regnamespace('retally')::oid AS oid) AS s
LEFT JOIN pg_catalog.pg_namespace AS n ON s.oid = n.oid
"""

# Not touched where the digest is the same: installing twice changes nothing.
_RECORD = """
INSERT INTO retally.installed AS i (program, digest) VALUES (%s, %s)
ON CONFLICT (only_row) DO UPDATE
SET
    program = excluded.program, digest = excluded.digest,
    installed_at = clock_timestamp(), installed_by = current_user
WHERE i.digest <> excluded.digest
"""

_OCCUPIED = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_class WHERE relnamespace = to_regnamespace('retally'))
OR EXISTS (SELECT FROM pg_catalog.pg_proc WHERE pronamespace = to_regnamespace('retally'))
"""


@dataclass(frozen=True)
class Installed:
    """What an install did: migrations applied by name, number of routines, schema version."""

    migrations: tuple[str, ...]
    routines: int
    version: int


def install(conn: psycopg.Connection) -> Installed:
    """Create or bring up to date the schema ``retally``; installing twice changes nothing.

    Raises FarmSchemaError when the database holds no farm or too old a one, NotInstalledError
    when the schema is newer than this program, PermissionDeniedError.
    """
    with _owner_told(conn), translated(), conn.transaction():
        # one install at a time in this database
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('retally install', 0))")
        # routines name each other; every one of them is exercised by a test
        conn.execute("SET LOCAL check_function_bodies = off")
        conn.execute("SET LOCAL client_min_messages = warning")
        _refuse_strangers(conn)
        applied = migrate(conn)
        wanted = {name: text for room in ROOMS for name, text in _room(room).items()}
        for name, text in wanted.items():
            _replace(conn, name, text)
        _drop_others(conn, set(wanted))
        conn.execute("SELECT retally.check_farm()")
        conn.execute(_SETTING)
        conn.execute(_RECORD, (version_of("retally"), known_digest()))
        return Installed(tuple(applied), len(wanted), known_version())


def uninstall(conn: psycopg.Connection) -> bool:
    """Drop the schema ``retally`` with all that is in it; False where there is none.

    The farm is left as it was, but for the totals of managed shows: they are rebuilt, for whoever
    counts on from there. Raises StillUsedError, which names them, when objects of others use ours
    or stand in the schema; ShowBusyError and StillBusyError when a managed show cannot be rebuilt
    now; PermissionDeniedError. Nothing is dropped then, but the journal is off. What roles were
    granted on the farm's own tables is left: see ``rights.held``.
    """
    with _owner_told(conn), translated(), conn.transaction():
        # by itself: who waits for proc below must hold no row that its writers wait for
        if schema_version(conn) == known_version():
            _end_journal(conn)
    with _owner_told(conn), translated(), conn.transaction():
        version = schema_version(conn)
        if version is None:
            return False
        refuse_newer(version)
        if version == known_version():
            _hand_back(conn)
        migrate(conn)  # what an older version has left goes by its present names
        _drop_triggers(conn)
        ours = [name for room in ROOMS for name in _room(room)]
        _drop(conn, [each for name in ours for each in _routines(conn, name)])
        tables = ", ".join(f"retally.{table}" for table in _TABLES)
        conn.execute(f"DROP TABLE {tables};{_DROP_REST}".encode())
        return True


@contextlib.contextmanager
def _owner_told(conn: psycopg.Connection) -> Iterator[None]:
    """Who may do it, in place of a hint at rights that can be granted: these cannot."""
    try:
        yield
    except PermissionDeniedError as error:
        raise PermissionDeniedError(str(error), _who_may(conn)) from error


def _who_may(conn: psycopg.Connection) -> str:
    with translated():
        row = conn.execute(_OWNER).fetchone()
    owner, database = row or (None, conn.info.dbname)
    if owner is None:
        return f"it takes a role that may read the farm's tables, and CREATE in database {database}"
    return f"only the owner of the schema retally can: connect as {owner}, or as a superuser"


def _hand_back(conn: psycopg.Connection) -> None:
    """Flip every managed show, so that its totals are exact at the end, and wait for bookings."""
    managed = conn.execute(_MANAGED).fetchall()
    if managed:
        conn.execute("SELECT retally.change_override('none', '{}')")
    for (show_id,) in managed:
        conn.execute("SELECT retally.flip(%s, NULL)", (show_id,))


def _end_journal(conn: psycopg.Connection) -> None:
    """Turn the journal off for all shows; who books waits for a moment."""
    try:
        conn.execute("CALL retally.end_journal()")
    except pg_errors.InsufficientPrivilege as error:
        raise _not_procs_owner() from error


def _drop_triggers(conn: psycopg.Connection) -> None:
    """Take the journal's triggers off the farm's proc; who books waits as long as this takes."""
    conn.execute("SET LOCAL lock_timeout = '5s'")
    try:
        for (name,) in conn.execute(_TRIGGERS).fetchall():
            conn.execute(sql.SQL("DROP TRIGGER {} ON public.proc").format(sql.Identifier(name)))
    except pg_errors.InsufficientPrivilege as error:
        raise _not_procs_owner() from error


def _not_procs_owner() -> RetallyError:
    return RetallyError(
        "the journal's triggers are on the farm's table proc, which this role does not own",
        "as its owner, first: `retally journal --all off`",
    )


def _room(room: str) -> dict[str, str]:
    return dict(sql_texts("procedures", room))


def _refuse_strangers(conn: psycopg.Connection) -> None:
    """A schema of our name that is not ours must not be taken over."""
    occupied = conn.execute(_OCCUPIED).fetchone()
    if schema_version(conn) is None and occupied is not None and occupied[0]:
        raise RetallyError(
            "this database has a schema retally that holds other things",
            "rename that schema: ALTER SCHEMA retally RENAME TO …",
        )


def _replace(conn: psycopg.Connection, name: str, text: str) -> None:
    """Create the routine anew; drop the former one where its signature, result or kind changed."""
    before = _routines(conn, name)
    try:
        with conn.transaction():
            conn.execute(text.encode())
    except (pg_errors.InvalidFunctionDefinition, pg_errors.WrongObjectType):
        _drop(conn, before)
        conn.execute(text.encode())
        return
    if before and _routines(conn, name) != before:
        # one routine per name: a new signature stands beside the former one
        _drop(conn, before)


def _drop_others(conn: psycopg.Connection, wanted: set[str]) -> None:
    names = {row[0] for row in conn.execute(_NAMES)}
    for name in names - wanted:
        _drop(conn, _routines(conn, name))


def _routines(conn: psycopg.Connection, name: str) -> list[str]:
    """The signature of every routine of this name."""
    return [row[0] for row in conn.execute(_ROUTINES, {"name": name})]


def _drop(conn: psycopg.Connection, signatures: Sequence[str]) -> None:
    """All in one statement, as they may need each other. Refused where others need them."""
    if signatures:
        listed = sql.SQL(", ").join(sql.SQL(each) for each in signatures)
        conn.execute(sql.SQL("DROP ROUTINE {}").format(listed))
