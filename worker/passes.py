"""What one pass does to the shows that a worker has claimed: find, keep, mend."""

from __future__ import annotations

import time
from collections import defaultdict
from functools import partial
from itertools import takewhile
from typing import TYPE_CHECKING

from retally.procedures import Pass, repairs, routines
from retally.sql.errors import (
    DatabaseError,
    DatabaseUnreachableError,
    RepairRefusedError,
    RetallyError,
    ShowBusyError,
)
from retally.worker.backoff import pause_after
from retally.worker.database import WorkerStoppingError
from retally.worker.faults import gave_way
from retally.worker.folding import Folding
from retally.worker.outcome import Outcome
from retally.worker.spread import spread
from retally.worker.together import together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import psycopg

    from retally.procedures import Finding, Show
    from retally.worker.report import Report
    from retally.worker.ticks import Shared, Tick

    Found = dict[str, list[Finding]]
    Claimed = tuple[Show, str]  # a show and the action of its pass


class Passes:
    """Serves claimed shows, each with an action: rebuilt, watched or repaired."""

    def __init__(self, tick: Tick, shared: Shared, report: Report) -> None:
        self._tick = tick
        self._shared = shared
        self._report = report
        self._folding = Folding(tick, shared)

    def serve(self, shows: Sequence[Claimed], failures: Mapping[str, int]) -> None:
        """One pass over these shows; ``failures``: how many passes running have failed, by id.

        Raises what ends the whole pass: a lost database, the worker's end, and what stands in the
        way of all shows.
        """
        shows, served = self._fold(shows, failures)
        if shows:
            served += self._serve_in_full(shows, failures)
        if recovered := sorted({show_id for show_id in served if failures[show_id]}):
            with self._shared.database.transaction() as conn:
                routines.note_recovery(conn, self._tick.name, recovered)

    def _fold(
        self, shows: Sequence[Claimed], failures: Mapping[str, int]
    ) -> tuple[list[Claimed], list[str]]:
        """Fold the journal of those that are journaled.

        Answers with the shows that need a full pass, and the ids of those that need none any more.
        """
        self._folding.forget_others([show for show, _ in shows])
        left = [each for each in shows if not each[0].journaled]
        served: list[str] = []
        if journaled := {show.show_id: show for show, _ in shows if show.journaled}:
            for outcome in self._folding.fold(list(journaled.values())):
                self._shared.health.moved(self._tick.name)
                folded = self._settle(outcome, failures)
                del journaled[outcome.show.show_id]
                if folded and self._folding.due(outcome):
                    left.append((outcome.show, "rebuilt"))
                elif folded:
                    served.append(outcome.show.show_id)
        # these are not journaled any more
        left += [(show, "rebuilt") for show in journaled.values()]
        return left, served

    def _serve_in_full(self, shows: Sequence[Claimed], failures: Mapping[str, int]) -> list[str]:
        """A full pass over these shows; the ids of those that were served."""
        outcomes = self._rebuild_together([s for s, action in shows if _goes_together(s, action)])
        served = self._settle_each(outcomes, failures, [])
        # a show of which it has left busy rows gets a pass by itself, which may wait for them
        done = {each.show.show_id for each in outcomes if not each.rows_deferred}
        if others := [each for each in shows if each[0].show_id not in done]:
            served += self._serve_singly(others, failures)
        return served

    def _serve_singly(self, shows: Sequence[Claimed], failures: Mapping[str, int]) -> list[str]:
        """A full pass over these shows, each of which has a transaction of its own to be mended."""
        started = time.monotonic()
        found = self._find(shows)
        seconds = time.monotonic() - started
        # most shows have nothing to write: all of these are kept in one transaction
        still, others = _parted(shows, found)
        self._keep(still, found, seconds)
        for show, _ in still:
            self._end_audit(show, found[show.show_id])
        ending: list[Exception] = []
        outcomes = self._tries(others, found, ending)
        served = self._settle_each(outcomes, failures, ending)
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
            elif self._settle(outcome, failures):
                served.append(outcome.show.show_id)
                self._end_audit(outcome.show, outcome.passes)
        return served

    def _end_audit(self, show: Show, passes: Sequence[Pass | Finding]) -> None:
        """A full pass over a journaled show has ended: it should have found nothing adrift.

        A show of which something stays wrong is looked at in full again next time.
        """
        if not show.journaled:
            return
        adrift = sum(each.rows_adrift for each in passes)
        if adrift and self._folding.was_audited(show):
            self._report.audit_failed(show, adrift)
        if any(each.rows_failed or getattr(each, "rows_deferred", 0) for each in passes):
            self._folding.forget(show)
        else:
            self._folding.audited(show)

    def _rebuild_together(self, shows: Sequence[Show]) -> list[Outcome]:
        """Rebuild managed shows in one transaction, which reads the procs once for all of them.

        No booking waits for their totals, so that these may be locked for longer. A show that
        another session is writing is left, and all of them where it fails: each of these gets a
        transaction of its own.
        """
        if not shows or self._shared.stop.is_set():
            return []
        try:
            return together(self._shared, shows, "rebuilt", self._call)
        except (WorkerStoppingError, DatabaseUnreachableError):
            raise
        except RetallyError as error:
            self._report.rebuilt_singly(error)
            return []

    def _call(self, conn: psycopg.Connection, show_ids: Sequence[str]) -> Sequence[Pass]:
        return routines.rebuild(
            conn, show_ids, self._tick.totals, tick=self._tick.name, worker=self._shared.worker
        )

    def _tries(
        self, shows: Sequence[Claimed], found: Found, ending: Sequence[Exception]
    ) -> Iterator[Outcome]:
        """What became of each show; one that another worker was just writing is tried again.

        Nothing is begun any more when the worker stops, or once something is in ``ending``: what
        is claimed and not begun is due again after one interval.
        """
        busy: list[Claimed] = []
        for last in (False, True):
            begun = takewhile(
                lambda _: not (ending or self._shared.stop.is_set()), busy if last else shows
            )
            tasks = (
                partial(self._serve_one, show, action, found.get(show.show_id))
                for show, action in begun
            )
            for outcome in spread(self._shared.menders, self._shared.width, tasks):
                if isinstance(outcome.error, ShowBusyError) and not last:
                    busy.append((outcome.show, outcome.action))
                else:
                    yield outcome

    def _find(self, shows: Sequence[Claimed]) -> Found:
        """What is adrift by show, found in one statement; empty where that one statement fails.

        Each show is then looked at by itself, so that bad data of one does not stop the others.
        """
        by_show: Found = {show.show_id: [] for show, _ in shows}
        try:
            with self._shared.database.transaction() as conn:
                for finding in routines.findings(conn, list(by_show), self._tick.totals):
                    by_show[finding.show_id].append(finding)
        except DatabaseError as error:
            if gave_way(error):
                raise
            self._report.looked_singly(error)
            return {}
        return by_show

    def _keep(self, shows: Sequence[Claimed], found: Found, seconds: float) -> None:
        """Keep and report passes that write nothing."""
        if not shows:
            return
        by_action: dict[str, list[Finding]] = defaultdict(list)
        for show, action in shows:
            by_action[action] += found[show.show_id]
        try:
            with self._shared.database.transaction() as conn:
                # in order, as another worker may come to these rows when a pass takes too long
                for action, findings in sorted(by_action.items()):
                    self._note(conn, findings, action, seconds)
        except DatabaseError as error:
            if not gave_way(error):
                raise
            # somebody holds a row of the results: no reason to leave totals adrift
            self._report.not_kept(error)
        for show, action in shows:
            passes = [_unwritten(finding, seconds) for finding in found[show.show_id]]
            self._report.served(show, action, passes, seconds)

    def _note(
        self, conn: psycopg.Connection, found: Sequence[Finding], action: str, seconds: float
    ) -> None:
        routines.note_findings(
            conn,
            found,
            action=action,
            tick=self._tick.name,
            worker=self._shared.worker,
            seconds=seconds,
        )

    def _serve_one(self, show: Show, action: str, found: list[Finding] | None) -> Outcome:
        started = time.monotonic()
        try:
            with self._shared.turn(show.show_id):
                passes = self._write(show, action, found)
        except Exception as error:
            return Outcome(show, action, found, time.monotonic() - started, error=error)
        return Outcome(show, action, found, time.monotonic() - started, passes)

    def _write(self, show: Show, action: str, found: list[Finding] | None) -> Sequence[Pass]:
        tick, worker = self._tick.name, self._shared.worker
        with self._shared.database.transaction() as conn:
            if found is None:
                found = routines.findings(conn, [show.show_id], self._tick.totals)
            if _is_still(action, found):
                self._note(conn, found, action, 0.0)
                return [_unwritten(finding, 0.0) for finding in found]
            if action == "repaired":
                return repairs.repair(
                    conn, found, wait=False, tick=tick, worker=worker, asked_by=f"tick {tick}"
                ).passes
            return self._mend(conn, found)

    def _mend(self, conn: psycopg.Connection, found: Sequence[Finding]) -> list[Pass]:
        return routines.mend(
            conn, found, wait=False, tick=self._tick.name, worker=self._shared.worker
        )

    def _settle(self, outcome: Outcome, failures: Mapping[str, int]) -> bool:
        """Report the outcome; whether the show was served."""
        error, show = outcome.error, outcome.show
        if error is None:
            self._report.served(show, outcome.action, outcome.passes, outcome.seconds)
            return True
        if gave_way(error):
            self._report.deferred(show, error)
            return False
        self._leave_alone(outcome, error, failures[show.show_id] + 1)
        return False

    def _leave_alone(self, outcome: Outcome, error: Exception, failures: int) -> None:
        """Keep and tell what stays adrift, and why; no worker takes the show up for a while."""
        show, found, tick = outcome.show, outcome.found or [], self._tick
        pause = pause_after(failures, tick.interval)
        refused = isinstance(error, RepairRefusedError)
        if refused:
            passes = [_unwritten(finding, outcome.seconds) for finding in found]
            self._report.refused(show, error, passes, pause)
        else:
            self._report.failed(show, error, pause)
        with self._shared.database.transaction() as conn:
            self._note(conn, found, "refused" if refused else "failed", outcome.seconds)
            routines.note_failure(conn, tick.name, show.show_id, pause, str(error))


def _goes_together(show: Show, action: str) -> bool:
    """Whether it is rebuilt along with others: no booking waits for its totals."""
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


def _unwritten(finding: Finding, seconds: float) -> Pass:
    return Pass(
        finding.show_id,
        finding.total,
        finding.rows_adrift,
        0,
        0,
        finding.rows_failed,
        finding.core_units,
        finding.gpus,
        seconds,
        finding.problems,
    )
