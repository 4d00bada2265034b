"""Everything that is drawn: the same seed gives the same draws."""

from __future__ import annotations

import hashlib
import math
import random


def draws(seed: int, who: str | int) -> random.Random:
    """The draws of one dispatcher, by its index, or of another part, by its name."""
    return random.Random(f"{seed}/{who}")  # noqa: S311 - chooses work, guards nothing


def run_seconds(seed: int, proc: str, mean: float) -> float:
    """How long the frame of this proc runs: exponential, and the same for whoever asks.

    A dispatcher needs to remember nothing, so that another one can end what it has booked.
    """
    digest = hashlib.blake2b(f"{seed}/{proc}".encode(), digest_size=8).digest()
    return -mean * math.log1p(-int.from_bytes(digest) / 2**64)


def bucket(key: str, buckets: int) -> int:
    """Which of so many dispatchers looks after the host with this key: 0 is the first."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=4).digest()) % buckets
