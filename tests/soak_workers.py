"""The worker processes of a soak, one after the other in their places, and what they use."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from bouncer import free_port

if TYPE_CHECKING:
    from soak_farm import Options

_STEP = 0.1  # seconds between two looks
_RSS_EVERY = 1.0
_PATIENCE = 60.0


@dataclass
class Life:
    """One worker process from its start to its end; ``rss``: bytes, by seconds since the start."""

    process: subprocess.Popen[bytes]
    started_at: float = field(default_factory=time.monotonic)
    rss: list[tuple[float, int]] = field(default_factory=list)

    def sample(self) -> None:
        age = time.monotonic() - self.started_at
        if not self.rss or age >= self.rss[-1][0] + _RSS_EVERY:
            self.rss.append((age, _rss(self.process.pid)))

    def growth(self, warm_up: float) -> int | None:
        """Bytes from the end of the warm-up to the last sample; None for a life too short."""
        warm = [size for age, size in self.rss if age >= warm_up]
        return warm[-1] - warm[0] if len(warm) > 1 else None


class Place:
    """The place of one worker: whoever is killed there is followed by another."""

    def __init__(self, index: int, dsn: str, options: Options, home: Path) -> None:
        self.log_file = home / f"worker{index}.log"
        self.metrics_port = free_port()
        self.lives: list[Life] = []
        self.ended_by_themselves: list[tuple[Life, int]] = []
        self._start_at = 0.0
        self._environment = os.environ | {
            "RETALLY_DSN": dsn,
            "RETALLY_LOG_FORMAT": "json",
            "RETALLY_METRICS_PORT": str(self.metrics_port),
            "RETALLY_SUBSCRIPTION_INTERVAL": str(options.subscription_interval),
            "RETALLY_RESOURCE_INTERVAL": str(options.resource_interval),
        }
        self.start()

    @property
    def life(self) -> Life:
        return self.lives[-1]

    def start(self) -> None:
        with self.log_file.open("ab") as log:
            command = [sys.executable, "-m", "retally.cli", "worker"]
            self.lives.append(
                Life(subprocess.Popen(command, env=self._environment, stdout=log, stderr=log))
            )

    def mind(self) -> None:
        """Take a sample; see to it that a worker runs."""
        code = self.life.process.poll()
        if code is None:
            self.life.sample()
        elif not self._start_at:
            self.ended_by_themselves.append((self.life, code))
            self._start_at = time.monotonic() + 1.0  # as a service manager does
        elif time.monotonic() >= self._start_at:
            self._start_at = 0.0
            self.start()

    def kill(self) -> None:
        """SIGKILL, and another one in its place."""
        self._start_at = 0.0
        self.life.process.kill()
        self.life.process.wait()
        self.start()

    def end(self) -> int:
        """SIGTERM; answers with the exit code."""
        self.life.process.send_signal(signal.SIGTERM)
        try:
            return self.life.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.life.process.kill()
            return self.life.process.wait()

    def events(self) -> Counter[str]:
        """How often each event stands in the log; a line that is no JSON by its text."""
        counts: Counter[str] = Counter()
        for line in self.log_file.read_text(errors="replace").splitlines():
            try:
                entry = json.loads(line)
            except ValueError:  # a kill cuts the last line of that worker short
                counts[line[:200]] += 1
            else:
                counts[f"{entry['level']}: {entry['event']}"] += 1
        return counts

    def await_metrics(self) -> None:
        """Return once it serves, so that it has had the time to hear signals."""
        deadline = time.monotonic() + _PATIENCE
        while not self.metrics() and time.monotonic() < deadline:
            self.mind()
            time.sleep(_STEP)

    def metrics(self) -> str:
        """What /metrics answers; empty where nothing does."""
        url = f"http://127.0.0.1:{self.metrics_port}/metrics"
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode())
        return ""


def _rss(pid: int) -> int:
    """Resident memory, bytes; 0 for a process that is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) * 1024
    return 0


def _stat(pid: int) -> tuple[int, list[float]]:
    """The parent, and the CPU seconds: own user and system, and of children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[1]), [int(ticks) / os.sysconf("SC_CLK_TCK") for ticks in fields[11:15]]


def cpu_seconds(pid: int) -> float:
    """Of a process, its children, and those that it had and has waited for."""
    total = 0.0
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent, spent = _stat(int(path.name))
            if int(path.name) == pid:
                total += sum(spent)
            elif parent == pid:
                total += sum(spent[:2])
    return total
