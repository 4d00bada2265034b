"""A farm in plain Python: what each call of the dispatch path should answer and leave behind."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retally.procedures.booking import Booking

Row = dict[str, int]

HOSTS = {
    "h0": ("a0", 1000, 9000, 3, 50),
    "h1": ("a0", 500, 4000, 1, 0),
    "h2": ("a1", 700, 9000, 0, 0),
}
JOBS = {"j0": "s0", "j1": "s0", "j2": "s1"}
LAYERS = {"l0": "j0", "l1": "j0", "l2": "j1", "l3": "j2"}
FRAMES = {f"f{n}": f"l{n // 2}" for n in range(8)}
SUBSCRIPTIONS = [("s0", "a0"), ("s0", "a1"), ("s1", "a0")]
SHARES = {("h0", "j0"): (300, 3000, 1), ("h1", "j2"): (200, 500, 0)}
BURST, MAX_CORES, MAX_GPUS = 900, 700, 2
SLOTS = ("cores", "mem", "gpus", "gpu_mem")


@dataclass
class Model:
    """What the farm should hold; keys are names, and procs are by id."""

    hosts: dict[str, Row] = field(default_factory=dict)
    shares: dict[tuple[str, str], Row] = field(default_factory=dict)
    totals: dict[tuple[str, ...], list[int]] = field(default_factory=dict)
    bursts: dict[tuple[str, str], int] = field(default_factory=dict)
    maxima: dict[str, tuple[int, int]] = field(default_factory=dict)
    procs: dict[str, Booking] = field(default_factory=dict)
    asked: dict[str, bool] = field(default_factory=dict)
    override: str = "per-show"

    @classmethod
    def new(cls) -> Model:
        model = cls(asked={"s0": False, "s1": False})
        for host, (_, *amounts) in HOSTS.items():
            model.hosts[host] = dict(zip(SLOTS, amounts, strict=True))
        for key, share in SHARES.items():
            model.shares[key] = dict(zip(SLOTS, (*share, 0), strict=True))
        model.bursts = dict.fromkeys(SUBSCRIPTIONS, BURST)
        model.maxima = dict.fromkeys(JOBS, (MAX_CORES, MAX_GPUS))
        model.totals = {key: [0, 0] for key in model.all_keys()}
        return model

    @staticmethod
    def all_keys() -> list[tuple[str, ...]]:
        keys: list[tuple[str, ...]] = [("subscription", *pair) for pair in SUBSCRIPTIONS]
        keys += [("layer", layer) for layer in LAYERS]
        keys += [(kind, job) for kind in ("job", "local") for job in JOBS]
        return keys + [(kind, show) for kind in ("folder", "point") for show in ("s0", "s1")]

    def managed(self, show: str) -> bool:
        return {"all": True, "none": False}.get(self.override, self.asked[show])

    def refusal(self, asked: Booking) -> str | None:
        """The error that this booking gets now; None when it is booked."""
        amounts = (asked.core_units, asked.mem_kb, asked.gpus, asked.gpu_mem_kb)
        if asked.core_units < 1 or min(amounts) < 0:
            return "InvalidBookingError"
        if (
            asked.host not in HOSTS
            or asked.job not in JOBS
            or LAYERS.get(asked.layer) != asked.job
            or (asked.frame is not None and FRAMES.get(asked.frame) != asked.layer)
        ):
            return "UnknownWorkError"
        if asked.frame and asked.frame in {proc.frame for proc in self.procs.values()}:
            return "FrameBookedError"
        rows = [self.hosts[asked.host]]
        if asked.local:
            if (asked.host, asked.job) not in SHARES:
                return "UnknownWorkError"
            rows.append(self.shares[asked.host, asked.job])
        if any(row[slot] < n for row in rows for slot, n in zip(SLOTS, amounts, strict=True)):
            return "HostFullError"
        return None if asked.local else self.cap(asked)

    def cap(self, asked: Booking) -> str | None:
        show, alloc = JOBS[asked.job], HOSTS[asked.host][0]
        if self.managed(show):
            return None
        if (show, alloc) not in self.bursts:
            return "NoSubscriptionError"
        cores, gpus = self.totals["job", asked.job]
        if (
            self.totals["subscription", show, alloc][0] + asked.core_units
            > self.bursts[show, alloc]
            or cores + asked.core_units > self.maxima[asked.job][0]
            or gpus + asked.gpus > self.maxima[asked.job][1]
        ):
            return "OverCapError"
        return None

    def keys(self, proc: Booking) -> list[tuple[str, ...]]:
        """The totals that count this proc."""
        show = JOBS[proc.job]
        if proc.local:
            return [("layer", proc.layer), ("local", proc.job)]
        mine = [("layer", proc.layer), ("job", proc.job), ("folder", show), ("point", show)]
        found = ("subscription", show, HOSTS[proc.host][0])
        return [*mine, found] if found in self.totals else list(mine)

    def count(self, proc: Booking, sign: int) -> None:
        rows = [self.hosts[proc.host]]
        if proc.local:
            rows.append(self.shares[proc.host, proc.job])
        for row in rows:
            amounts = (proc.core_units, proc.mem_kb, proc.gpus, proc.gpu_mem_kb)
            for slot, amount in zip(SLOTS, amounts, strict=True):
                row[slot] -= sign * amount
        if not self.managed(JOBS[proc.job]):
            self.add(proc, sign)

    def add(self, proc: Booking, sign: int) -> None:
        for key in self.keys(proc):
            self.totals[key][0] += sign * proc.core_units
            self.totals[key][1] += sign * proc.gpus

    def flipped(self, show: str) -> None:
        """The totals of this show are what its procs say."""
        for key in self.totals:
            if self.show_of(key) == show:
                self.totals[key] = [0, 0]
        for proc in self.procs.values():
            if JOBS[proc.job] == show:
                self.add(proc, 1)

    @staticmethod
    def show_of(key: tuple[str, ...]) -> str:
        if key[0] in {"job", "local"}:
            return JOBS[key[1]]
        return JOBS[LAYERS[key[1]]] if key[0] == "layer" else key[1]
