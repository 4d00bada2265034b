"""What admission tells of itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.dispatch.admission.listener import ListenerState


@dataclass(frozen=True)
class StoreCounts:
    """What the store has done so far, and what it holds.

    ``booked``: confirmed bookings; ``refused``: by vertex; ``in_flight``: let in, and not decided
    yet; ``in_doubt``: nobody knows what became of them, so they counted until their show was
    counted anew. ``seed_ages``: seconds since each served show was last counted, by id.
    """

    booked: int
    rolled_back: int
    in_doubt: int
    in_flight: int
    refused: dict[str, int]
    seed_ages: dict[str, float]


@dataclass(frozen=True)
class ServedShow:
    """A show that is served; ``seed_age``: seconds since caps and procs were last read."""

    show_id: str
    name: str
    seed_age: float


@dataclass(frozen=True)
class AdmissionStats:
    """What has happened since the dispatcher was opened, and which shows it serves.

    ``booked``, ``rolled_back``, ``in_doubt`` (nobody knows what became of them) and ``refused`` (by
    vertex) count bookings, ``in_flight`` those that are under way. ``recounts`` and ``failures`` of
    them and of heartbeats. ``releases``, ``limit_changes`` and ``malformed`` count notifications,
    ``connects`` how often the listener had to connect.
    """

    booked: int
    rolled_back: int
    in_doubt: int
    in_flight: int
    refused: dict[str, int]
    served: tuple[ServedShow, ...]
    recounts: int
    failures: int
    listener: ListenerState
    releases: int
    limit_changes: int
    malformed: int
    connects: int
