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


_GRANT = sql.SQL("GRANT {} ON {} {} TO {}")
_REVOKE = sql.SQL("REVOKE {} ON {} {} FROM {}")
_BY_OWNER = "connect as the owner of the farm's tables and of the schema retally"

# By the catalog's own lists: the functions that answer for a role count what it has by others.
_HELD: LiteralString = """
WITH wanted AS (
    SELECT DISTINCT r.kind, r.object, r.privilege, k.column_name
    FROM unnest(%(purposes)s::text[]) AS p (purpose)
    CROSS JOIN LATERAL retally.rights(p.purpose) AS r
    LEFT JOIN LATERAL unnest(r.columns) AS k (column_name) ON TRUE
),

lists AS (
    SELECT
        'schema' AS kind, n.nspname::text AS object, NULL::text AS column_name,
        n.nspowner AS owner_id, n.nspacl AS acl
    FROM pg_catalog.pg_namespace AS n
    UNION ALL
    SELECT 'routines', n.nspname, NULL, p.proowner, p.proacl
    FROM pg_catalog.pg_proc AS p
    INNER JOIN pg_catalog.pg_namespace AS n ON p.pronamespace = n.oid
    UNION ALL
    SELECT 'table', n.nspname || '.' || c.relname, NULL, c.relowner, c.relacl
    FROM pg_catalog.pg_class AS c
    INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
    UNION ALL
    SELECT 'table', n.nspname || '.' || c.relname, a.attname, c.relowner, a.attacl
    FROM pg_catalog.pg_attribute AS a
    INNER JOIN pg_catalog.pg_class AS c ON a.attrelid = c.oid
    INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
    WHERE a.attacl IS NOT NULL
),

granted AS (
    SELECT DISTINCT
        g.rolname::text AS role_name, w.kind, w.object, w.privilege, w.column_name
    FROM wanted AS w
    INNER JOIN lists AS l
        ON w.kind = l.kind AND w.object = l.object
        AND w.column_name IS NOT DISTINCT FROM l.column_name
    CROSS JOIN LATERAL aclexplode(l.acl) AS a
    INNER JOIN pg_catalog.pg_roles AS g ON a.grantee = g.oid
    WHERE a.privilege_type = w.privilege AND a.grantee <> l.owner_id
)

SELECT
    h.role_name, h.kind, h.object, h.privilege,
    coalesce(
        array_agg(h.column_name ORDER BY h.column_name) FILTER (WHERE h.column_name IS NOT NULL),
        '{}'
    )
FROM granted AS h
WHERE
    CASE
        WHEN %(role)s::text IS NOT NULL THEN h.role_name = %(role)s
        ELSE EXISTS (
            SELECT FROM granted AS e
            WHERE e.role_name = h.role_name AND e.kind = 'schema' AND e.object = 'retally'
        )
    END
GROUP BY h.role_name, h.kind, h.object, h.privilege, h.column_name IS NULL
ORDER BY 1, 2, 3, 4
"""


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
    return [_statement(_GRANT, objects, role) for objects in _alike(wanted)]


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
                _BY_OWNER,
            )


def held(
    conn: psycopg.Connection, purposes: Sequence[str] = PURPOSES, role: str | None = None
) -> dict[str, list[Right]]:
    """Those of the rights for these purposes that were granted to roles by name, by role.

    Not those of owners, nor what a role has through PUBLIC, another role or being a superuser.
    ``role``: only this one's; otherwise of all roles that were let into the schema ``retally``.
    """
    params = {"purposes": list(purposes), "role": role}
    found: dict[str, list[Right]] = defaultdict(list)
    with translated():
        for name, kind, thing, privilege, columns in conn.execute(_HELD, params):
            found[name].append(Right(kind, thing, privilege, tuple(columns)))
    return dict(found)


def revokes(granted: Sequence[Right], role: str) -> list[sql.Composed]:
    """The REVOKE statements that take these rights back."""
    return [_statement(_REVOKE, objects, role) for objects in _alike(granted)]


def revoke(conn: psycopg.Connection, role: str, purpose: str) -> None:
    """Take back what was granted for one of PURPOSES, in one transaction.

    Raises PermissionDeniedError when the role still has any of it afterwards.
    """
    with translated(), conn.transaction():
        for statement in revokes(held(conn, [purpose], role).get(role, []), role):
            conn.execute(statement)
        if left := held(conn, [purpose], role).get(role):
            raise PermissionDeniedError(
                f"this role may not revoke {left[0].text}" + (" and more" if left[1:] else ""),
                _BY_OWNER,
            )


def role_exists(conn: psycopg.Connection, role: str) -> bool:
    """Whether the server has a role of this name."""
    query: LiteralString = "SELECT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = %s)"
    with translated():
        row = conn.execute(query, (role,)).fetchone()
    return bool(row and row[0])


def _alike(wanted: Sequence[Right]) -> list[list[list[Right]]]:
    """By object; and those objects together that have the same rights."""
    by_object: dict[tuple[str, str], list[Right]] = defaultdict(list)
    for right in wanted:
        by_object[right.kind, right.object].append(right)
    alike: dict[tuple[object, ...], list[list[Right]]] = defaultdict(list)
    for found in by_object.values():
        alike[found[0].kind, *((right.privilege, right.columns) for right in found)].append(found)
    return list(alike.values())


def _statement(template: sql.SQL, objects: Sequence[Sequence[Right]], role: str) -> sql.Composed:
    """One statement: the rights of the first object, on all of them."""
    return template.format(
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
