"""Journaled shows: their journal is folded at every tick, and a full pass is made now and then."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from retally.procedures import journal
from retally.sql.errors import DatabaseUnreachableError, RetallyError
from retally.worker.database import WorkerStoppingError
from retally.worker.faults import gave_way
from retally.worker.outcome import Outcome
from retally.worker.together import together

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import psycopg

    from retally.procedures import Pass, Show
    from retally.worker.report import Report
    from retally.worker.ticks import Shared, Tick


@dataclass
class _Audit:
    """The full passes over a show: when the next is ``due``, and whether there was a ``first``.

    ``stuck``: the latest has left rows that cannot be made exact. ``told``: a fold has left rows,
    so that the next one will find these adrift.
    """

    due: float
    first: bool = False
    stuck: bool = False
    told: bool = False


class Folding:
    """Folds the journal of shows, and knows which of them are due for a full pass."""

    def __init__(self, tick: Tick, shared: Shared, report: Report) -> None:
        self._tick = tick
        self._shared = shared
        self._report = report
        self._audits: dict[str, _Audit] = {}

    def fold(self, shows: Sequence[Show]) -> Iterator[Outcome]:
        """Fold the journal of these shows in one transaction; where that fails, one by one.

        A show that is not journaled any more is left out. Raises what ends the whole pass: a lost
        database, and the worker's end.
        """
        done: list[Outcome] = []
        try:
            done = together(self._shared, shows, "folded", self._call, wait=False)
        except (WorkerStoppingError, DatabaseUnreachableError):
            raise
        except RetallyError as error:
            self._report.singly("folding", error)
        yield from done
        folded = {outcome.show.show_id for outcome in done}
        for show in shows:
            if show.show_id not in folded and not self._shared.stop.is_set():
                yield from self._fold_one(show)

    def due(self, outcome: Outcome) -> bool:
        """Whether a full pass over this show is due.

        By time, as its fold has failed, or as it has left rows that a full pass may mend: not those
        that the latest one could not make exact either.
        """
        audit = self._audits.get(outcome.show.show_id)
        if outcome.error is not None:
            return not gave_way(outcome.error)
        left = any(each.rows_failed for each in outcome.passes)
        if audit is not None:
            audit.told = audit.told or left
        return audit is None or time.monotonic() >= audit.due or (left and not audit.stuck)

    def audited(self, show: Show, passes: Sequence[Pass]) -> None:
        """A full pass has ended: drift that it mended was not to be there, save for the first time.

        Another one is due after a while; at once where it has left rows that were busy.
        """
        if not show.journaled:
            return
        audit = self._audits.setdefault(show.show_id, _Audit(0.0))
        mended = sum(each.rows_changed for each in passes)
        if mended and audit.first and not audit.told:
            self._report.audit_failed(show, mended)
        audit.told = False
        audit.first = audit.first or not any(each.rows_deferred for each in passes)
        audit.stuck = any(each.rows_failed for each in passes)
        if any(each.rows_deferred for each in passes):
            audit.due = 0.0
        else:
            audit.due = time.monotonic() + self._shared.journal_audit

    def forget(self, shows: Iterable[Show]) -> None:
        """When these are journaled again, for whatever time, they are looked at in full first."""
        for show in shows:
            self._audits.pop(show.show_id, None)

    def _fold_one(self, show: Show) -> Iterator[Outcome]:
        started = time.monotonic()
        try:
            yield from together(self._shared, [show], "folded", self._call, wait=True)
        except (WorkerStoppingError, DatabaseUnreachableError):
            raise
        except RetallyError as error:
            yield Outcome(show, "folded", None, time.monotonic() - started, error=error)

    def _call(self, conn: psycopg.Connection, show_ids: Sequence[str]) -> Sequence[Pass]:
        return journal.fold(
            conn, show_ids, wait=False, tick=self._tick.name, worker=self._shared.worker
        )
