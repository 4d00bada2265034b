"""The latest changes of caps: what is read before one commits is taken in after it was told."""

from __future__ import annotations

from collections import defaultdict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from retally.dispatch.admission.wire import LimitChange

# Far more than come in the seconds that a read may take.
_MOST = 10_000


class RecentChanges:
    """The last changes that say when they were, in the order of their commits."""

    def __init__(self) -> None:
        self._all: deque[LimitChange] = deque()
        self._by_key: defaultdict[str, deque[LimitChange]] = defaultdict(deque)

    def __iter__(self) -> Iterator[LimitChange]:
        """All of them."""
        return iter(self._all)

    def add(self, change: LimitChange) -> None:
        """Remember one more, and forget the oldest of too many."""
        self._all.append(change)
        self._by_key[change.key].append(change)
        if len(self._all) > _MOST:
            key = self._all.popleft().key
            self._by_key[key].popleft()
            if not self._by_key[key]:
                del self._by_key[key]

    def of(self, key: str) -> Sequence[LimitChange]:
        """Those of one vertex, by its key; of subscriptions, of any show."""
        return tuple(self._by_key.get(key, ()))
