"""What one pass does to the shows that a worker has claimed: find, keep, mend."""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from retally.procedures import Pass, repairs, routines
from retally.procedures.records import joined
from retally.sql.errors import (
    DatabaseError,
    DatabaseUnreachableError,
    RetallyError,
    ShowBusyError,
)
from retally.worker.database import WorkerStoppingError
from retally.worker.faults import gave_way
from retally.worker.folding import Folding
from retally.worker.outcome import Outcome
from retally.worker.settling import Settling, unwritten
from retally.worker.spread import spread
from retally.worker.together import together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import psycopg

    from retally.procedures import Finding, Show
    from retally.worker.report import Report
    from retally.worker.ticks import Shared, Tick

    Found = dict[str, list[Finding]]
    Begun = Mapping[str, Sequence[Pass]]
    Claimed = tuple[Show, str]  # a show and the action of its pass


@dataclass
class _Folded:
    """What became of journaled shows: served, to be served in full, and those that have failed."""

    served: list[str] = field(default_factory=list)
    left: list[Claimed] = field(default_factory=list)
    failed: set[str] = field(default_factory=set)


class Passes:
    """Serves claimed shows, each with an action: rebuilt, watched or repaired."""

    def __init__(self, tick: Tick, shared: Shared, report: Report) -> None:
        self._tick = tick
        self._shared = shared
        self._report = report
        self._folding = Folding(tick, shared, report)
        self._settling = Settling(tick, shared, report)

    def serve(self, shows: Sequence[Claimed], failures: Mapping[str, int]) -> None:
        """One pass over these shows; ``failures``: how many passes running have failed, by id.

        Raises what ends the whole pass: a lost database, the worker's end, and what stands in the
        way of all shows.
        """
        folded = self._fold([show for show, _ in shows if show.journaled], failures)
        served = folded.served
        left = [each for each in shows if not each[0].journaled] + folded.left
        self._folding.forget(show for show, _ in left if not show.journaled)
        if left and not self._shared.stop.is_set():
            served += self._serve_in_full(left, failures)
        recovered = {show_id for show_id in served if failures[show_id]} - folded.failed
        if recovered:
            with self._shared.database.transaction() as conn:
                routines.note_recovery(conn, self._tick.name, sorted(recovered))

    def _fold(self, shows: Sequence[Show], failures: Mapping[str, int]) -> _Folded:
        """Fold the journal of journaled shows."""
        folded = _Folded()
        begun = {show.show_id: show for show in shows}
        for outcome in self._folding.fold(shows) if shows else ():
            show = begun.pop(outcome.show.show_id)
            self._shared.health.moved(self._tick.name)
            if self._settling.settle(outcome, failures):
                if self._folding.due(outcome):
                    folded.left.append((show, "rebuilt"))
                else:
                    folded.served.append(show.show_id)
            elif outcome.error is not None and not gave_way(outcome.error):
                # without the journal, its totals are made exact all the same
                folded.failed.add(show.show_id)
                folded.left.append((show, "rebuilt"))
        # these are not journaled any more
        folded.left += [(replace(show, journaled=False), "rebuilt") for show in begun.values()]
        return folded

    def _serve_in_full(self, shows: Sequence[Claimed], failures: Mapping[str, int]) -> list[str]:
        """A full pass over these shows; the ids of those that were served."""
        outcomes = self._rebuild_together([s for s, action in shows if _goes_together(s, action)])
        # a show of which it has left busy rows gets a pass by itself, which may wait for them
        begun = {each.show.show_id: each.passes for each in outcomes if each.rows_deferred}
        whole = [each for each in outcomes if not each.rows_deferred]
        served = self._settle_each(whole, failures, [])
        done = {each.show.show_id for each in whole}
        if others := [each for each in shows if each[0].show_id not in done]:
            served += self._serve_singly(others, begun, failures)
        return served

    def _serve_singly(
        self, shows: Sequence[Claimed], begun: Begun, failures: Mapping[str, int]
    ) -> list[str]:
        """A full pass over these shows, each of which has a transaction of its own to be mended."""
        started = time.monotonic()
        found = self._find([show for show, _ in shows if show.show_id not in begun])
        seconds = time.monotonic() - started
        # most shows have nothing to write: all of these are kept in one transaction
        still, others = _parted(shows, found)
        self._settling.keep(still, found, seconds)
        for show, _ in still:
            self._folding.audited(show, unwritten(found[show.show_id], seconds))
        ending: list[Exception] = []
        served = self._settle_each(self._tries(others, found, begun, ending), failures, ending)
        if ending:
            raise ending[0]
        return [*(show.show_id for show, _ in still), *served]

    def _settle_each(
        self, outcomes: Iterable[Outcome], failures: Mapping[str, int], ending: list[Exception]
    ) -> list[str]:
        """Report each outcome; answer with the shows served. What ends the pass: to ``ending``."""
        served = []
        for outcome in outcomes:
            self._shared.health.moved(self._tick.name)
            if isinstance(outcome.error, (WorkerStoppingError, DatabaseUnreachableError)):
                ending.append(outcome.error)
            elif self._settling.settle(outcome, failures):
                served.append(outcome.show.show_id)
                self._folding.audited(outcome.show, outcome.passes)
        return served

    def _rebuild_together(self, shows: Sequence[Show]) -> list[Outcome]:
        """Rebuild managed shows in one transaction, which reads the procs once for all of them.

        No booking through retally waits for their totals, so that these may be locked for longer. A
        show that somebody else is writing is left, and all of them where it fails: each of these
        gets a transaction of its own.
        """
        if not shows or self._shared.stop.is_set():
            return []
        try:
            return together(self._shared, shows, "rebuilt", self._call, wait=False)
        except (WorkerStoppingError, DatabaseUnreachableError):
            raise
        except RetallyError as error:
            self._report.singly("rebuilding", error)
            return []

    def _call(self, conn: psycopg.Connection, show_ids: Sequence[str]) -> Sequence[Pass]:
        return routines.rebuild(
            conn, show_ids, self._tick.totals, tick=self._tick.name, worker=self._shared.worker
        )

    def _tries(
        self, shows: Sequence[Claimed], found: Found, begun: Begun, ending: Sequence[Exception]
    ) -> Iterator[Outcome]:
        """What became of each show; one that another worker was just writing is tried again.

        Nothing is begun any more when the worker stops, or once something is in ``ending``: what
        is claimed and not begun is due again after one interval.
        """
        busy: list[Claimed] = []
        for last in (False, True):
            ready = takewhile(
                lambda _: not (ending or self._shared.stop.is_set()), busy if last else shows
            )
            tasks = (
                partial(self._serve_one, each, found.get(each[0].show_id), begun) for each in ready
            )
            for outcome in spread(self._shared.menders, self._shared.width, tasks):
                if isinstance(outcome.error, ShowBusyError) and not last:
                    busy.append((outcome.show, outcome.action))
                else:
                    yield outcome

    def _find(self, shows: Sequence[Show]) -> Found:
        """What is adrift by show, found in one statement; empty where that one statement fails.

        Each show is then looked at by itself, so that bad data of one does not stop the others.
        """
        by_show: Found = {show.show_id: [] for show in shows}
        if not shows:
            return by_show
        try:
            with self._shared.database.transaction() as conn:
                for finding in routines.findings(conn, list(by_show), self._tick.totals):
                    by_show[finding.show_id].append(finding)
        except DatabaseError as error:
            if gave_way(error):
                raise
            self._report.singly("looking at", error)
            return {}
        return by_show

    def _serve_one(self, claimed: Claimed, found: list[Finding] | None, begun: Begun) -> Outcome:
        """Serve the show by itself; ``begun``: passes over shows that have left busy rows."""
        show, action = claimed
        first = begun.get(show.show_id, ())
        totals = [each.total for each in first if each.rows_deferred] or self._tick.totals
        started = time.monotonic()
        try:
            with self._shared.turn(show.show_id):
                passes = joined(first, self._write(claimed, found, totals, goes_on=bool(first)))
        except Exception as error:
            seconds = time.monotonic() - started
            return Outcome(show, action, found, seconds, first, error)
        return Outcome(show, action, found, time.monotonic() - started, passes)

    def _write(
        self,
        claimed: Claimed,
        found: list[Finding] | None,
        totals: Sequence[str],
        *,
        goes_on: bool,
    ) -> Sequence[Pass]:
        show, action = claimed
        tick, worker = self._tick.name, self._shared.worker
        with self._shared.database.transaction() as conn:
            if found is None:
                found = routines.findings(conn, [show.show_id], totals)
            if _is_still(action, found):
                self._settling.note(conn, found, action, 0.0)
                return unwritten(found, 0.0)
            if action == "repaired":
                return repairs.repair(
                    conn, found, wait=False, tick=tick, worker=worker, asked_by=f"tick {tick}"
                ).passes
            return routines.mend(conn, found, wait=False, tick=tick, worker=worker, goes_on=goes_on)


def _goes_together(show: Show, action: str) -> bool:
    """Whether it is rebuilt along with others: bookings through retally do not wait for it."""
    return action == "rebuilt" and show.managed


def _parted(shows: Sequence[Claimed], found: Found) -> tuple[list[Claimed], list[Claimed]]:
    """The shows that a pass has nothing to write of, and the others."""
    parts: tuple[list[Claimed], list[Claimed]] = ([], [])
    for show, action in shows:
        still = _is_still(action, found.get(show.show_id))
        parts[0 if still else 1].append((show, action))
    return parts


def _is_still(action: str, found: Iterable[Finding] | None) -> bool:
    """Whether a pass has nothing to write, as far as is known."""
    if found is None:
        return False
    return action == "watched" or not any(finding.rows_adrift for finding in found)
