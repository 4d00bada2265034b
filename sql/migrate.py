"""Brings retally's own tables to the version that this program knows.

Numbered files in ``sql/migrations`` are applied once each, in order, each recorded in
``retally.migration`` in its own transaction. A schema that is newer than this program is refused,
and so, wherever they are used, are routines that another version of the program has installed.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING

from retally.sql.errors import NotInstalledError
from retally.sql.text import sql_texts

if TYPE_CHECKING:
    import psycopg

#: Folders of routines, in the order in which they are created.
ROOMS = ("core", "opencue")

_SCHEMA = """
CREATE SCHEMA IF NOT EXISTS retally;
COMMENT ON SCHEMA retally IS 'retally: exact resource totals; dropped by `retally uninstall`.';
CREATE TABLE IF NOT EXISTS retally.migration (
    version integer CONSTRAINT migration_pk PRIMARY KEY,
    name text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
);
COMMENT ON TABLE retally.migration IS 'The migrations of retally''s own tables that were applied.';
"""


def known_version() -> int:
    """The schema version that this program brings."""
    return max(_migrations())


@cache
def known_digest() -> str:
    """The digest of all migrations and routines that this program brings, in hexadecimal."""
    digest = hashlib.sha256()
    for room, folder in (("sql", "migrations"), *(("procedures", room) for room in ROOMS)):
        for name, text in sorted(sql_texts(room, folder).items()):
            # no text holds a NUL, so that no two sets of files read alike
            digest.update(f"{folder}/{name}\0{text}\0".encode())
    return digest.hexdigest()


def schema_version(conn: psycopg.Connection) -> int | None:
    """The version of the schema ``retally`` in this database, None where it is not installed."""
    found = conn.execute("SELECT to_regclass('retally.migration') IS NOT NULL").fetchone()
    if found is None or not found[0]:
        return None
    row = conn.execute("SELECT coalesce(max(version), 0) FROM retally.migration").fetchone()
    return int(row[0]) if row else 0


def require_current(conn: psycopg.Connection) -> None:
    """Raise NotInstalledError unless schema and routines are there, of this program's version."""
    version = schema_version(conn)
    if version is None:
        raise NotInstalledError(
            f"retally is not installed in database {conn.info.dbname}", "run `retally install`"
        )
    if version < known_version():
        raise NotInstalledError(
            f"the schema retally has version {version}, this program needs {known_version()}",
            "run `retally install` again",
        )
    refuse_newer(version)
    _refuse_other_routines(conn)
    _refuse_lost_setting(conn)


def _refuse_other_routines(conn: psycopg.Connection) -> None:
    installed = conn.execute("SELECT i.program, i.digest FROM retally.installed AS i").fetchone()
    if installed is None or installed[1] != known_digest():
        brought = f"retally {installed[0]}" if installed else "an unknown program"
        raise NotInstalledError(
            f"the routines in the schema retally are not this program's: {brought} brought them",
            "run `retally install`, or take the retally that brought them",
        )


def _refuse_lost_setting(conn: psycopg.Connection) -> None:
    # without it no show is served, and nothing found adrift: a false all-clear
    row = conn.execute("SELECT EXISTS (SELECT FROM retally.setting)").fetchone()
    if row is None or not row[0]:
        raise NotInstalledError(
            "retally.setting has lost its row: no show is served, no drift found",
            "run `retally install`, which puts it back",
        )


def refuse_newer(version: int) -> None:
    """Raise NotInstalledError when the schema's version is beyond what this program knows."""
    if version > known_version():
        raise NotInstalledError(
            f"the schema retally has version {version}, this program knows {known_version()}",
            "upgrade this program",
        )


def migrate(conn: psycopg.Connection) -> list[str]:
    """Apply what is missing; answers with the names applied. The caller holds the transaction."""
    refuse_newer(schema_version(conn) or 0)
    if schema_version(conn) is None:
        conn.execute(_SCHEMA)
    done = schema_version(conn) or 0
    applied = []
    for version, (name, text) in sorted(_migrations().items()):
        if version > done:
            # recorded first: of two installs at once the second one stops here
            conn.execute(
                "INSERT INTO retally.migration (version, name) VALUES (%s, %s)", (version, name)
            )
            conn.execute(text)
            applied.append(name)
    return applied


def _migrations() -> dict[int, tuple[str, str]]:
    return {
        int(stem.split("_")[0]): (stem, text)
        for stem, text in sql_texts("sql", "migrations").items()
    }
