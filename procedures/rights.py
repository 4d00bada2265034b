"""The rights that a role needs, as data: asked for, compared with what it has, and granted."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from psycopg import sql

from retally.sql.errors import PermissionDeniedError, translated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

#: For whom there are rights.
PURPOSES = ("worker", "dispatcher", "reader")

#: What stands after ON in a GRANT.
_KINDS: Mapping[str, LiteralString] = {
    "schema": "SCHEMA",
    "routines": "ALL ROUTINES IN SCHEMA",
    "table": "TABLE",
}

_PRIVILEGES: Mapping[str, LiteralString] = {
    "USAGE": "USAGE",
    "EXECUTE": "EXECUTE",
    "SELECT": "SELECT",
    "INSERT": "INSERT",
    "UPDATE": "UPDATE",
    "DELETE": "DELETE",
}


@dataclass(frozen=True)
class Right:
    """A privilege on a schema, on all routines of one, or on a table, or on columns of it."""

    kind: str
    object: str
    privilege: str
    columns: tuple[str, ...]

    @property
    def text(self) -> str:
        """In words: UPDATE (a, b) on retally.x."""
        columns = f" ({', '.join(self.columns)})" if self.columns else ""
        return f"{self.privilege}{columns} on {self.object}"


def rights(conn: psycopg.Connection, purpose: str) -> list[Right]:
    """The rights that are enough for one of PURPOSES."""
    query: LiteralString = """
        SELECT r.kind, r.object, r.privilege, coalesce(r.columns, '{}') FROM retally.rights(%s) AS r
    """
    return _rights(conn, query, (purpose,))


def missing_rights(conn: psycopg.Connection, role: str, purpose: str) -> list[Right]:
    """Those of them that the role does not have."""
    query: LiteralString = """
        SELECT r.kind, r.object, r.privilege, coalesce(r.columns, '{}')
        FROM retally.missing_rights(%s, %s) AS r
    """
    return _rights(conn, query, (role, purpose))


def grants(wanted: Sequence[Right], role: str) -> list[sql.Composed]:
    """The GRANT statements for these rights, one for all objects that are granted the same."""
    by_object: dict[tuple[str, str], list[Right]] = defaultdict(list)
    for right in wanted:
        by_object[right.kind, right.object].append(right)
    alike: dict[tuple[object, ...], list[list[Right]]] = defaultdict(list)
    for found in by_object.values():
        alike[found[0].kind, *((right.privilege, right.columns) for right in found)].append(found)
    return [_grant(objects, role) for objects in alike.values()]


def grant(conn: psycopg.Connection, role: str, purpose: str) -> None:
    """Grant the rights for one of PURPOSES, in one transaction.

    Raises PermissionDeniedError when the role lacks any of them afterwards: who may not grant a
    privilege is only warned by the server.
    """
    with translated(), conn.transaction():
        for statement in grants(rights(conn, purpose), role):
            conn.execute(statement)
        if left := missing_rights(conn, role, purpose):
            raise PermissionDeniedError(
                f"this role may not grant {left[0].text}" + (" and more" if left[1:] else ""),
                "connect as the owner of the farm's tables and of the schema retally",
            )


def role_exists(conn: psycopg.Connection, role: str) -> bool:
    """Whether the server has a role of this name."""
    query: LiteralString = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)"
    with translated():
        row = conn.execute(query, (role,)).fetchone()
    return bool(row and row[0])


def _grant(objects: Sequence[Sequence[Right]], role: str) -> sql.Composed:
    """One statement: the rights of the first object, on all of them."""
    return sql.SQL("GRANT {} ON {} {} TO {}").format(
        sql.SQL(", ").join(_privilege(right) for right in objects[0]),
        sql.SQL(_KINDS[objects[0][0].kind]),
        sql.SQL(", ").join(sql.Identifier(*found[0].object.split(".")) for found in objects),
        sql.Identifier(role),
    )


def _privilege(right: Right) -> sql.Composable:
    privilege = sql.SQL(_PRIVILEGES[right.privilege])
    if not right.columns:
        return privilege
    listed = sql.SQL(", ").join(sql.Identifier(column) for column in right.columns)
    return sql.SQL("{} ({})").format(privilege, listed)


def _rights(conn: psycopg.Connection, query: LiteralString, params: Sequence[str]) -> list[Right]:
    with translated():
        rows = conn.execute(query, params).fetchall()
    return [Right(kind, name, privilege, tuple(columns)) for kind, name, privilege, columns in rows]
