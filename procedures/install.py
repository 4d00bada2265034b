"""Puts retally into a database and takes it out again, each in one transaction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from psycopg import errors as pg_errors
from psycopg import sql

from retally.sql.errors import RetallyError, translated
from retally.sql.migrate import known_version, migrate, refuse_newer, schema_version
from retally.sql.text import sql_texts

if TYPE_CHECKING:
    import psycopg

#: Folders of routines, in the order in which they are created.
ROOMS = ("core", "opencue")

_ROUTINES = """
SELECT p.oid::regprocedure::text, p.prokind = 'p'
FROM pg_catalog.pg_proc AS p
WHERE p.pronamespace = 'retally'::regnamespace AND (%(name)s::text IS NULL OR p.proname = %(name)s)
"""

# Whoever builds on retally's objects must not lose theirs to DROP SCHEMA … CASCADE.
_DEPENDENTS = """
SELECT DISTINCT pg_describe_object(d.classid, d.objid, 0)
FROM pg_catalog.pg_depend AS d
LEFT JOIN pg_catalog.pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND d.objid = w.oid
LEFT JOIN pg_catalog.pg_class AS c
    ON c.oid = coalesce(w.ev_class, CASE WHEN d.classid = 'pg_class'::regclass THEN d.objid END)
WHERE
    d.deptype = 'n'
    AND (d.refclassid, d.refobjid) IN (
        SELECT 'pg_proc'::regclass, p.oid
        FROM pg_catalog.pg_proc AS p WHERE p.pronamespace = 'retally'::regnamespace
        UNION ALL
        SELECT 'pg_class'::regclass, k.oid
        FROM pg_catalog.pg_class AS k WHERE k.relnamespace = 'retally'::regnamespace
    )
    AND c.relnamespace <> 'retally'::regnamespace
ORDER BY 1
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
    with translated(), conn.transaction():
        # one install at a time in this database
        conn.execute("SELECT pg_advisory_xact_lock(hashtextextended('retally install', 0))")
        # routines name each other; every one of them is exercised by a test
        conn.execute("SET LOCAL check_function_bodies = off")
        conn.execute("SET LOCAL client_min_messages = warning")
        applied = migrate(conn)
        wanted = {name: text for room in ROOMS for name, text in _room(room).items()}
        for name, text in wanted.items():
            _replace(conn, name, text)
        _drop_others(conn, set(wanted))
        conn.execute("SELECT retally.check_farm()")
        return Installed(tuple(applied), len(wanted), known_version())


def uninstall(conn: psycopg.Connection) -> bool:
    """Drop the schema ``retally`` with all that is in it; False where there is none.

    The farm is left as it was. Raises RetallyError when others' objects use retally's.
    """
    with translated(), conn.transaction():
        version = schema_version(conn)
        if version is None:
            return False
        refuse_newer(version)
        users = [row[0] for row in conn.execute(_DEPENDENTS)]
        if users:
            raise RetallyError(f"in use by {', '.join(users)}", "drop what uses retally first")
        conn.execute("SET LOCAL client_min_messages = warning")
        conn.execute("DROP SCHEMA retally CASCADE")
        return True


def _room(room: str) -> dict[str, str]:
    return dict(sql_texts("procedures", room))


def _replace(conn: psycopg.Connection, name: str, text: str) -> None:
    """Create the routine anew; drop the former one where its signature or result changed."""
    before = _routines(conn, name)
    try:
        with conn.transaction():
            conn.execute(text.encode())
    except pg_errors.InvalidFunctionDefinition:
        _drop(conn, before)
        conn.execute(text.encode())
        return
    after = _routines(conn, name)
    if before and set(after) != set(before):
        # one routine per name: a new signature stands beside the former one
        _drop(conn, before)


def _drop_others(conn: psycopg.Connection, wanted: set[str]) -> None:
    names = {row[0] for row in conn.execute(_NAMES)}
    for name in names - wanted:
        _drop(conn, _routines(conn, name))


_NAMES = "SELECT proname FROM pg_catalog.pg_proc WHERE pronamespace = 'retally'::regnamespace"


def _routines(conn: psycopg.Connection, name: str) -> dict[str, bool]:
    """Signature to whether it is a procedure, for every routine of this name."""
    return dict(conn.execute(_ROUTINES, {"name": name}).fetchall())


def _drop(conn: psycopg.Connection, routines: dict[str, bool]) -> None:
    for signature in routines:
        conn.execute(sql.SQL("DROP ROUTINE {}").format(sql.SQL(signature)))
