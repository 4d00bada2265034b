"""What a check of `retally doctor` is, what it answers with, and the words that checks share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg


@dataclass(frozen=True)
class Symptom:
    """What a check saw that is not as it should be, and what to do about it."""

    state: str
    seen: str
    advice: str


@dataclass(frozen=True)
class Question:
    """What the caller of the doctor wants: ``long`` in seconds, ``purpose`` as in PURPOSES."""

    long: float
    purpose: str


@dataclass(frozen=True)
class Check:
    """A check by name; ``fine`` is what is said when it finds no symptom.

    ``purposes``: the roles that have the rights to make it; None: all.
    """

    name: str
    fine: str
    look: Callable[[psycopg.Connection, Question], Sequence[Symptom]]
    purposes: tuple[str, ...] | None = None


def problem(seen: str, advice: str) -> Symptom:
    """Totals are or will become wrong, or retally cannot do its work."""
    return Symptom("problem", seen, advice)


def warning(seen: str, advice: str) -> Symptom:
    """Retally works, and somebody should look."""
    return Symptom("warning", seen, advice)


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few of them, and how many more there are."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def duration(seconds: float) -> str:
    """Seconds as minutes and seconds, or as hours and minutes."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
