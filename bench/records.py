"""What the benchmarks have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Hashable


@dataclass(frozen=True)
class Bar:
    """A promise, and whether this run kept it; ``met`` None: this run did not measure it."""

    promise: str
    measured: str
    met: bool | None


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where it ran: PostgreSQL's version, CPUs of the clients' machine, settings of the server."""

    server: str
    cpus: int
    python: str
    settings: tuple[tuple[str, str], ...]


class Rated(Protocol):
    """A cell of some kind, ``spec``, that has a throughput."""

    @property
    def spec(self) -> Hashable:
        """What was measured."""

    @property
    def round(self) -> int:
        """In which round, from 1."""

    @property
    def per_second(self) -> float:
        """Procs a second."""
