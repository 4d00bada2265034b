"""Counts what happens, from several threads and processes."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psycopg

from retally.sql.errors import (
    BookingRefusedError,
    DatabaseUnreachableError,
    DeadlockError,
    RetallyError,
    translated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_SAMPLE_CHARACTERS = 500


@dataclass(frozen=True)
class Counts:
    """What has happened so far.

    ``gone``: procs that somebody else had ended before. ``refused`` and ``errors`` are by the
    error's name, ``events`` by what happened on the farm; ``samples`` holds one message for each
    kind of error. A dispatcher that was killed may have done a little more than it could tell.
    """

    booked: int = 0
    released: int = 0
    gone: int = 0
    memory_changed: int = 0
    kills: int = 0
    deadlocks: int = 0
    refused: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    samples: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delta:
    """What one process has counted since it last told: plain data that fits into JSON."""

    numbers: dict[str, int]
    samples: dict[str, str]


class Tally:
    """Counts under one lock."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._numbers: Counter[str] = Counter()
        self._samples: dict[str, str] = {}

    def add(self, name: str, number: int = 1, kind: str = "") -> None:
        """Count ``number`` more; ``name`` is a field of Counts, ``kind`` a key in it."""
        with self._lock:
            self._numbers[f"{name}.{kind}" if kind else name] += number

    def note(self, error: RetallyError) -> None:
        """Count a booking that was refused, or an error, and keep one message of its kind."""
        if isinstance(error, BookingRefusedError):
            self.add("refused", kind=type(error).__name__)
            return
        cause = error.__cause__
        if isinstance(error, DeadlockError):
            name, kind = "deadlocks", "deadlock"
            self.add(name)
        else:
            name, kind = "errors", type(error).__name__
            self.add(name, kind=kind)
        context = cause.diag.context if isinstance(cause, psycopg.Error) else None
        message = " ".join(f"{error} {context or ''}".split())
        with self._lock:
            self._samples.setdefault(kind, message[:_SAMPLE_CHARACTERS])

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """Count what goes wrong in the block and go on after it; refusals are ordinary.

        DatabaseUnreachableError is passed on: the connection is of no use any more.
        """
        try:
            with translated():
                yield
        except DatabaseUnreachableError:
            raise
        except RetallyError as error:
            self.note(error)

    def keep_at(self, session: Callable[[], None], stop: threading.Event) -> None:
        """Call ``session``, which works until ``stop``; again when its connection is lost."""
        while not stop.is_set():
            try:
                session()
            except DatabaseUnreachableError as error:
                self.note(error)
                stop.wait(0.5)

    def take(self) -> Delta:
        """What was counted since the last call."""
        with self._lock:
            delta = Delta(dict(self._numbers), dict(self._samples))
            self._numbers.clear()
            return delta

    def merge(self, delta: Delta) -> None:
        """Add what another process has counted."""
        with self._lock:
            self._numbers.update(delta.numbers)
            self._samples = delta.samples | self._samples

    def counts(self) -> Counts:
        """What was counted so far."""
        with self._lock:
            return Counts(
                booked=self._numbers["booked"],
                released=self._numbers["released"],
                gone=self._numbers["gone"],
                memory_changed=self._numbers["memory_changed"],
                kills=self._numbers["kills"],
                deadlocks=self._numbers["deadlocks"],
                refused=self._by_kind("refused"),
                events=self._by_kind("events"),
                errors=self._by_kind("errors"),
                samples=dict(self._samples),
            )

    def _by_kind(self, name: str) -> dict[str, int]:
        prefix = f"{name}."
        return {
            key.removeprefix(prefix): number
            for key, number in sorted(self._numbers.items())
            if key.startswith(prefix)
        }
