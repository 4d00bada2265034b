"""The worker's own HTTP server: its metrics, and whether it is well. It asks the database nothing.

A scrape reads what the worker knows anyway, so that a lost database or a crowd of scrapers costs
the farm nothing.
"""

from __future__ import annotations

import contextlib
import io
import socket
import socketserver
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import structlog
from prometheus_client import make_wsgi_app

from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import TextIO
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from retally.worker.health import Answer, Health
    from retally.worker.metrics import Metrics

# Longer than any scrape takes; a client that needs more is cut off.
_CLIENT_SECONDS = 10.0
# How often it looks for clients to cut off, and whether it is to end.
_LOOK_SECONDS = 0.1
# Clients at a time; a descriptor each, which must never lack for the database's connections.
_CLIENTS = 32

_log = structlog.get_logger("retally.worker")


class MetricsAddressError(RetallyError):
    """The address for the metrics cannot be had: in use, not of this machine, or forbidden."""


@dataclass(frozen=True)
class Address:
    """Where the server listens; with port 0 asked for, the one that was free."""

    host: str
    port: int

    @property
    def url(self) -> str:
        """Without a path, as in http://127.0.0.1:9464."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"


@contextlib.contextmanager
def serve(metrics: Metrics, health: Health, host: str, port: int) -> Iterator[Address]:
    """In the block, answer /metrics, /healthz and /readyz on ``host`` and ``port``; 0: a free one.

    Whoever is still being answered at the end is cut off. Raises MetricsAddressError.
    """
    server = _listen(host, port)
    server.set_app(_application(metrics, health))
    thread = threading.Thread(
        target=server.serve_forever, args=(_LOOK_SECONDS,), name="retally-http", daemon=True
    )
    thread.start()
    try:
        yield Address(server.server_name, server.server_port)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        server.cut(older_than=0.0)


def _listen(host: str, port: int) -> _Server:
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host.strip("[]") or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        return _Server(family, address)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise MetricsAddressError(
            f"cannot serve metrics on {host or 'any address'}, port {port}: {reason}",
            "name another port or host with --metrics-port and --metrics-host; "
            "each worker on one machine needs a port of its own",
        ) from error


class _Handler(WSGIRequestHandler):
    """Keeps quiet: a scrape every few seconds is no event."""

    timeout = _CLIENT_SECONDS

    def log_message(self, *_: object) -> None:
        pass

    def get_stderr(self) -> TextIO:
        # wsgiref prints here what it could not send
        return io.StringIO()


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    """A thread for each client, so that a slow one keeps nobody else waiting."""

    daemon_threads = True
    request_queue_size = _CLIENTS

    def __init__(self, family: int, address: tuple[Any, ...]) -> None:
        self.address_family = family
        self._clients: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def server_bind(self) -> None:
        # HTTPServer's own would ask the name service who we are, and wait for it
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            full = len(self._clients) >= _CLIENTS
            if not full:
                self._clients[request] = time.monotonic()
        if full:
            super().shutdown_request(request)
        else:
            super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Now and then: a time-out on the socket does not stop who sends a byte now and then."""
        self.cut(older_than=_CLIENT_SECONDS)

    def cut(self, *, older_than: float) -> None:
        """Cut off the clients of so many seconds ago; their threads end by themselves."""
        until = time.monotonic() - older_than
        with self._lock:
            for client, since in self._clients.items():
                if since <= until:
                    with contextlib.suppress(OSError):
                        client.shutdown(socket.SHUT_RDWR)

    def handle_error(self, *_: object) -> None:
        """A client that went away is none of our business; the rest is a fault of ours."""
        error = sys.exception()
        if not isinstance(error, OSError):
            _log.error("metrics request failed", exc_info=error)


@dataclass(frozen=True)
class _Response:
    status: str
    headers: list[tuple[str, str]]
    body: bytes


def _application(metrics: Metrics, health: Health) -> WSGIApplication:
    exposition = make_wsgi_app(metrics.registry)
    paths: dict[str, Callable[[WSGIEnvironment], _Response]] = {
        "/metrics": lambda environ: _captured(exposition, environ),
        "/healthz": lambda _: _check(health.alive()),
        "/readyz": lambda _: _check(health.ready()),
    }

    def application(environ: WSGIEnvironment, respond: StartResponse) -> Iterable[bytes]:
        path, method = paths.get(environ["PATH_INFO"]), environ["REQUEST_METHOD"]
        if path is None:
            answer = _text(HTTPStatus.NOT_FOUND, f"there are {', '.join(paths)}")
        elif method not in {"GET", "HEAD"}:
            answer = _text(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD", Allow="GET, HEAD")
        else:
            answer = _safely(path, environ)
        # the length is that of the body also where HEAD leaves it out
        respond(answer.status, [*answer.headers, ("Content-Length", str(len(answer.body)))])
        return [] if method == "HEAD" else [answer.body]

    return application


def _safely(path: Callable[[WSGIEnvironment], _Response], environ: WSGIEnvironment) -> _Response:
    try:
        return path(environ)
    except Exception as error:
        _log.error("metrics request failed", error=repr(error), exc_info=error)
        return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "failed; the worker's log says why")


def _captured(application: WSGIApplication, environ: WSGIEnvironment) -> _Response:
    """What the application answers to GET; it knows no HEAD."""
    started: list[tuple[str, list[tuple[str, str]]]] = []

    def respond(status: str, headers: list[tuple[str, str]], _: object = None) -> Any:
        started.append((status, headers))

    body = b"".join(application(environ | {"REQUEST_METHOD": "GET"}, respond))
    return _Response(*started[0], body)


def _check(answer: Answer) -> _Response:
    status = HTTPStatus.OK if answer.ok else HTTPStatus.SERVICE_UNAVAILABLE
    return _text(status, *(answer.reasons or ("ok",)))


def _text(status: HTTPStatus, *lines: str, **headers: str) -> _Response:
    body = "".join(f"{line}\n" for line in lines).encode()
    plain = ("Content-Type", "text/plain; charset=utf-8")
    return _Response(f"{status.value} {status.phrase}", [plain, *headers.items()], body)
