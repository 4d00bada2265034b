"""A proxy between a client and PostgreSQL that makes faults: it cuts, freezes, slows and refuses.

It reads the frames of the protocol, so that a fault can hit one statement. Errors are made by the
server itself: the statement is sent as another one, which raises; so nothing of it has happened,
and the transaction is as broken as it says.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeVar

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import psycopg

_ENCRYPTION = {80877103, 80877104}  # what asks for TLS, and for GSSAPI
_CANCEL = 80877102
_PATIENCE = 60.0  # seconds, for what takes far below one


@dataclass
class Trap:
    """A statement that is waited for; each is caught once, by whichever connection sends it.

    ``text``: stands in the statement. ``within``: stands in an earlier one of the transaction.
    """

    text: str
    within: str = ""
    caught: threading.Event = field(default_factory=threading.Event)

    def await_caught(self) -> None:
        """Return once the statement was sent."""
        assert self.caught.wait(_PATIENCE), f"nobody sent {self.text!r}"

    def catches(self, statement: str, transaction: str) -> bool:
        return not self.caught.is_set() and self.text in statement and self.within in transaction


@dataclass
class Hold(Trap):
    """Keeps back the statement, or its answer when ``sent``, until ``release`` or a cut."""

    sent: bool = True
    go: threading.Event = field(default_factory=threading.Event)

    def release(self) -> None:
        self.go.set()


@dataclass
class Instead(Trap):
    """Sends another statement in its place, ``times`` times; ``count`` says how often by now."""

    statement: str = ""
    times: int = 1
    count: int = 0

    def catches(self, statement: str, transaction: str) -> bool:
        return self.count < self.times and self.text in statement and self.within in transaction


T = TypeVar("T", bound=Trap)


def raises(sqlstate: str, message: str) -> str:
    """A statement that fails on the server like this."""
    return f"DO $$ BEGIN RAISE EXCEPTION '{message}' USING ERRCODE = '{sqlstate}'; END $$"


#: A statement whose session the server ends, with 57P01.
ENDED = "SELECT pg_terminate_backend(pg_backend_pid())"

# What a worker's pass sends, as far as it can be told apart.
CLAIM = "retally.claim_due("
REBUILD = "retally.rebuild("  # managed shows
FIND = "retally.findings("  # other shows
MEND = "retally.mend("


class Proxy:
    """Listens on a port of 127.0.0.1 and passes on to the server of ``dsn``; a context manager."""

    def __init__(self, dsn: str) -> None:
        self._target = conninfo_to_dict(dsn)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.dsn = make_conninfo(
            **(self._target | {"host": "127.0.0.1", "port": self.port, "connect_timeout": 5})
        )
        self.flowing = threading.Event()
        self.flowing.set()
        self.closing = threading.Event()
        self.pause = 0.0
        self.traps: list[Trap] = []
        self._links: set[_Link] = set()
        self._guard = threading.Lock()
        self._refusing = False
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join()
        self.flowing.set()
        for trap in self.traps:
            if isinstance(trap, Hold):
                trap.release()
        for link in self.links():
            link.cut()
            link.join()

    def links(self) -> list[_Link]:
        with self._guard:
            return list(self._links)

    def cut(self) -> int:
        """Cut every connection, on both sides; answers with how many there were."""
        links = self.links()
        for link in links:
            link.cut()
        return len(links)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """In the block, whoever connects is turned away."""
        self._refusing = True
        try:
            yield
        finally:
            self._refusing = False

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """In the block nothing passes, and nobody is told."""
        self.flowing.clear()
        try:
            yield
        finally:
            self.flowing.set()

    @contextlib.contextmanager
    def slow(self, seconds: float) -> Iterator[None]:
        """In the block, each message of the server comes so much later."""
        self.pause = seconds
        try:
            yield
        finally:
            self.pause = 0.0

    def hold(self, text: str, *, within: str = "", sent: bool = True) -> Hold:
        """Keep back the next statement with this text, or its answer when ``sent``."""
        return self._set(Hold(text, within, sent=sent))

    def instead(self, text: str, statement: str, *, within: str = "", times: int = 1) -> Instead:
        """Send ``statement`` in place of the next ones with this text."""
        return self._set(Instead(text, within, statement=statement, times=times))

    def watch(self, text: str, *, within: str = "") -> Trap:
        """Tell when the next statement with this text is sent; it passes."""
        return self._set(Trap(text, within))

    def _set(self, trap: T) -> T:
        with self._guard:
            self.traps.append(trap)
        return trap

    def sprung(self, statement: str, transaction: str) -> Trap | None:
        """The trap that catches this statement, if any."""
        with self._guard:
            for trap in self.traps:
                if trap.catches(statement, transaction):
                    if isinstance(trap, Instead):
                        trap.count += 1
                    trap.caught.set()
                    return trap
        return None

    def gone(self, link: _Link) -> None:
        with self._guard:
            self._links.discard(link)

    def _accept(self) -> None:
        while not self.closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                # with a reset, as where nobody listens
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                client.close()
                continue
            try:
                server = _connected(self._target)
            except OSError:  # no server there
                client.close()
                continue
            link = _Link(self, client, server)
            with self._guard:
                self._links.add(link)
            link.start()


class _Link:
    """One connection: two sockets, and a thread for each direction."""

    def __init__(self, proxy: Proxy, client: socket.socket, server: socket.socket) -> None:
        self._proxy = proxy
        self._client = client
        self._server = server
        self._answering = threading.Event()
        self._answering.set()
        self._over = threading.Event()
        self._transaction = ""
        self._threads = [
            threading.Thread(target=self._run, args=(pump,), daemon=True)
            for pump in (self._pump_statements, self._pump_answers)
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def join(self) -> None:
        for thread in self._threads:
            thread.join(_PATIENCE)

    def cut(self) -> None:
        """End it on both sides, whatever passes just now."""
        self._over.set()
        self._answering.set()
        for end in (self._client, self._server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _run(self, pump: Callable[[], None]) -> None:
        with contextlib.suppress(OSError, EOFError):
            pump()
        self.cut()
        if self._threads[0] is threading.current_thread():
            self._threads[1].join()
            self._client.close()
            self._server.close()
            self._proxy.gone(self)

    def _pump_answers(self) -> None:
        while data := self._server.recv(1 << 16):
            self._answering.wait()
            self._pass_on(self._client, data, self._proxy.pause)

    def _pass_on(self, to: socket.socket, data: bytes, pause: float = 0.0) -> None:
        if pause:
            self._over.wait(pause)
        # a cut opens no frozen line: what was on its way is lost
        while not self._proxy.flowing.wait(0.05):
            if self._over.is_set():
                raise EOFError
        if self._over.is_set():
            raise EOFError
        to.sendall(data)

    def _pump_statements(self) -> None:
        self._greet()
        for kind, body in iter(lambda: self._frame(), None):
            statement = _statement(kind, body)
            if statement is None:
                self._pass_on(self._server, _framed(kind, body))
            else:
                self._spring(statement, kind, body)

    def _spring(self, statement: str, kind: bytes, body: bytes) -> None:
        if statement.upper().startswith("BEGIN"):
            self._transaction = ""
        trap = self._proxy.sprung(statement, self._transaction)
        self._transaction += statement
        if isinstance(trap, Instead):
            # one message stands for all that the client sends up to Sync: so do their answers
            while kind in b"PBDEC":
                kind, _ = self._frame()
            self._pass_on(self._server, _framed(b"Q", trap.statement.encode() + b"\0"))
            return
        if isinstance(trap, Hold) and trap.sent:
            self._answering.clear()
            threading.Thread(target=self._answer_later, args=(trap,), daemon=True).start()
        elif isinstance(trap, Hold):
            self._await(trap)
        self._pass_on(self._server, _framed(kind, body))

    def _answer_later(self, hold: Hold) -> None:
        with contextlib.suppress(EOFError):
            self._await(hold)
        self._answering.set()

    def _await(self, hold: Hold) -> None:
        while not hold.go.wait(0.05):
            if self._over.is_set():
                raise EOFError

    def _greet(self) -> None:
        """The messages without a type, up to the one that names user and database."""
        while True:
            body = self._read(struct.unpack("!i", self._read(4))[0] - 4)
            code = struct.unpack("!i", body[:4])[0]
            if code in _ENCRYPTION:
                self._client.sendall(b"N")
                continue
            self._pass_on(self._server, struct.pack("!i", len(body) + 4) + body)
            if code == _CANCEL:
                self._server.shutdown(socket.SHUT_WR)
            return

    def _frame(self) -> tuple[bytes, bytes]:
        kind = self._read(1)
        return kind, self._read(struct.unpack("!i", self._read(4))[0] - 4)

    def _read(self, length: int) -> bytes:
        data = b""
        while len(data) < length:
            more = self._client.recv(length - len(data))
            if not more:
                raise EOFError
            data += more
        return data


@pytest.fixture
def proxy(farm_db: psycopg.Connection) -> Iterator[Proxy]:
    """One before the database of ``farm_db``."""
    with Proxy(farm_db.info.dsn) as running:
        yield running


def _framed(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _statement(kind: bytes, body: bytes) -> str | None:
    """The text of a simple query, or of one with parameters; None for other messages."""
    if kind == b"Q":
        return body[:-1].decode()
    if kind == b"P":
        return body.split(b"\0", 2)[1].decode()
    return None


def _connected(target: Mapping[str, object]) -> socket.socket:
    host, port = str(target["host"]), int(str(target.get("port", 5432)))
    if not host.startswith("/"):
        return socket.create_connection((host, port))
    server = socket.socket(socket.AF_UNIX)
    try:
        server.connect(f"{host}/.s.PGSQL.{port}")
    except OSError:
        server.close()
        raise
    return server
