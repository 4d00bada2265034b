"""Each show beside what is kept of it, as ``retally status`` and ``retally watch`` tell it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from retally.cli.output import counted
from retally.procedures.kept import latest, left_adrift
from retally.procedures.records import BY_HAND, TOTALS

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from retally.procedures import LastPass, Show
    from retally.procedures.kept import Heartbeat, Kept, Turn

ON_REPLICA = "not on a replica, as their tables are unlogged: ask the primary"
NONE_YET = (
    "none are kept: no worker has served this database yet, or its server has crashed since"
    " (the tables are unlogged)"
)

#: A result tells of the present for so long, and for so many intervals of its tick if that is more;
#: docs/history.md says the same to those who ask in SQL.
_FRESH = timedelta(minutes=5)
_FRESH_INTERVALS = 10


@dataclass(frozen=True)
class ShowNow:
    """One show at one time.

    ``latest``: of each total the latest pass, by a tick or by hand; none where nobody looks at the
    show, or where it is too old to tell of the present.
    """

    show: Show
    now: datetime | None
    passes: tuple[LastPass, ...]
    latest: tuple[LastPass, ...]
    turns: tuple[Turn, ...]

    @property
    def last(self) -> LastPass | None:
        """The pass that ended last, over whatever total."""
        return max(self.passes, key=lambda each: each.finished_at, default=None)

    @property
    def rows_left(self) -> int:
        """Rows that the latest passes have left adrift, though they could be made exact."""
        return sum(left_adrift(each) for each in self.latest)

    @property
    def core_units_left(self) -> int:
        """How far these are adrift, or more: a pass tells the drift before it wrote."""
        return sum(each.core_units for each in self.latest if left_adrift(each))

    @property
    def gpus_left(self) -> int:
        """As ``core_units_left``."""
        return sum(each.gpus for each in self.latest if left_adrift(each))

    @property
    def failing(self) -> Turn | None:
        """The tick whose passes over the show fail, the worst of them."""
        failing = [turn for turn in self.turns if turn.failures and self._is_served_in(turn)]
        return max(failing, key=lambda turn: turn.failures, default=None)

    @property
    def is_due(self) -> bool:
        """Whether a tick that serves the show has not come yet."""
        return self.served and any(turn.is_due for turn in self.turns)

    @property
    def served(self) -> bool:
        """Whether workers serve it for certain; without a mode it depends on their settings."""
        return self.show.rebuilt or self.show.mode in ("watch", "repair")

    @property
    def mode(self) -> str:
        """What the ticks do to it."""
        if self.show.journaled:
            return "journal"
        return "rebuild" if self.show.rebuilt else self.show.mode or "default"

    def summed(self, name: str) -> int | None:
        """The sum of one amount over the latest passes; None where there are none."""
        return sum(getattr(each, name) for each in self.latest) if self.latest else None

    def finished_at(self, tick: str) -> datetime | None:
        """When the latest pass of this tick ended."""
        ended = [each.finished_at for each in self.passes if each.tick == tick]
        return max(ended, default=None)

    def ages(self, ticks: Sequence[str]) -> str:
        """How long ago the latest pass of each tick was; a pass by hand where there is none."""
        ended = [self.finished_at(tick) for tick in ticks]
        if any(ended):
            return ", ".join("-" if at is None else age(self._ago(at)) for at in ended)
        return "-" if self.last is None else f"{age(self._ago(self.last.finished_at))} {BY_HAND}"

    def overdue(self) -> float:
        """For how many seconds somebody should have served it; 0 where nobody has to."""
        due = [self._ago(turn.due_at) for turn in self.turns if turn.is_due]
        return max(0.0, *due) if due and self.served else 0.0

    def failure(self) -> str:
        """The latest failure in a line; empty where there is none."""
        turn = self.failing
        if turn is None:
            return ""
        wait = -self._ago(turn.due_at)
        again = f"again in {age(wait)}" if wait > 0 else "again now"
        reason = " ".join((turn.error or "").split())
        return f"{turn.tick} failed {counted(turn.failures, 'time')}: {reason}; {again}"

    def _is_served_in(self, turn: Turn) -> bool:
        """Without a mode of its own: as long as some worker comes for it."""
        if self.served or self.mode == "off" or self.now is None:
            return self.served
        return turn.due_at > self.now - _fresh_for(turn)

    def _ago(self, at: datetime) -> float:
        return 0.0 if self.now is None else (self.now - at).total_seconds()


def overview(shows: Iterable[Show], kept: Kept | None) -> list[ShowNow]:
    """These shows with what is kept of them, in the same order."""
    passes: dict[str, list[LastPass]] = defaultdict(list)
    turns: dict[str, list[Turn]] = defaultdict(list)
    for each in kept.passes if kept else ():
        passes[each.show_id].append(each)
    for turn in kept.turns if kept else ():
        turns[turn.show_id].append(turn)
    now = kept.now if kept else None
    return [
        ShowNow(
            show,
            now,
            tuple(passes[show.show_id]),
            tuple(_present(show, passes[show.show_id], turns[show.show_id], now)),
            tuple(turns[show.show_id]),
        )
        for show in shows
    ]


def _present(
    show: Show, passes: Sequence[LastPass], turns: Sequence[Turn], now: datetime | None
) -> list[LastPass]:
    """Of each total the latest pass, where that still tells of the present."""
    if now is None or (show.mode == "off" and not show.rebuilt):
        return []
    fresh_for = {turn.tick: _fresh_for(turn) for turn in turns}
    return [
        each for each in latest(passes) if each.finished_at > now - fresh_for.get(each.tick, _FRESH)
    ]


def _fresh_for(turn: Turn) -> timedelta:
    return max(_FRESH, _FRESH_INTERVALS * timedelta(seconds=turn.every))


def ticks_of(kept: Kept | None) -> list[str]:
    """The ticks that left passes, in the order of the totals that they serve.

    A fold is over all totals in every tick: of ticks that do nothing else, the name has to tell.
    """
    first: dict[str, int] = {}
    for each in kept.passes if kept else ():
        served = each.tick if each.action == "folded" else each.total
        place = TOTALS.index(served) if served in TOTALS else len(TOTALS)
        first[each.tick] = min(place, first.get(each.tick, place))
    return sorted(first.keys() - {BY_HAND}, key=lambda tick: (first[tick], tick))


def without_passes(kept: Kept | None) -> str:
    """Why there are no passes to tell of; empty where there are some."""
    if kept is None:
        return ON_REPLICA
    return NONE_YET if kept.empty else ""


def workers_of(kept: Kept) -> dict[str, list[Heartbeat]]:
    """The heartbeats by worker, those that are alive first."""
    found: dict[str, list[Heartbeat]] = defaultdict(list)
    for beat in sorted(kept.heartbeats, key=lambda beat: not beat.alive):
        found[beat.worker].append(beat)
    return found


def shares(kept: Kept) -> dict[tuple[str, str], int]:
    """How many shows each worker has claimed last, by worker and tick."""
    found: dict[tuple[str, str], int] = defaultdict(int)
    for turn in kept.turns:
        found[turn.claimed_by, turn.tick] += 1
    return found


def age(seconds: float) -> str:
    """A length of time in its largest unit, rounded down: 59 s, 3 min, 5 h, 2 d."""
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size):,} {unit}"
    return f"{max(int(seconds), 0)} s"
