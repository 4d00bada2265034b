"""One typed call per routine. Every one raises the typed errors of ``retally.sql.errors``.

The connections are in autocommit, so that each call is a transaction of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, LiteralString

from psycopg.rows import class_row, dict_row, tuple_row

from retally.procedures.records import (
    BY_HAND,
    Claim,
    Drift,
    Finding,
    HostDrift,
    LastPass,
    Orphan,
    Override,
    Pass,
    Show,
)
from retally.sql.errors import translated

if TYPE_CHECKING:
    from collections.abc import Sequence

    import psycopg


def check_farm(conn: psycopg.Connection) -> None:
    """Raise FarmSchemaError unless the farm has every column that retally uses."""
    _rows(conn, "SELECT retally.check_farm()")


def shows(conn: psycopg.Connection) -> list[Show]:
    """Every show of the farm, by name."""
    query: LiteralString = """
        SELECT s.show_id, s.name, s.managed, s.farm_flag, s.rebuilt, s.mode, s.journaled
        FROM retally.shows() AS s
    """
    with translated(), conn.cursor(row_factory=class_row(Show)) as cursor:
        return cursor.execute(query).fetchall()


def show_id(conn: psycopg.Connection, show: str) -> str:
    """The id of the show with this name or id. Raises UnknownShowError, AmbiguousShowError."""
    return str(_rows(conn, "SELECT retally.show_id(%s)", (show,))[0][0])


def drift(conn: psycopg.Connection, show_ids: Sequence[str], totals: Sequence[str]) -> list[Drift]:
    """The slots of these totals of these shows that differ, by show, total and key."""
    query: LiteralString = """
        SELECT d.show_name, d.total, d.name, d.key, d.slot, d.stored, d.booked
        FROM retally.named_drift(%s, %s) AS d
    """
    return [
        Drift(show, total, name, key, slot, None if old is None else int(old), int(new))
        for show, total, name, key, slot, old, new in _rows(
            conn, query, (list(show_ids), list(totals))
        )
    ]


def findings(
    conn: psycopg.Connection, show_ids: Sequence[str], totals: Sequence[str]
) -> list[Finding]:
    """What is adrift in these totals of these shows: one statement, one snapshot for all.

    One finding per show and total, quiet ones too. Raises UnknownTotalError.
    """
    query: LiteralString = """
        SELECT
            f.show_id, f.total, f.rows_adrift, f.rows_failed, f.core_units, f.gpus, f.problems,
            f::text
        FROM retally.findings(%s, %s) AS f
    """
    return [
        Finding(show, total, adrift, failed, int(cores), int(gpus), tuple(problems), token)
        for show, total, adrift, failed, cores, gpus, problems, token in _rows(
            conn, query, (list(show_ids), list(totals))
        )
    ]


def mend(
    conn: psycopg.Connection,
    found: Sequence[Finding],
    *,
    wait: bool,
    tick: str = BY_HAND,
    worker: str = BY_HAND,
    goes_on: bool = False,
) -> list[Pass]:
    """Lock, sum again and write what was found adrift in one show, in one transaction.

    ``wait``: wait for busy rows, within a bound; see docs/by-hand.md. ``tick`` and ``worker``: in
    whose name the passes are kept. ``goes_on``: with those of rebuild(), which has left these rows.
    Raises ShowBusyError when another writer holds the show.
    """
    query: LiteralString = """
        SELECT
            m.show_id, m.total, m.rows_adrift, m.rows_changed, m.rows_deferred, m.rows_failed,
            m.core_units, m.gpus, m.seconds, m.problems
        FROM retally.mend(%s::text[]::retally.finding[], %s, 'rebuilt', %s, %s, %s) AS m
    """
    return [
        Pass.of_row(*row)
        for row in _rows(conn, query, (_tokens(found), wait, tick, worker, goes_on))
    ]


def rebuild(
    conn: psycopg.Connection,
    show_ids: Sequence[str],
    totals: Sequence[str],
    *,
    tick: str = BY_HAND,
    worker: str = BY_HAND,
) -> list[Pass]:
    """Rebuild managed shows in one transaction, each whose totals nobody else is writing.

    One pass per show and total; none of a show that was left. Waits for no row; ``tick`` and
    ``worker``: in whose name the passes are kept.
    """
    query: LiteralString = """
        SELECT
            p.scope, p.total, p.rows_adrift, p.rows_changed, p.rows_deferred, p.rows_failed,
            p.core_units_adrift, p.gpus_adrift, p.seconds, p.problems
        FROM retally.rebuild(%s, %s, FALSE, %s, %s) AS p
    """
    arguments = (list(show_ids), list(totals), tick, worker)
    return [Pass.of_row(*row) for row in _rows(conn, query, arguments)]


def note_findings(
    conn: psycopg.Connection,
    found: Sequence[Finding],
    *,
    action: str,
    tick: str,
    worker: str,
    seconds: float,
) -> None:
    """Keep what was found as passes that wrote nothing: of quiet shows, and of watched ones."""
    query: LiteralString = """
        SELECT retally.note_findings(%s::text[]::retally.finding[], %s, %s, %s, %s)
    """
    _rows(conn, query, (_tokens(found), action, tick, worker, seconds))


def set_managed(conn: psycopg.Connection, show: str, *, managed: bool) -> tuple[str, ...]:
    """Set retally's own flag and rebuild the show's totals in the same transaction.

    Answers with the problems: totals that cannot be made exact, by name. Raises ShowBusyError when
    bookings stayed in flight and StillBusyError when a row of the totals stayed locked: then
    nothing has changed.
    """
    with translated(), conn.transaction(), conn.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute("CALL retally.set_managed(%s, %s)", (show, managed)).fetchone()
        return tuple(row["problems"] or ()) if row else ()


def set_override(conn: psycopg.Connection, override: str) -> Override:
    """Set the farm-wide override, one of OVERRIDES, and flip the shows that it concerns.

    Each show in a transaction of its own; one that stayed busy is left for the next call.
    """
    shows, left, problems = _rows(conn, "CALL retally.set_override(%s)", (override,))[0]
    return Override(shows, left, tuple(problems))


def override(conn: psycopg.Connection) -> str:
    """The farm-wide override in force, one of OVERRIDES."""
    return str(_rows(conn, "SELECT s.override FROM retally.setting AS s")[0][0])


def last_passes(conn: psycopg.Connection) -> list[LastPass]:
    """The latest pass by tick over each total of each show; none after a crash, or on a replica."""
    query: LiteralString = """
        SELECT
            p.scope AS show_id, p.tick, p.total, p.action, p.worker, p.finished_at, p.rows_adrift,
            p.rows_changed, p.rows_deferred, p.rows_failed,
            p.core_units_adrift::bigint AS core_units, p.gpus_adrift::bigint AS gpus, p.seconds,
            p.passes
        FROM retally.pass AS p
        ORDER BY p.scope, array_position(retally.totals(), p.total), p.tick
    """
    if _rows(conn, "SELECT pg_is_in_recovery()")[0][0]:
        return []  # unlogged tables are not there
    with translated(), conn.cursor(row_factory=class_row(LastPass)) as cursor:
        return cursor.execute(query).fetchall()


def orphans(conn: psycopg.Connection) -> list[Orphan]:
    """The procs whose show, job or layer the farm does not know; reads every proc."""
    query: LiteralString = """
        SELECT o.proc_id, o.show_id, o.cores, o.gpus, o.reason FROM retally.orphans() AS o
    """
    with translated(), conn.cursor(row_factory=class_row(Orphan)) as cursor:
        return cursor.execute(query).fetchall()


def host_drift(conn: psycopg.Connection) -> list[HostDrift]:
    """The idle amounts of hosts that do not agree with their procs; reads every proc."""
    query: LiteralString = """
        SELECT h.host AS host_id, h.name, h.slot, h.idle, h.expected FROM retally.host_drift() AS h
    """
    with translated(), conn.cursor(row_factory=class_row(HostDrift)) as cursor:
        return cursor.execute(query).fetchall()


def claim_due(
    conn: psycopg.Connection, tick: str, interval: float, show_ids: Sequence[str], worker: str
) -> Claim:
    """Take this worker's share of what is due in this tick. ``interval``: seconds."""
    query: LiteralString = """
        SELECT c.claimed, c.failures, c.due, c.late_in, c.next_in
        FROM retally.claim_due(%s, make_interval(secs => %s), %s, %s) AS c
    """
    row = _rows(conn, query, (tick, interval, list(show_ids), worker))[0]
    claimed, failures, left, late_in, next_in = row
    return Claim(dict(zip(claimed, failures, strict=True)), left, late_in, next_in)


