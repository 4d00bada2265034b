"""Directories that live as long as their process: locked while it runs, swept once it is gone."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_MEMORY = Path("/dev/shm")  # noqa: S108 - directories in it get random names
_MEMORY_NEEDED = 1 << 30  # bytes
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def name_prefix() -> str:
    """How the names of this user's directories begin: ``retally-pg-<uid>-``."""
    return f"retally-pg-{os.geteuid()}-"


def bases(in_memory: bool = False) -> list[Path]:
    """Where directories may be made, best first; in memory where that is asked for and roomy."""
    usual = dict.fromkeys([tempfile.gettempdir(), "/tmp", "/var/tmp"])  # noqa: S108
    return [*([_MEMORY] if in_memory and _memory_is_free() else []), *map(Path, usual)]


@dataclass(frozen=True)
class ScratchDir:
    """One such directory. The lock is a ``flock`` on the directory itself.

    The kernel drops the lock when the process dies, however it dies, and no pid has to be
    compared. Programs that are started do not inherit it (the descriptor closes on exec).
    """

    path: Path
    lock: int
    owner: int

    @classmethod
    def make(cls, base: Path, mode: int) -> ScratchDir:
        """A new, empty, locked directory under ``base``, with this ``mode``."""
        while True:
            path = Path(tempfile.mkdtemp(prefix=name_prefix(), dir=base))
            with contextlib.suppress(FileNotFoundError):
                lock = os.open(path, _OPEN_DIRECTORY)
                fcntl.flock(lock, fcntl.LOCK_EX)
                # A sweep may have taken the directory between its making and the lock.
                if path.exists():
                    os.fchmod(lock, mode)
                    return cls(path, lock, os.getpid())
                os.close(lock)

    def remove(self) -> None:
        """Remove the directory and all that it holds, then let go of the lock."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def sweep(before: Callable[[Path], None]) -> None:
    """Remove this user's directories whose process is gone, wherever ``bases`` may put them.

    ``before`` is called with each of them first. Symbolic links, files, other users' directories
    and directories in use are left alone; so is what cannot be removed, for the next sweep.
    """
    for base in {_MEMORY, *bases()}:
        for path in base.glob(f"{name_prefix()}*"):
            with _abandoned(path) as ours:
                if ours:
                    before(path)
                    shutil.rmtree(path, ignore_errors=True)


def _memory_is_free() -> bool:
    try:
        mounts = Path("/proc/self/mounts").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    if not any(line.split()[1:3] == [str(_MEMORY), "tmpfs"] for line in mounts.splitlines()):
        return False
    return shutil.disk_usage(_MEMORY).free > _MEMORY_NEEDED


@contextlib.contextmanager
def _abandoned(path: Path) -> Iterator[bool]:
    """Whether ``path`` is a directory of ours that nobody holds; held by us in the block if so."""
    try:
        lock = os.open(path, _OPEN_DIRECTORY)
    except OSError:  # a link, a file, another user's, or gone meanwhile
        yield False
        return
    try:
        yield os.fstat(lock).st_uid == os.geteuid() and _taken(lock)
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
