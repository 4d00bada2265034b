"""What the service manager is told: a real datagram socket listens in its place."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest

from retally.worker import systemd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import psycopg

_PATIENCE = 60.0


@pytest.fixture(params=["file", "abstract"])
def manager(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[socket.socket]:
    """The manager's end of the socket, once in the file system and once in the abstract space."""
    path = str(tmp_path / "notify")
    address, name = (path, path) if request.param == "file" else (f"\0{path}", f"@{path}")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(_PATIENCE)
        monkeypatch.setenv("NOTIFY_SOCKET", name)
        yield listening


def told(manager: socket.socket) -> dict[str, str]:
    return dict(line.split("=", 1) for line in manager.recv(4096).decode().split("\n"))


def test_the_manager_hears_of_start_life_and_end(manager: socket.socket) -> None:
    systemd.ready("3 shows")
    systemd.alive()
    systemd.status("resource: 3 shows in 0.2 s")
    systemd.stopping()

    assert [told(manager) for _ in range(4)] == [
        {"READY": "1", "STATUS": "3 shows"},
        {"WATCHDOG": "1"},
        {"STATUS": "resource: 3 shows in 0.2 s"},
        {"STOPPING": "1"},
    ]


def test_a_reload_tells_when_it_began_on_the_managers_clock(manager: socket.socket) -> None:
    before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    systemd.reloading()
    after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000

    said = told(manager)

    assert said["RELOADING"] == "1"
    assert before <= int(said["MONOTONIC_USEC"]) <= after


def test_a_long_end_asks_for_the_time_that_it_takes(manager: socket.socket) -> None:
    systemd.stopping(90.5)
    assert told(manager) == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": "90500000"}


def test_a_status_of_several_lines_is_one_field(manager: socket.socket) -> None:
    systemd.status("lost\nREADY=1")
    assert told(manager) == {"STATUS": "lost READY=1"}


def await_told(manager: socket.socket, name: str) -> dict[str, str]:
    """The next message with this field."""
    while name not in (said := told(manager)):
        pass
    return said


@contextlib.contextmanager
def running_worker(dsn: str, config: Path, address: str) -> Iterator[subprocess.Popen[bytes]]:
    config.write_text("resource_interval = 60.0", encoding="utf-8")
    command = ["-m", "retally.cli", "worker", "--dsn", dsn, "--config", str(config)]
    with subprocess.Popen(
        [sys.executable, *command],
        env=os.environ | {"NOTIFY_SOCKET": address},
        stderr=subprocess.DEVNULL,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_a_worker_tells_its_manager_of_its_start_its_life_each_reload_and_its_end(
    farm_db: psycopg.Connection, tmp_path: Path
) -> None:
    address = str(tmp_path / "manager")
    config = tmp_path / "retally.toml"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(address)
        manager.settimeout(_PATIENCE)
        with running_worker(farm_db.info.dsn, config, address) as process:
            await_told(manager, "READY")
            await_told(manager, "WATCHDOG")

            config.write_text("resource_interval = 30.0", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            await_told(manager, "RELOADING")
            assert "former" not in await_told(manager, "READY")["STATUS"]
            await_told(manager, "WATCHDOG")

            config.write_text("no setting", encoding="utf-8")
            process.send_signal(signal.SIGHUP)
            await_told(manager, "RELOADING")
            assert "former" in await_told(manager, "READY")["STATUS"]
            await_told(manager, "WATCHDOG")

            process.terminate()
            await_told(manager, "STOPPING")
            assert process.wait(_PATIENCE) == 0


def tell_everything() -> None:
    systemd.ready("text")
    systemd.reloading()
    systemd.alive()
    systemd.status("text")
    systemd.stopping()


def test_a_manager_that_has_gone_stops_nothing(manager: socket.socket) -> None:
    manager.close()
    tell_everything()


def test_a_manager_that_does_not_listen_stops_nothing(manager: socket.socket) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filler:
        filler.setblocking(False)
        with contextlib.suppress(BlockingIOError):  # until its queue is full
            while True:
                filler.sendto(b"X=1", manager.getsockname())

    systemd.alive()  # in a bounded time

    assert told(manager) == {"X": "1"}


def test_without_a_manager_nobody_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> socket.socket:
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    for value in (None, ""):
        if value is None:
            monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
        else:
            monkeypatch.setenv("NOTIFY_SOCKET", value)
        tell_everything()


@pytest.mark.parametrize("address", ["/no/such/socket", "x" * 300, "vsock:2:1234"])
def test_an_address_that_nobody_has_stops_nothing(
    monkeypatch: pytest.MonkeyPatch, address: str
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    tell_everything()


@pytest.mark.parametrize(
    ("microseconds", "process", "seconds"),
    [
        ("30000000", None, 30.0),
        ("500000", "own", 0.5),
        ("30000000", "1", None),
        ("0", None, None),
        ("", None, None),
        ("-5", None, None),
        ("soon", None, None),
        (None, None, None),
    ],
)
def test_the_watchdog_is_known_where_it_is_meant_for_this_process(
    monkeypatch: pytest.MonkeyPatch,
    microseconds: str | None,
    process: str | None,
    seconds: float | None,
) -> None:
    values = {
        "WATCHDOG_USEC": microseconds,
        "WATCHDOG_PID": str(os.getpid()) if process == "own" else process,
    }
    for name, value in values.items():
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)

    assert systemd.watchdog_seconds() == seconds
