"""What the store answers to a booking: a ticket, a refusal, or what it has to know first."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from retally.dispatch.admission.tenure import Tenure
    from retally.dispatch.admission.vertex import Job, Vertex


#: Above all numbers: no snapshot has it.
NOT_SENT = 1 << 62


class Ticket:
    """A booking that was let in: it counts until it is rolled back, or its proc released.

    ``nr`` goes up by one with each that is sent to the database; before that it is NOT_SENT.
    ``is_open`` until it is known what became of it.
    """

    __slots__ = ("cores", "folder", "gpus", "is_open", "job", "nr", "subscription", "tenure")

    def __init__(
        self, tenure: Tenure, subscription: Vertex, job: Job, cores: int, gpus: int
    ) -> None:
        self.nr = NOT_SENT
        self.tenure = tenure
        self.subscription = subscription
        self.folder = job.folder
        self.job = job
        self.cores = cores
        self.gpus = gpus
        self.is_open = True

    def close(self) -> None:
        """It is known what became of it. Raises RetallyError when that was known before."""
        if not self.is_open:
            raise RetallyError(
                "this ticket was used before", "a booking is confirmed or rolled back exactly once"
            )
        self.is_open = False


@dataclass(frozen=True)
class Refusal:
    """A cap that a booking would pass: that of the first vertex that refuses it.

    ``vertex``: subscription, folder or job, its ``key`` and ``name``. ``slot``: cores or gpus, of
    which ``current`` is in use and ``limit`` may be; ``asked`` was asked for. A subscription that
    is unknown has no name and a limit of 0.
    """

    vertex: str
    key: str
    name: str
    slot: str
    current: int
    limit: int
    asked: int


class Missing(Enum):
    """What has to be loaded before a booking can be decided on."""

    SHOW = "the show is not served here"
    JOB = "the job was not there when its show was counted"
