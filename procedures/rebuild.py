"""Rebuilds the totals of many shows: found in one statement, mended show by show."""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retally.procedures import routines
from retally.sql.errors import DatabaseError, DatabaseUnreachableError, RetallyError, ShowBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

    from retally.procedures.records import Finding, Pass


@dataclass(frozen=True)
class Failure:
    """A show that could not be rebuilt, and why; ``busy``: another writer held it throughout."""

    show_id: str
    error: RetallyError

    @property
    def busy(self) -> bool:
        """Whether trying again later is all there is to do."""
        return isinstance(self.error, ShowBusyError)


@dataclass(frozen=True)
class Outcome:
    """What a rebuild did: one pass per show and total, and the shows that failed."""

    passes: tuple[Pass, ...]
    failures: tuple[Failure, ...]


def rebuild(
    conn: psycopg.Connection,
    show_ids: Sequence[str],
    totals: Sequence[str],
    *,
    wait: bool,
    patience: float = 10.0,
    on_show: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Rebuild these totals of these shows, each show in a transaction of its own.

    ``wait``: wait for busy rows, and come back to a show for ``patience`` seconds while some stay
    busy. A show that fails holds up no other one; DatabaseUnreachableError ends the run.
    """
    found = _find(conn, show_ids, totals)
    passes: list[Pass] = []
    failures: list[Failure] = []
    for show_id in show_ids:
        try:
            mine = found[show_id] if found else routines.findings(conn, [show_id], totals)
            passes += _rebuild_one(conn, mine, wait, patience)
        except DatabaseUnreachableError:
            raise
        except RetallyError as error:
            failures.append(Failure(show_id, error))
        on_show(show_id)
    return Outcome(tuple(passes), tuple(failures))


def _find(
    conn: psycopg.Connection, show_ids: Sequence[str], totals: Sequence[str]
) -> dict[str, list[Finding]]:
    """What is adrift by show, found in one statement; empty where that one statement fails.

    Each show is then looked at by itself, so that bad data of one does not stop the others.
    """
    found: dict[str, list[Finding]] = defaultdict(list)
    try:
        for finding in routines.findings(conn, show_ids, totals):
            found[finding.show_id].append(finding)
    except DatabaseError:
        return {}
    return found


def _rebuild_one(
    conn: psycopg.Connection, found: Sequence[Finding], wait: bool, patience: float
) -> list[Pass]:
    """Mend until nothing is left busy or patience is over; every try is a transaction."""
    until = time.monotonic() + patience
    passes = _mend(conn, found, wait, until)
    while wait and any(p.rows_deferred for p in passes) and time.monotonic() < until:
        left = [p.total for p in passes if p.rows_deferred]
        again = routines.findings(conn, [found[0].show_id], left)
        passes = _joined(passes, _mend(conn, again, wait, until))
    return passes


def _mend(
    conn: psycopg.Connection, found: Sequence[Finding], wait: bool, until: float
) -> list[Pass]:
    while True:
        try:
            with conn.transaction():
                return routines.mend(conn, found, wait=wait)
        except ShowBusyError:
            # with wait, the routine has already waited for the other writer as long as is safe
            if not wait or time.monotonic() >= until:
                raise


def _joined(before: Sequence[Pass], after: Sequence[Pass]) -> list[Pass]:
    """The passes of two tries as one: drift as first found, work added up, the rest as last."""
    later = {p.total: p for p in after}
    return [
        replace(
            p,
            rows_changed=p.rows_changed + later[p.total].rows_changed,
            rows_deferred=later[p.total].rows_deferred,
            rows_failed=later[p.total].rows_failed,
            seconds=p.seconds + later[p.total].seconds,
            problems=later[p.total].problems,
        )
        if p.total in later
        else p
        for p in before
    ]
