"""What became of one show in a pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from retally.procedures import Finding, Pass, Show


@dataclass(frozen=True)
class Outcome:
    """What became of one show in a pass; ``seconds`` with the wait for its lock.

    ``found``: what was known to be adrift before, if anything was. With an ``error``, ``passes``
    are those that were committed before it.
    """

    show: Show
    action: str
    found: list[Finding] | None
    seconds: float
    passes: Sequence[Pass] = ()
    error: Exception | None = None

    @property
    def rows_deferred(self) -> int:
        """Rows that it has left because they were busy."""
        return sum(each.rows_deferred for each in self.passes)
