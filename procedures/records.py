"""The records that the routines answer with; amounts are ints in the slot's stored unit.

Core units are 1/100 core. ``total`` is one of TOTALS, ``key`` the farm's key of its row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from decimal import Decimal

#: What may override every show's own flag; per-show is none of it.
OVERRIDES = ("per-show", "all", "none")

#: What the ticks do to an unmanaged show: leave it alone, look at it, or repair it.
MODES = ("off", "watch", "repair")

#: The actions of passes that write; watched, refused and failed ones leave what they find.
WRITING = ("rebuilt", "folded", "repaired")

#: Whose passes they are when it is no tick's.
BY_HAND = "by hand"

#: The five totals, in the order in which a booking updates them.
TOTALS = ("subscription", "layer", "job", "folder", "point")


@dataclass(frozen=True)
class Show:
    """A show and its flags; ``farm_flag`` is None where the farm has no such column.

    ``rebuilt``: the ticks rebuild its totals, because of the one flag or the other. ``mode``: what
    they do where they do not, one of MODES; None: as the worker's settings say. ``journaled``: its
    ticks fold the journal, and rebuild only now and then.
    """

    show_id: str
    name: str
    managed: bool
    farm_flag: bool | None
    rebuilt: bool
    mode: str | None = None
    journaled: bool = False


@dataclass(frozen=True)
class Override:
    """What a change of the override did: shows flipped, and shows left as they were.

    ``problems`` says why these were left, and which totals cannot be made exact.
    """

    shows: int
    shows_left: int
    problems: tuple[str, ...]


@dataclass(frozen=True)
class Drift:
    """One slot of a total that differs; ``stored`` is None where the row is missing."""

    show: str
    total: str
    name: str
    key: str
    slot: str
    stored: int | None
    booked: int

    @property
    def drift(self) -> int:
        """Stored minus booked."""
        return (self.stored or 0) - self.booked


@dataclass(frozen=True)
class Finding:
    """What one statement found adrift in one total of one show.

    ``token`` is the finding as the database wrote it, for ``mend``.
    """

    show_id: str
    total: str
    rows_adrift: int
    rows_failed: int
    core_units: int
    gpus: int
    problems: tuple[str, ...]
    token: str


@dataclass(frozen=True)
class Pass:
    """What a pass over one total of one show did.

    ``rows_deferred`` were busy, ``rows_failed`` cannot be made exact and ``problems`` says why.
    ``core_units`` and ``gpus``: the drift found, as absolute sums. ``seconds``: duration.
    """

    show_id: str
    total: str
    rows_adrift: int
    rows_changed: int
    rows_deferred: int
    rows_failed: int
    core_units: int
    gpus: int
    seconds: float
    problems: tuple[str, ...]

    @classmethod
    def of_row(
        cls,
        show_id: str,
        total: str,
        adrift: int,
        changed: int,
        deferred: int,
        failed: int,
        core_units: Decimal,
        gpus: Decimal,
        seconds: float,
        problems: Sequence[str],
    ) -> Self:
        """The pass of a row that mend() or repair() answers with; sums come as numeric."""
        return cls(
            show_id,
            total,
            adrift,
            changed,
            deferred,
            failed,
            int(core_units),
            int(gpus),
            seconds,
            tuple(problems),
        )


def joined(before: Sequence[Pass], after: Sequence[Pass]) -> list[Pass]:
    """The passes of two tries as one: drift as first found, work added up, the rest as last.

    Without a first try, those of the second.
    """
    if not before:
        return list(after)
    later = {p.total: p for p in after}
    return [
        replace(
            p,
            rows_changed=p.rows_changed + later[p.total].rows_changed,
            rows_deferred=later[p.total].rows_deferred,
            rows_failed=later[p.total].rows_failed,
            seconds=p.seconds + later[p.total].seconds,
            problems=later[p.total].problems,
        )
        if p.total in later
        else p
        for p in before
    ]


@dataclass(frozen=True)
class LastPass:
    """The latest pass of a tick, or by hand, over one total of one show, and when it ended.

    ``action``: rebuilt, folded, repaired, watched, refused or failed; ``worker``: who. ``passes``:
    how many there were.
    """

    show_id: str
    tick: str
    total: str
    action: str
    worker: str
    finished_at: datetime
    rows_adrift: int
    rows_changed: int
    rows_deferred: int
    rows_failed: int
    core_units: int
    gpus: int
    seconds: float
    passes: int


@dataclass(frozen=True)
class Claim:
    """What a worker got of what is due in a tick, and what it may ask for next.

    ``failures``: the shows that it got, and how many passes over them have failed running.
    ``left``: shows still due. ``late_in``: seconds until anyone may have these; ``next_in``:
    seconds until the tick is due again.
    """

    failures: Mapping[str, int]
    left: int
    late_in: float
    next_in: float


@dataclass(frozen=True)
class Orphan:
    """A proc whose show, job or layer the farm does not know; ``reason`` says which."""

    proc_id: str
    show_id: str | None
    cores: int
    gpus: int
    reason: str


@dataclass(frozen=True)
class HostDrift:
    """An idle amount of a host that is not what the host has less what its procs hold.

    ``slot``: cores (core units), mem_kb, gpus or gpu_mem_kb.
    """

    host_id: str
    name: str
    slot: str
    idle: int
    expected: int
