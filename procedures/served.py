"""What `retally doctor` asks about how the shows are served; see ``checks``.

Every call raises the typed errors of ``retally.sql.errors``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, LiteralString

from retally.procedures.checks import answers
from retally.sql.errors import translated

if TYPE_CHECKING:
    from datetime import datetime

    import psycopg


@dataclass(frozen=True)
class UnservedShow:
    """A show that the ticks should serve, and what is wrong.

    ``fault``: failing or refused (in ``tick``), or late (``totals``). ``last_pass`` is
    None when none is known.
    """

    show_id: str
    name: str
    rebuilt: bool
    fault: str
    tick: str | None
    totals: list[str] | None
    last_pass: datetime | None
    error: str | None


@dataclass(frozen=True)
class AdriftShow:
    """An unmanaged show that the latest passes over it found adrift and left so."""

    show_id: str
    name: str
    rows: int


def unserved_shows(conn: psycopg.Connection, after: float) -> list[UnservedShow]:
    """The shows that the ticks should serve and have not for ``after`` seconds, or that fail."""
    query: LiteralString = "SELECT * FROM retally.unserved_shows(make_interval(secs => %(after)s))"
    return answers(conn, UnservedShow, query, {"after": after})


def unseen_shows(conn: psycopg.Connection, fresh: float) -> list[str]:
    """The shows that the ticks are to look at, by name, when nothing does; else none.

    No worker is alive, and no totals were rebuilt more than once by hand, as pg_cron does it, with
    the last time within ``fresh`` seconds.
    """
    query: LiteralString = """
        SELECT s.name
        FROM retally.shows() AS s
        WHERE
            (s.rebuilt OR s.mode IN ('watch', 'repair'))
            AND NOT EXISTS (
                SELECT FROM retally.worker AS w
                WHERE retally.is_alive(w.seen_at, w.every, clock_timestamp())
            )
            AND NOT EXISTS (
                SELECT FROM retally.pass AS p
                WHERE
                    p.tick = 'by hand'
                    AND p.passes > 1
                    AND p.finished_at > clock_timestamp() - make_interval(secs => %(fresh)s)
            )
        ORDER BY s.name, s.show_id
    """
    with translated():
        return [str(row[0]) for row in conn.execute(query, {"fresh": fresh})]


def adrift_shows(conn: psycopg.Connection, fresh: float) -> list[AdriftShow]:
    """The unmanaged shows that passes of the last ``fresh`` seconds watched and found adrift.

    Of each total the latest pass counts, whichever tick made it.
    """
    query: LiteralString = """
        WITH latest AS (
            SELECT DISTINCT ON (p.scope, p.total)
                p.scope, p.action, p.rows_adrift, p.finished_at
            FROM retally.pass AS p
            ORDER BY p.scope, p.total, p.finished_at DESC
        )

        SELECT s.show_id, s.name, sum(l.rows_adrift)::bigint AS rows
        FROM latest AS l
        INNER JOIN retally.shows() AS s ON l.scope = s.show_id
        WHERE
            l.action = 'watched'
            AND l.rows_adrift > 0
            AND l.finished_at > clock_timestamp() - make_interval(secs => %(fresh)s)
            AND NOT s.rebuilt
            AND s.mode IS DISTINCT FROM 'off'
        GROUP BY s.show_id, s.name
        ORDER BY s.name, s.show_id
    """
    return answers(conn, AdriftShow, query, {"fresh": fresh})


def live_workers(conn: psycopg.Connection) -> list[str]:
    """The workers that are taken for alive."""
    query: LiteralString = """
        SELECT DISTINCT w.worker
        FROM retally.worker AS w
        WHERE retally.is_alive(w.seen_at, w.every, clock_timestamp())
        ORDER BY w.worker
    """
    with translated():
        return [str(row[0]) for row in conn.execute(query)]
