"""The worker's HTTP server: whoever asks for what, and however, holds up nobody else."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from urllib.error import HTTPError, URLError

import pytest
from metrics_scene import Scene, samples
from worker_process import PATIENCE

from retally.sql.errors import RetallyError
from retally.worker import http
from retally.worker.http import serve


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The socket's own time-out is so long that it cannot be what ends a client."""
    monkeypatch.setattr(http._Handler, "timeout", 10 * PATIENCE)


@pytest.mark.usefixtures("patient")
def test_a_client_that_hangs_holds_up_neither_others_nor_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    scene = Scene()
    with contextlib.ExitStack() as serving, socket.socket() as silent, socket.socket() as slow:
        scene.address = serving.enter_context(serve(scene.metrics, scene.health, "127.0.0.1", 0))
        for client in (silent, slow):
            client.settimeout(PATIENCE)
            client.connect((scene.address.host, scene.address.port))
        slow.sendall(b"GET /metr")
        assert scene.value("retally_last_reload_successful") == 1
        end = threading.Thread(target=serving.pop_all().close, daemon=True)
        end.start()
        end.join(PATIENCE)
        assert not end.is_alive()
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""
    with pytest.raises(URLError):
        scene.get("/metrics")
    assert capfd.readouterr() == ("", "")


@pytest.mark.usefixtures("patient")
def test_a_client_that_takes_too_long_is_cut_off_whatever_it_sends(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_CLIENT_SECONDS", 0.1)
    with socket.create_connection((scene.address.host, scene.address.port), PATIENCE) as client:
        client.sendall(b"GET /metrics HTTP/1.0\r\nX-Never: end")
        assert client.recv(1) == b""


def test_a_crowd_of_clients_is_turned_away_at_the_door(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "_CLIENTS", 1)
    place = (scene.address.host, scene.address.port)
    with (
        socket.create_connection(place, PATIENCE),
        socket.create_connection(place, PATIENCE) as second,
    ):
        assert second.recv(1) == b""


def test_a_failure_while_collecting_is_an_answer_of_its_own_and_the_server_lives_on(
    scene: Scene,
) -> None:
    scene.metrics.watch_pool(lambda: {"pool_max": 1 // 0})
    with pytest.raises(HTTPError) as refused:
        scene.get("/metrics")
    assert refused.value.code == 500
    refused.value.close()
    assert scene.get("/healthz") == b"ok\n"


def test_only_get_and_head_on_three_paths_are_answered(scene: Scene) -> None:
    text = scene.get("/metrics")
    assert text.startswith(b"# HELP")
    with socket.create_connection((scene.address.host, scene.address.port), PATIENCE) as client:
        client.sendall(b"HEAD /metrics HTTP/1.0\r\n\r\n")
        head, _, body = client.makefile("rb").read().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 200 OK\r\n")
    length = re.search(rb"Content-Length: (\d+)", head)
    assert length is not None
    assert int(length[1]) > 1000
    assert body == b""
    for path, method, code in (
        ("/", "GET", 404),
        ("/metrics/", "GET", 404),
        ("/metrics", "POST", 405),
        ("/readyz", "DELETE", 405),
    ):
        with pytest.raises(HTTPError) as refused:
            scene.get(path, method)
        assert refused.value.code == code
        refused.value.close()
    assert b"# EOF" in scene.get("/metrics", Accept="application/openmetrics-text;version=1.0.0")
    only = scene.get("/metrics?name%5B%5D=retally_tick_interval_seconds").decode()
    assert {name for name, _ in samples(only)} == {"retally_tick_interval_seconds"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", ""])
def test_a_port_that_is_taken_is_an_error_that_says_which_option_to_use(host: str) -> None:
    if ":" in host and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    scene = Scene()
    with serve(scene.metrics, scene.health, host, 0) as scene.address:
        assert scene.get("/healthz") == b"ok\n"
        with (
            pytest.raises(RetallyError, match=str(scene.address.port)) as refused,
            serve(scene.metrics, scene.health, host, scene.address.port),
        ):
            pass
    assert "--metrics-port" in refused.value.hint
    # and it is free again at once
    with serve(scene.metrics, scene.health, host, scene.address.port) as again:
        assert again == scene.address


@pytest.mark.parametrize(("host", "port"), [("192.0.2.1", 0), ("no.such.host.invalid", 0)])
def test_an_address_that_is_not_ours_is_an_error_that_names_it(host: str, port: int) -> None:
    scene = Scene()
    with (
        pytest.raises(RetallyError, match=host) as refused,
        serve(scene.metrics, scene.health, host, port),
    ):
        pass
    assert "--metrics-host" in refused.value.hint
