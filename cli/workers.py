"""The workers and their ticks, as ``retally status`` tells of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retally.cli.output import Row, counted
from retally.cli.overview import age, shares, ticks_of, workers_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from retally.procedures.kept import Heartbeat, Kept

#: For programs, and for people.
COLUMNS = ("worker", "tick", "every_seconds", "seen_at", "alive", "shows")
TABLE = ("worker", "tick", "every", "last_seen", "alive", "shows")


def worker_rows(state: Kept) -> list[Row]:
    """A row for each worker and tick, those that are alive first."""
    claimed = shares(state)
    return [
        {
            "worker": beat.worker,
            "tick": beat.tick,
            "every_seconds": beat.every,
            "every": _every(beat.every),
            "seen_at": beat.seen_at,
            "last_seen": f"{_seen(beat, state)} ago",
            "alive": beat.alive,
            "shows": claimed[beat.worker, beat.tick],
        }
        for beats in workers_of(state).values()
        for beat in beats
    ]


def worker_lines(state: Kept) -> list[str]:
    """A line for each worker that is alive."""
    claimed = shares(state)
    return [
        f"{worker}: " + "; ".join(_tick(beat, state, claimed[worker, beat.tick]) for beat in beats)
        for worker, beats in workers_of(state).items()
        if any(beat.alive for beat in beats)
    ]


def gone_line(state: Kept) -> str:
    """The workers that ended without a word, in one line; empty where there are none."""
    gone = {
        worker: max(beats, key=lambda beat: beat.seen_at)
        for worker, beats in workers_of(state).items()
        if not any(beat.alive for beat in beats)
    }
    if not gone:
        return ""
    last = max(gone.values(), key=lambda beat: beat.seen_at)
    told = f"{last.worker}, {_seen(last, state)} ago"
    return told if len(gone) == 1 else f"{counted(len(gone), 'worker')}, the last one {told}"


def ticks_line(state: Kept) -> str:
    """The ticks, how often each comes, and where their ages are; empty where none left a pass."""
    ticks = [" ".join([tick, *_intervals(tick, state)]) for tick in ticks_of(state)]
    order = "; under last pass in this order" if len(ticks) > 1 else ""
    return ", ".join(ticks) + order


def _intervals(tick: str, state: Kept) -> Iterator[str]:
    """Nothing where no worker is alive; two workers may have two intervals."""
    intervals = sorted(
        {beat.every for beat in state.heartbeats if beat.tick == tick and beat.alive}
    )
    if intervals:
        yield "every " + " or ".join(map(_every, intervals))


def _tick(beat: Heartbeat, state: Kept, shows: int) -> str:
    seen = (state.now - beat.seen_at).total_seconds()
    if not beat.alive:
        return f"{beat.tick} gone since {age(seen)}"
    # a tick comes when its interval is over, or a little later when the pass before took longer
    late = f" (overdue: every {_every(beat.every)})" if seen > 1.2 * beat.every + 1 else ""
    return f"{beat.tick} {age(seen)} ago{late}, {counted(shows, 'show')}"


def _seen(beat: Heartbeat, state: Kept) -> str:
    return age((state.now - beat.seen_at).total_seconds())


def _every(seconds: float) -> str:
    return f"{seconds:g} s"
