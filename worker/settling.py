"""Keeps and reports what became of shows in a pass."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from retally.procedures import Pass, routines
from retally.sql.backoff import pause_after
from retally.sql.errors import DatabaseError, RepairRefusedError
from retally.worker.faults import gave_way

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import psycopg

    from retally.procedures import Finding, Show
    from retally.worker.outcome import Outcome
    from retally.worker.report import Report
    from retally.worker.ticks import Shared, Tick


class Settling:
    """Keeps and reports what became of shows in a pass of this tick."""

    def __init__(self, tick: Tick, shared: Shared, report: Report) -> None:
        self._tick = tick
        self._shared = shared
        self._report = report

    def settle(self, outcome: Outcome, failures: Mapping[str, int]) -> bool:
        """Report the outcome; whether the show was served."""
        error, show = outcome.error, outcome.show
        if error is None or outcome.passes:
            # with an error: what was committed before it
            self._report.served(show, outcome.action, outcome.passes, outcome.seconds)
        if error is None:
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
            passes = unwritten(found, outcome.seconds)
            self._report.refused(show, error, passes, pause)
        else:
            self._report.failed(show, error, pause)
        with self._shared.database.transaction() as conn:
            self.note(conn, found, "refused" if refused else "failed", outcome.seconds)
            routines.note_failure(conn, tick.name, show.show_id, pause, str(error))

    def keep(
        self,
        shows: Sequence[tuple[Show, str]],
        found: Mapping[str, Sequence[Finding]],
        seconds: float,
    ) -> None:
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
                    self.note(conn, findings, action, seconds)
        except DatabaseError as error:
            if not gave_way(error):
                raise
            # somebody holds a row of the results: no reason to leave totals adrift
            self._report.not_kept(error)
        for show, action in shows:
            self._report.served(show, action, unwritten(found[show.show_id], seconds), seconds)

    def note(
        self, conn: psycopg.Connection, found: Sequence[Finding], action: str, seconds: float
    ) -> None:
        """Keep what was found as passes that wrote nothing."""
        routines.note_findings(
            conn,
            found,
            action=action,
            tick=self._tick.name,
            worker=self._shared.worker,
            seconds=seconds,
        )


def unwritten(found: Sequence[Finding], seconds: float) -> list[Pass]:
    """What was found, as passes that wrote nothing."""
    return [
        Pass(
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
        for finding in found
    ]
