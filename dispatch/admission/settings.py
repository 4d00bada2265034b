"""How a dispatcher keeps to the caps of managed shows."""

from __future__ import annotations

import os
import secrets
import socket
from dataclasses import dataclass

from retally.sql.errors import RetallyError


@dataclass(frozen=True, kw_only=True)
class Admission:
    """How a dispatcher keeps to the caps of managed shows; times in seconds.

    ``name``: what its leases go by; one that comes back under the same name has its shows at once,
    so no two may share one. None: host, process and a random part. ``lease_seconds``: how long a
    show waits for another dispatcher after this one has died; renewed three times in that.
    ``recount_seconds``: how often caps and procs of the served shows are read. ``notify`` False is
    the kill switch: releases and changes of caps are learnt by recounts alone. ``listen_dsn``: the
    server itself, where a transaction pooler stands before it; None: as the dispatcher's.
    Raises RetallyError for what cannot be.
    """

    name: str | None = None
    lease_seconds: float = 10.0
    recount_seconds: float = 5.0
    notify: bool = True
    listen_dsn: str | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be."""
        if self.name is not None and (not self.name or "\0" in self.name):
            raise RetallyError(
                f"a dispatcher cannot be named {self.name!r}", "name it by some text"
            )
        for name in ("lease_seconds", "recount_seconds"):
            value = getattr(self, name)
            if not 0 < value <= 3600:
                raise RetallyError(f"{name} is {value}", "it is above 0, and an hour at most")

    def holder(self) -> str:
        """The name, or a new one."""
        return self.name or f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(3)}"
