"""What the log says of a tick's passes: what changed, what was left, what failed; not the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retally.procedures import Pass, Show

_log = structlog.get_logger("retally.worker")


class Report:
    """Logs for one tick. Remembers each show's problems, so as to tell each of them once."""

    def __init__(self, tick: str, interval: float) -> None:
        self._tick = tick
        self._interval = interval
        self._problems: dict[str, frozenset[str]] = {}
        self._late = False

    def rebuilt(self, show: Show, passes: Sequence[Pass], seconds: float) -> None:
        """A show was served; ``seconds``: how long that took, waiting for its turn included."""
        changed = sum(p.rows_changed for p in passes)
        deferred = sum(p.rows_deferred for p in passes)
        adrift = sum(p.rows_adrift for p in passes)
        failed = sum(p.rows_failed for p in passes)
        told = self._tell_problems(show, passes)
        # A row that cannot be mended is found adrift by every pass: once told, it is no news.
        news = changed or deferred or told or adrift > failed
        left = "totals left adrift" if news else "nothing new"
        (_log.info if news else _log.debug)(
            "totals rebuilt" if changed else left,
            tick=self._tick,
            show=show.name,
            rows_adrift=adrift,
            rows_changed=changed,
            rows_deferred=deferred,
            rows_failed=failed,
            core_units=sum(p.core_units for p in passes),
            gpus=sum(p.gpus for p in passes),
            seconds=round(seconds, 4),
        )

    def deferred(self, show: Show | None, error: RetallyError) -> None:
        """Somebody else holds what is needed: the next pass takes it. None: the whole pass."""
        _log.info("deferred", **self._where(show), reason=str(error))

    def failed(self, show: Show | None, error: Exception, pause: float) -> None:
        """It failed, and is left alone for ``pause`` seconds. None: the whole pass."""
        expected = isinstance(error, RetallyError)
        _log.error(
            "failed",
            **self._where(show),
            error=str(error) if expected else repr(error),
            hint=getattr(error, "hint", ""),
            retry_in_seconds=round(pause, 1),
            exc_info=None if expected else error,
        )

    def looked_singly(self, error: RetallyError) -> None:
        """What all shows have adrift could not be found at once; each is looked at by itself."""
        _log.info("looking at each show by itself", tick=self._tick, reason=str(error))

    def broken_off(self) -> None:
        """The worker stops: what the pass had not committed is undone."""
        _log.info("pass broken off", tick=self._tick)

    def over(self, shows: int, seconds: float) -> None:
        """A pass over so many shows is over; warns when passes begin to be longer than a tick."""
        _log.debug("pass over", tick=self._tick, shows=shows, seconds=round(seconds, 4))
        late = seconds > self._interval
        if late and not self._late:
            _log.warning(
                "passes take longer than the interval",
                tick=self._tick,
                shows=shows,
                seconds=round(seconds, 1),
                interval=self._interval,
            )
        self._late = late

    def _tell_problems(self, show: Show, passes: Sequence[Pass]) -> bool:
        now = {problem: None for p in passes for problem in p.problems}  # in their order
        known = self._problems.get(show.show_id, frozenset())
        new = [problem for problem in now if problem not in known]
        for problem in new:
            _log.warning("problem", tick=self._tick, show=show.name, problem=problem)
        self._problems[show.show_id] = frozenset(now)
        return bool(new)

    def _where(self, show: Show | None) -> dict[str, str]:
        return {"tick": self._tick} | ({} if show is None else {"show": show.name})
