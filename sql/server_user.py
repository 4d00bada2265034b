"""The operating system's user that PostgreSQL's programs run as, and how they are started."""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from retally.sql.errors import EmbeddedServerError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_RUN_SECONDS = 60
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class ServerUser:
    """Ourselves, unless we are root: PostgreSQL refuses to run as root.

    ``uid`` and ``gid`` are None where nothing has to change.
    """

    name: str
    uid: int | None = None
    gid: int | None = None

    @property
    def _groups(self) -> list[int] | None:
        return None if self.uid is None else []

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a short command as this user; OSError where that is impossible."""
        return subprocess.run(  # noqa: S603 - programs and arguments of our own
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=self._groups,
            env=_environment(),
            cwd="/",  # ours may be closed to that user
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_RUN_SECONDS,
            check=False,
        )

    def spawn(self, log: BinaryIO, *command: str | Path) -> subprocess.Popen[bytes]:
        """Start a program as this user, that writes to ``log`` and dies with us; OSError."""
        return subprocess.Popen(  # noqa: S603 - programs and arguments of our own
            command,
            user=self.uid,
            group=self.gid,
            extra_groups=self._groups,
            env=_environment(),
            umask=0o077,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            # Ctrl-C goes to the whole foreground group: it must reach us alone, so that the
            # server outlives the work in hand.
            start_new_session=True,
            preexec_fn=_die_with_parent(),
        )

    def own(self, path: Path) -> None:
        """Give ``path`` to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def may_enter(self, path: Path) -> bool:
        """Whether this user can reach what lies in ``path``."""
        if self.uid is None:
            return os.access(path, os.X_OK)
        return self.run("/bin/sh", "-c", 'cd -- "$1"', "sh", path).returncode == 0


def server_user() -> ServerUser:
    """Who runs the server. EmbeddedServerError where there is no usable user."""
    uid = os.geteuid()
    if uid == 0:
        return _unprivileged()
    try:
        return ServerUser(pwd.getpwuid(uid).pw_name)
    except KeyError:
        raise EmbeddedServerError(
            f"user id {uid} has no passwd entry, and PostgreSQL does not run without one",
            f"add a line for {uid} to /etc/passwd, or run as a user that has one",
        ) from None


def _unprivileged() -> ServerUser:
    for name in ("postgres", "nobody"):
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return ServerUser(name, entry.pw_uid, entry.pw_gid)
    raise EmbeddedServerError(
        "PostgreSQL does not run as root, and there is no user postgres or nobody",
        "add one of these users, or run as an ordinary user",
    )


def _environment() -> dict[str, str]:
    """Our environment without what would steer PostgreSQL: PG… and the locale."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PG", "LC_", "LANG"))}
    return kept | {"LC_ALL": "C", "TZ": "UTC"}


def _die_with_parent() -> Callable[[], None] | None:
    """What the child does before exec, so that the kernel ends it when we are gone.

    SIGQUIT, immediate shutdown: there is nothing to save. It has to come after the change of
    user, which clears the request; subprocess calls a preexec_fn last.
    """
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    parent = os.getpid()

    def ask() -> None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGQUIT)
        if os.getppid() != parent:  # it died before we asked
            os._exit(1)

    return ask
