"""What a service manager is told over ``NOTIFY_SOCKET``, as systemd's sd_notify would.

Each function does nothing without that variable, and none raises when the socket is gone.
"""

from __future__ import annotations

import os
import socket
import time

# a manager that does not read its socket must not hold up a tick
_SEND_SECONDS = 1.0


def ready(status: str = "") -> None:
    """The worker serves, from its start or again after ``reloading``."""
    _tell("READY=1", *_status(status))


def reloading() -> None:
    """The settings are read again; ``ready`` has to follow."""
    _tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping(seconds: float = 0.0) -> None:
    """The worker ends; ``seconds``: a time to allow for it beyond what the unit does."""
    _tell("STOPPING=1", *([f"EXTEND_TIMEOUT_USEC={int(seconds * 1e6)}"] if seconds > 0 else []))


def alive() -> None:
    """For the watchdog: to be said at least twice in ``watchdog_seconds``."""
    _tell("WATCHDOG=1")


def status(text: str) -> None:
    """One line that ``systemctl status`` shows."""
    _tell(*_status(text))


def watchdog_seconds() -> float | None:
    """After how long without ``alive`` this process is taken for hung; None: nobody watches it."""
    if os.environ.get("WATCHDOG_PID") not in (None, str(os.getpid())):
        return None  # meant for another process, from which the variables were inherited
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    if not (microseconds.isascii() and microseconds.isdigit()):
        return None
    return int(microseconds) / 1e6 or None


def _status(text: str) -> list[str]:
    # a line break would begin another field
    return [f"STATUS={' '.join(text.split())}"] if text else []


def _tell(*fields: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET")
    if not address or not fields:
        return
    if address.startswith("@"):  # an abstract socket
        address = f"\0{address[1:]}"
    message = "\n".join(fields).encode(errors="replace")
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
            manager.settimeout(_SEND_SECONDS)
            manager.sendto(message, address)
    except OSError:
        return  # it is not there, or does not listen: the work goes on
