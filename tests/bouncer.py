"""A real PgBouncer in front of an embedded server: transaction pooling, a small pool, no reset."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import psycopg
from psycopg.conninfo import make_conninfo

from retally.sql.scratch import ScratchDir, bases
from retally.sql.server_user import server_user

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from retally.sql.embedded import EmbeddedServer

_PATIENCE = 60.0  # seconds, for what takes far below one
_POLL_SECONDS = 0.02

_CONFIG = """
[databases]
* = host={server_dir} port={server_port} user={user}

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
max_client_conn = 200
server_reset_query_always = 0
server_login_retry = 1
admin_users = {user}
ignore_startup_parameters = extra_float_digits
"""


@dataclass(frozen=True)
class Bouncer:
    """A running PgBouncer."""

    port: int
    user: str
    log_file: Path

    def dsn(self, dbname: str) -> str:
        return make_conninfo(host="127.0.0.1", port=self.port, user=self.user, dbname=dbname)

    def reconnect(self, dbname: str) -> None:
        """Give every client another session of the server when it next begins a transaction."""
        with psycopg.connect(self.dsn("pgbouncer"), autocommit=True) as admin:
            admin.execute(f"RECONNECT {dbname}", prepare=False)


def program() -> str | None:
    """PgBouncer's program, if there is one; Debian keeps it where only root looks."""
    return shutil.which("pgbouncer", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


@contextlib.contextmanager
def bouncer(server: EmbeddedServer, *, pool_size: int = 2) -> Iterator[Bouncer]:
    """Run it in front of the server: ``pool_size`` sessions for each database."""
    path = program()
    assert path is not None, "ask program() first"
    os_user = server_user()  # PgBouncer does not run as root either
    home = ScratchDir.make(bases()[0], 0o700 if os_user.uid is None else 0o711)
    try:
        port = free_port()
        running = Bouncer(port, server.user, home.path / "log")
        config = home.path / "pgbouncer.ini"
        config.write_text(
            _CONFIG.format(
                server_dir=server.socket_dir,
                server_port=server.port,
                user=server.user,
                port=port,
                pool_size=pool_size,
            )
        )
        config.chmod(0o644)
        with running.log_file.open("ab") as log:
            process = os_user.spawn(log, path, config)
        try:
            _await_ready(process, running)
            yield running
        finally:
            process.kill()
            process.wait()
    finally:
        home.remove()


def _await_ready(process: subprocess.Popen[bytes], running: Bouncer) -> None:
    deadline = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", running.port)):
            return
        assert process.poll() is None, running.log_file.read_text()
        assert time.monotonic() < deadline, running.log_file.read_text()
        time.sleep(_POLL_SECONDS)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses just now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])
