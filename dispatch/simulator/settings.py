"""What to simulate."""

from __future__ import annotations

from dataclasses import dataclass

from retally.sql.errors import SimulationError


@dataclass(frozen=True, kw_only=True)
class Simulation:
    """What to simulate; all times are in seconds. Raises SimulationError for what cannot be.

    ``seconds`` None: until stopped. ``frame_seconds``: mean run time of a frame. ``arrivals``:
    frames per second. ``batch_share`` and ``memory_share`` (0 to 1): how often a dispatcher books
    in a batch, and in how many of its rounds a running proc gets other memory. ``…_every``: mean
    time between two events of that kind, None for never; ``kill_every`` ends a dispatcher with
    SIGKILL and needs ``processes``. ``down_seconds``: how long a host stays down, in the mean.
    ``pause``: how long a dispatcher rests that found nothing to do.
    """

    dispatchers: int = 4
    seconds: float | None = None
    seed: int = 1
    processes: bool = False
    frame_seconds: float = 10.0
    arrivals: float = 50.0
    batch_share: float = 0.5
    memory_share: float = 0.2
    kill_every: float | None = None
    hosts_down_every: float | None = 3.0
    down_seconds: float = 5.0
    moves_every: float | None = 1.0
    caps_every: float | None = 1.0
    pause: float = 0.05

    def __post_init__(self) -> None:
        """Refuse what cannot be: see SimulationError."""
        if self.dispatchers < 1:
            raise SimulationError(f"dispatchers is {self.dispatchers}", "one is the least")
        for name in ("batch_share", "memory_share"):
            share = getattr(self, name)
            if not 0 <= share <= 1:
                raise SimulationError(f"{name} is {share}", "a share goes from 0 to 1")
        if not 0 <= self.arrivals < float("inf"):
            raise SimulationError(f"arrivals is {self.arrivals}", "frames per second start at 0")
        for name in _TIMES:
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise SimulationError(
                    f"{name} is {value}", "a time is finite and above 0, in seconds"
                )
        if self.kill_every is not None and not self.processes:
            raise SimulationError(
                "threads cannot be killed",
                "kill_every (--kill-every) needs processes (--processes)",
            )


_TIMES = (
    "seconds",
    "frame_seconds",
    "kill_every",
    "hosts_down_every",
    "down_seconds",
    "moves_every",
    "caps_every",
    "pause",
)
