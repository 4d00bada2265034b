"""Serves many shows in one transaction."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from typing import TYPE_CHECKING

from retally.worker.outcome import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import psycopg

    from retally.procedures import Pass, Show
    from retally.worker.ticks import Shared

    #: serves the shows with these ids on this connection
    Call = Callable[[psycopg.Connection, Sequence[str]], Iterable[Pass]]


def together(
    shared: Shared, shows: Sequence[Show], action: str, call: Call, *, wait: bool
) -> list[Outcome]:
    """What became of these shows in one transaction; without those that ``call`` has left.

    ``wait``: for the shows that another tick of this worker is writing; otherwise these are left.
    Raises what the call raises; then nothing became of any.
    """
    started = time.monotonic()
    by_show: dict[str, list[Pass]] = defaultdict(list)
    with contextlib.ExitStack() as turns:
        ids = []
        for show_id in sorted(show.show_id for show in shows):
            turn = shared.turn(show_id)
            if turn.acquire(blocking=wait):
                turns.callback(turn.release)
                ids.append(show_id)
        if not ids:
            return []
        with shared.database.transaction() as conn:
            for each in call(conn, ids):
                by_show[each.show_id].append(each)
    seconds = time.monotonic() - started
    return [
        Outcome(show, action, None, seconds, tuple(by_show[show.show_id]))
        for show in shows
        if show.show_id in by_show
    ]
