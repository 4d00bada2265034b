"""Rebuilds the totals of many shows: managed ones together, the others show by show.

An unmanaged show is repaired: within limits, and with a ledger.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retally.procedures import journal, repairs, routines
from retally.procedures.records import BY_HAND, joined
from retally.sql.errors import DatabaseError, DatabaseUnreachableError, RetallyError, ShowBusyError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

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
    """What a rebuild did: one pass per show and total, and the shows that failed.

    ``run``: what was repaired, in the ledger; None where nothing was.
    """

    passes: tuple[Pass, ...]
    failures: tuple[Failure, ...]
    run: int | None = None


@dataclass(frozen=True)
class Repairs:
    """Which shows are unmanaged, by id, and so repaired; ``force`` lifts the limits.

    ``asked_by``: what the ledger says of it.
    """

    show_ids: Collection[str] = ()
    force: bool = False
    asked_by: str = BY_HAND


def rebuild(
    conn: psycopg.Connection,
    show_ids: Sequence[str],
    totals: Sequence[str],
    *,
    wait: bool,
    patience: float = 10.0,
    repaired: Repairs = Repairs(),
    on_show: Callable[[str], None] = lambda _: None,
) -> Outcome:
    """Rebuild these totals of these shows.

    Managed ones are rebuilt in one transaction, those that nobody else is writing; each other show
    gets a transaction of its own, and so does each of which rows were busy.

    ``wait``: wait for busy rows, and come back to a show for ``patience`` seconds while some stay
    busy. ``repaired``: those of them that are repaired, all in one run of the ledger. A show that
    fails holds up no other one; DatabaseUnreachableError ends the run.
    """
    passes: list[Pass] = []
    failures: list[Failure] = []
    shows = [show for show in routines.shows(conn) if show.show_id in show_ids]
    journaled = [show.show_id for show in shows if show.journaled]
    managed = [s.show_id for s in shows if s.managed and s.show_id not in repaired.show_ids]
    unfolded = _fold(conn, journaled, wait=wait, patience=patience)
    together = _together(conn, managed, totals)
    found = _find(conn, [i for i in show_ids if i not in together], totals)
    work = _Rebuild(conn, wait, patience, repaired)
    for show_id in show_ids:
        done = together.get(show_id, [])
        try:
            left = [p.total for p in done if p.rows_deferred]
            if not done or left:
                mine = found.get(show_id) or routines.findings(conn, [show_id], left or totals)
                done = joined(done, work.show(mine, goes_on=bool(left)))
        except DatabaseUnreachableError:
            raise
        except RetallyError as error:
            failures.append(Failure(show_id, error))
        else:
            if show_id in unfolded:
                failures.append(Failure(show_id, unfolded[show_id]))
        passes += done
        on_show(show_id)
    return Outcome(tuple(passes), tuple(failures), work.run)


def _fold(
    conn: psycopg.Connection, show_ids: Sequence[str], *, wait: bool, patience: float
) -> dict[str, RetallyError]:
    """Fold the journal of these, which is no drift; why not, by show, of those that failed."""
    until = time.monotonic() + patience
    if not show_ids or _folded(conn, show_ids, wait=wait, until=until) is None:
        return {}
    # one that is busy or fails must not stop the others
    errors = {i: _folded(conn, [i], wait=wait, until=until) for i in show_ids}
    return {show_id: error for show_id, error in errors.items() if error}


def _folded(
    conn: psycopg.Connection, show_ids: Sequence[str], *, wait: bool, until: float
) -> RetallyError | None:
    """Fold these shows in one transaction, again and again while they are busy; why not."""
    while True:
        try:
            with conn.transaction():
                journal.fold(conn, show_ids, wait=wait)
        except DatabaseUnreachableError:
            raise
        except ShowBusyError as error:
            if not wait or time.monotonic() >= until:
                return error
        except RetallyError as error:
            return error
        else:
            return None


def _together(
    conn: psycopg.Connection, show_ids: Sequence[str], totals: Sequence[str]
) -> dict[str, list[Pass]]:
    """Rebuild these shows in one transaction; the passes by show, of those that could be had."""
    by_show: dict[str, list[Pass]] = defaultdict(list)
    try:
        for each in routines.rebuild(conn, show_ids, totals):
            by_show[each.show_id].append(each)
    except DatabaseUnreachableError:
        raise
    except RetallyError:
        # the data of one show must not stop the others: each gets a transaction of its own
        return {}
    return by_show


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


class _Rebuild:
    """Mends one show after the other; ``run``: the run of the ledger, once there is one."""

    def __init__(
        self, conn: psycopg.Connection, wait: bool, patience: float, repaired: Repairs
    ) -> None:
        self.run: int | None = None
        self._conn = conn
        self._wait = wait
        self._patience = patience
        self._repaired = repaired

    def show(self, found: Sequence[Finding], *, goes_on: bool) -> list[Pass]:
        """Mend until nothing is left busy or patience is over; every try is a transaction."""
        until = time.monotonic() + self._patience
        passes = self._mend(found, until, goes_on=goes_on)
        while self._wait and any(p.rows_deferred for p in passes) and time.monotonic() < until:
            left = [p.total for p in passes if p.rows_deferred]
            again = routines.findings(self._conn, [found[0].show_id], left)
            passes = joined(passes, self._mend(again, until, goes_on=True))
        return passes

    def _mend(self, found: Sequence[Finding], until: float, *, goes_on: bool) -> list[Pass]:
        while True:
            try:
                with self._conn.transaction():
                    if found[0].show_id not in self._repaired.show_ids:
                        return routines.mend(self._conn, found, wait=self._wait, goes_on=goes_on)
                    done = self._repair(found)
            except ShowBusyError:
                # with wait, the routine has already waited for the other writer as long as is safe
                if not self._wait or time.monotonic() >= until:
                    raise
            else:
                self.run = done.run
                return list(done.passes)

    def _repair(self, found: Sequence[Finding]) -> repairs.Repair:
        return repairs.repair(
            self._conn,
            found,
            wait=self._wait,
            tick=BY_HAND,
            worker=self._conn.info.user,
            asked_by=self._repaired.asked_by,
            force=self._repaired.force,
            run=self.run,
        )
