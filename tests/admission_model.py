"""A database in plain Python, as the admission store meets it: procs, caps and transactions.

Keys are (show, kind, key), and each pair is core units and GPUs.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from retally.procedures.admission import Counts, Snapshot, VertexRow

if TYPE_CHECKING:
    from collections.abc import Iterable

    from retally.dispatch.admission.tickets import Ticket

Key = tuple[str, str, str]
Pair = tuple[int, int]

#: Above all that is asked for; a cap that is none.
BOUNDLESS = 1 << 62

ALLOCS = ("a0", "a1")
FOLDERS = {"f0": "s0", "f1": "s0", "f2": "s0", "g0": "s1"}
JOBS = {"j0": "f0", "j1": "f0", "j2": "f1", "j3": "f2", "k0": "g0", "k1": "g0"}
SHOWS = ("s0", "s1")
#: What is not there at first.
LATER: list[Key] = [
    ("s0", "job", "j1"),
    ("s0", "folder", "f2"),
    ("s0", "job", "j3"),
    ("s0", "subscription", "a1"),
]
CAPS: dict[str, Pair] = {"subscription": (800, -1), "folder": (0, 4), "job": (-1, 0)}


@dataclass(frozen=True, eq=False)
class Proc:
    """What is booked, or is to be."""

    alloc: str
    job: str
    cores: int
    gpus: int

    @property
    def folder(self) -> str:
        return JOBS[self.job]

    @property
    def show(self) -> str:
        return FOLDERS[self.folder]

    @cached_property
    def vertices(self) -> list[Key]:
        """Where it counts, in the order in which they are asked."""
        places = {"subscription": self.alloc, "folder": self.folder, "job": self.job}
        return [(self.show, kind, key) for kind, key in places.items()]


@dataclass(frozen=True, eq=False)
class Change:
    """A transaction that ends a proc or changes caps; None: as it is."""

    xact: int
    proc: Proc | None = None
    key: Key = ("", "", "")
    caps: tuple[int | None, int | None] = (None, None)
    #: not by retally: its message does not say when it was
    foreign: bool = False


@dataclass(eq=False)
class Booking:
    """A booking that was let in, and where it is on its way."""

    ticket: Ticket
    proc: Proc
    #: its transaction's number; None before it has reached the server
    xact: int | None = None
    #: whether its proc is committed; None as long as that is open
    committed: bool | None = None
    #: whether the store knows, or has given up to
    answered: bool = False

    @property
    def runs(self) -> bool:
        return self.xact is not None and self.committed is None

    @property
    def is_over(self) -> bool:
        return self.committed is not None and self.answered


@dataclass(frozen=True)
class Read:
    """What a statement has read of a show, and at which time."""

    time: int
    counts: Counts


@dataclass
class Database:
    """What is committed, and which transactions run."""

    procs: list[Proc] = field(default_factory=list)
    caps: dict[Key, list[tuple[int, Pair]]] = field(default_factory=dict)
    finished: set[Key] = field(default_factory=set)
    running: set[int] = field(default_factory=set)
    time: int = 0
    _last: int = 100
    _completed: int = 100
    _reads: int = 0

    @classmethod
    def new(cls) -> Database:
        found = cls()
        keys = [(show, "subscription", alloc) for show in SHOWS for alloc in ALLOCS]
        keys += [(show, "folder", folder) for folder, show in FOLDERS.items()]
        keys += [(FOLDERS[folder], "job", job) for job, folder in JOBS.items()]
        for key in keys:
            if key not in LATER:
                found.create(key)
        # the last one is from before subscriptions were asked for
        found.procs += [Proc("a0", "j0", 150, 1), Proc("a0", "k0", 50, 0), Proc("a1", "j0", 100, 0)]
        found.finished.add(("s0", "job", "j2"))
        return found

    def create(self, key: Key) -> None:
        self.caps[key] = [(self.time, CAPS[key[1]])]

    def begin(self) -> int:
        """A transaction that writes begins."""
        self._last += 1
        self.running.add(self._last)
        return self._last

    def end(self, xact: int) -> None:
        """It has committed or has been rolled back."""
        self.running.remove(xact)
        self._completed = max(self._completed, xact)

    def commit(self, change: Change) -> int:
        """Do what it says; the time from which on that is so."""
        self.end(change.xact)
        self.time += 1
        if change.proc:
            self.procs.remove(change.proc)
        else:
            now = self.caps[change.key][-1][1]
            cores, gpus = (
                old if new is None else new for old, new in zip(now, change.caps, strict=True)
            )
            self.caps[change.key].append((self.time, (cores, gpus)))
        return self.time

    def read(self, show: str) -> Read:
        """All vertices of the show."""
        used = total(self.procs)
        rows = [
            self._row(key, used)
            for key in self.caps
            if key[0] == show and (key not in self.finished or used[key, 0])
        ]
        return Read(self.time, Counts(self._snapshot(), tuple(rows)))

    def read_job(self, key: Key) -> Read:
        """One job, whatever its state."""
        return Read(self.time, Counts(self._snapshot(), (self._row(key, total(self.procs)),)))

    def limit(self, key: Key, slot: int, since: int | None = None) -> int:
        """The highest cap that was in force since then; None: that is in force now."""
        history = self.caps[key]
        first = max(n for n, (time, _) in enumerate(history) if since is None or time <= since)
        return max(_amount(key, slot, caps[slot]) for _, caps in history[first:])

    def _row(self, key: Key, used: Counter[tuple[Key, int]]) -> VertexRow:
        _, kind, name = key
        folder = JOBS[name] if kind == "job" else ""
        caps = self.caps[key][-1][1]
        return VertexRow(kind, name, name.upper(), folder, *caps, used[key, 0], used[key, 1])

    def _snapshot(self) -> Snapshot:
        xmax = self._completed + 1
        self._reads += 1
        running = frozenset(xact for xact in self.running if xact < xmax)
        return Snapshot(xmax, running, asked_at=self._reads)


def total(procs: Iterable[Proc]) -> Counter[tuple[Key, int]]:
    """What they hold at each vertex, of slot 0 (cores) and 1 (GPUs)."""
    used: Counter[tuple[Key, int]] = Counter()
    for proc in procs:
        for key in proc.vertices:
            used[key, 0] += proc.cores
            used[key, 1] += proc.gpus
    return used


def _amount(key: Key, slot: int, cap: int) -> int:
    if key[1] == "subscription":
        return BOUNDLESS if slot else cap
    return cap if cap > 0 else BOUNDLESS
