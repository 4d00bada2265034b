"""Journaled shows: their journal is folded at every tick, and a full pass is made now and then."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from retally.procedures import journal
from retally.sql.errors import DatabaseUnreachableError, RetallyError
from retally.worker.database import WorkerStoppingError
from retally.worker.outcome import Outcome
from retally.worker.together import together

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import psycopg

    from retally.procedures import Pass, Show
    from retally.worker.ticks import Shared, Tick


class Folding:
    """Folds the journal of shows, and remembers when each of them last had a full pass."""

    def __init__(self, tick: Tick, shared: Shared) -> None:
        self._tick = tick
        self._shared = shared
        self._audited: dict[str, float] = {}

    def fold(self, shows: Sequence[Show]) -> Iterator[Outcome]:
        """Fold the journal of these shows in one transaction; where that fails, one by one.

        A show that is not journaled any more is left out. Raises what ends the whole pass: a lost
        database, and the worker's end.
        """
        try:
            yield from together(self._shared, shows, "folded", self._call)
        except (WorkerStoppingError, DatabaseUnreachableError):
            raise
        except RetallyError as error:
            if len(shows) == 1:
                yield Outcome(shows[0], "folded", None, 0.0, error=error)
                return
            for show in shows:
                if not self._shared.stop.is_set():
                    yield from self.fold([show])

    def due(self, outcome: Outcome) -> bool:
        """Whether a full pass over this show is due: by time, or as its fold has left rows."""
        if outcome.error is not None:
            return False
        left = any(each.rows_failed for each in outcome.passes)
        last = self._audited.get(outcome.show.show_id)
        return left or last is None or time.monotonic() >= last + self._shared.journal_audit

    def was_audited(self, show: Show) -> bool:
        """Whether a full pass has left nothing wrong before, so that there should be no drift."""
        return show.show_id in self._audited

    def audited(self, show: Show) -> None:
        """A full pass has left nothing wrong; another one is due after a while."""
        self._audited[show.show_id] = time.monotonic()

    def forget(self, show: Show) -> None:
        """The next pass over it is a full one."""
        self._audited.pop(show.show_id, None)

    def forget_others(self, shows: Sequence[Show]) -> None:
        """A show that is not journaled, for whatever time, is looked at first when it is again."""
        for show in shows:
            if not show.journaled:
                self.forget(show)

    def _call(self, conn: psycopg.Connection, show_ids: Sequence[str]) -> Sequence[Pass]:
        return journal.fold(
            conn, show_ids, wait=False, tick=self._tick.name, worker=self._shared.worker
        )