def note_failure(
    conn: psycopg.Connection, tick: str, show_id: str, pause: float, error: str
) -> None:
    """Leave a show alone in this tick for ``pause`` seconds, whatever worker asks."""
    query: LiteralString = "SELECT retally.note_failure(%s, %s, make_interval(secs => %s), %s)"
    _rows(conn, query, (tick, show_id, pause, error))


def note_recovery(conn: psycopg.Connection, tick: str, show_ids: Sequence[str]) -> None:
    """Forget that passes of this tick over these shows have failed."""
    _rows(conn, "SELECT retally.note_recovery(%s, %s)", (tick, list(show_ids)))


def forget_worker(conn: psycopg.Connection, worker: str) -> None:
    """Take a worker that stops off the list; the others share out its shows at once."""
    _rows(conn, "SELECT retally.forget_worker(%s)", (worker,))


def set_mode(conn: psycopg.Connection, show: str, mode: str | None) -> None:
    """Say what the ticks do to a show while it is unmanaged; None: as the worker's settings say."""
    with translated():
        conn.execute("CALL retally.set_mode(%s, %s)", (show, mode))


def prune(conn: psycopg.Connection, rows: int) -> bool:
    """Delete what is older than its age in ``retally.setting``, about ``rows`` of each kind.

    Whether there may be more.
    """
    history, runs = _rows(conn, "CALL retally.prune(%s)", (rows,))[0]
    return bool(history >= rows or runs >= rows)


def _tokens(found: Sequence[Finding]) -> list[str]:
    return [finding.token for finding in found]


def _rows(
    conn: psycopg.Connection, query: LiteralString, params: Sequence[Any] = ()
) -> list[tuple[Any, ...]]:
    with translated(), conn.cursor(row_factory=tuple_row) as cursor:
        return cursor.execute(query, params).fetchall()
