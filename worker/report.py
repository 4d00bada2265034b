"""What the log and the metrics are told of a tick's passes."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import structlog

from retally.sql.errors import RetallyError, ShowBusyError
from retally.worker.faults import kind_of

if TYPE_CHECKING:
    from collections.abc import Container, Mapping, Sequence

    from retally.procedures import Pass, Show
    from retally.worker.metrics import Metrics

_log = structlog.get_logger("retally.worker")

# What each pass says of itself, drift as absolute sums.

_SUMS = (
    "rows_adrift",
    "rows_changed",
    "rows_deferred",
    "rows_failed",
    "core_units",
    "gpus",
)


class Report:
    """Tells of one tick. Remembers each show's problems, so as to log each of them once."""

    def __init__(self, tick: str, interval: float, metrics: Metrics) -> None:
        self._tick = tick
        self._interval = interval
        self._metrics = metrics
        self._problems: dict[str, frozenset[str]] = {}
        self._drift: dict[str, tuple[int, int, int]] = {}
        self._refusals: dict[str, str] = {}
        self._late = False
        self._sums: Counter[str] = Counter()

    def begun(self) -> None:
        """A pass begins; what one that failed had found is not among its sums."""
        self._sums.clear()

    def forget_others(self, show_ids: Container[str]) -> None:
        """Remember nothing of shows that are gone, or not served any more."""
        for known in (self._problems, self._drift, self._refusals):
            for gone in [show_id for show_id in known if show_id not in show_ids]:
                del known[gone]

    def served(self, show: Show, action: str, passes: Sequence[Pass], seconds: float) -> None:
        """A show was served; ``seconds``: how long that took, waiting for its turn included."""
        self._metrics.served(self._tick, show.name, action, passes, seconds)
        self._refusals.pop(show.show_id, None)
        if action == "repaired":
            for each in passes:
                self._metrics.repaired(show.name, each.total, each.rows_changed)
        sums = _summed(passes)
        self._sums.update(sums)
        news = self._is_news(show, action, passes, sums)
        (_log.info if news else _log.debug)(
            _event(action, sums) if news else "nothing new" if sums["rows_adrift"] else "quiet",
            tick=self._tick,
            show=show.name,
            action=action,
            **sums,
            seconds=round(seconds, 4),
        )

    def deferred(self, show: Show | None, error: Exception) -> None:
        """Somebody else holds what is needed: the next pass takes it. None: the whole pass."""
        self._metrics.deferred(self._tick, None if show is None else show.name)
        if not isinstance(error, ShowBusyError):
            self._metrics.fault(kind_of(error))
        _log.info("deferred", **self._where(show), reason=str(error))

    def failed(self, show: Show | None, error: Exception, pause: float) -> None:
        """It failed, and is left alone for ``pause`` seconds. None: the whole pass."""
        kind = kind_of(error)
        self._sums["shows_failed"] += show is not None
        self._metrics.fault(kind)
        if show is None:
            self._metrics.pass_failed(self._tick, kind)
        else:
            self._metrics.show_failed(self._tick, show.name, kind)
        self._tell_failure(show, error, pause)

    def refused(self, show: Show, error: Exception, passes: Sequence[Pass], pause: float) -> None:
        """A repair was refused, and is tried again in ``pause`` seconds; ``passes``: its finds."""
        self._sums.update(_summed(passes))
        self._sums["shows_failed"] += 1
        self._metrics.repair_refused(self._tick, show.name, passes)
        if self._refusals.get(show.show_id) == str(error):
            return  # told before, and nothing has changed since
        self._refusals[show.show_id] = str(error)
        self._tell_failure(show, error, pause)

    def _tell_failure(self, show: Show | None, error: Exception, pause: float) -> None:
        expected = isinstance(error, RetallyError)
        _log.error(
            "failed",
            **self._where(show),
            kind=kind_of(error),
            error=str(error) if expected else repr(error),
            hint=getattr(error, "hint", ""),
            retry_in_seconds=round(pause, 1),
            exc_info=None if expected else error,
        )

    def singly(self, doing: str, error: RetallyError) -> None:
        """What all shows need could not be done at once: ``doing`` it to each show by itself."""
        if not isinstance(error, ShowBusyError):
            self._metrics.fault(kind_of(error))
        _log.info(f"{doing} each show by itself", tick=self._tick, reason=str(error))

    def audit_failed(self, show: Show, rows: int) -> None:
        """A full pass found drift in a journaled show, which is to have none."""
        self._metrics.fault("journal_drift")
        _log.warning(
            "drift in a journaled show",
            tick=self._tick,
            show=show.name,
            rows_adrift=rows,
            hint="does somebody else add to its totals? `retally journal --show NAME off` ends it",
        )

    def not_kept(self, error: RetallyError) -> None:
        """The results of shows that had nothing to write were not kept; the next ones will be."""
        self._metrics.fault(kind_of(error))
        _log.warning("results not kept", tick=self._tick, reason=str(error))

    def broken_off(self) -> None:
        """The worker stops: what the pass had not committed is undone."""
        _log.info("pass broken off", tick=self._tick)

    def over(self, shows: int, seconds: float) -> None:
        """A pass over so many shows is over; warns when passes begin to be longer than a tick."""
        late = seconds > self._interval
        self._metrics.pass_over(self._tick, shows, seconds, late)
        sums, self._sums = self._sums, Counter()
        told = {name: sums[name] for name in (*_SUMS, "shows_failed")}
        _log.info("pass", tick=self._tick, shows=shows, **told, seconds=round(seconds, 4))
        if late and not self._late:
            _log.warning(
                "passes take longer than the interval",
                tick=self._tick,
                shows=shows,
                seconds=round(seconds, 1),
                interval=self._interval,
            )
        self._late = late

    def _is_news(
        self, show: Show, action: str, passes: Sequence[Pass], sums: Mapping[str, int]
    ) -> bool:
        """What nobody mends is found adrift by every pass: once told, it is no news."""
        told = self._tell_problems(show, action, passes)
        if action == "folded":  # it has looked for nothing
            return bool(sums["rows_changed"] or told)
        drift = (sums["rows_adrift"], sums["core_units"], sums["gpus"])
        same = self._drift.get(show.show_id, (0, 0, 0)) == drift
        self._drift[show.show_id] = drift
        left = sums["rows_adrift"] > sums["rows_failed"] and not same
        return bool(sums["rows_changed"] or sums["rows_deferred"] or told or left)

    def _tell_problems(self, show: Show, action: str, passes: Sequence[Pass]) -> bool:
        now = {problem: None for p in passes for problem in p.problems}  # in their order
        known = self._problems.get(show.show_id, frozenset())
        new = [problem for problem in now if problem not in known]
        for problem in new:
            _log.warning("problem", tick=self._tick, show=show.name, problem=problem)
        self._problems[show.show_id] = frozenset(now) | (known if action == "folded" else set())
        return bool(new)

    def _where(self, show: Show | None) -> dict[str, str]:
        return {"tick": self._tick} | ({} if show is None else {"show": show.name})


def _summed(passes: Sequence[Pass]) -> dict[str, int]:
    return {name: sum(getattr(each, name) for each in passes) for name in _SUMS}


def _event(action: str, sums: Mapping[str, int]) -> str:
    if sums["rows_changed"]:
        return f"totals {action}"
    return "drift found" if action == "watched" else "totals left adrift"
