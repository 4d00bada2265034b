"""``retally watch`` as a user meets it, in a pipe and in a terminal of its own."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from typing import TYPE_CHECKING

import psycopg
import pytest
from click.testing import CliRunner, Result
from psycopg import sql
from small_farm import Rows, Work, corrupt, make_work, manage

from retally.cli import main
from retally.procedures import TOTALS, routines

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from retally.sql.embedded import EmbeddedServer

    Retally = Callable[..., Result]

_PATIENCE = 60.0  # seconds, for what takes far below one


@pytest.fixture
def retally(farm_db: psycopg.Connection) -> Retally:
    """Runs the command on the database of ``farm_db``, in a pipe."""
    env = {"RETALLY_DSN": farm_db.info.dsn}
    return lambda *args: CliRunner().invoke(main, args, env=env)


def heed_ctrl_c() -> None:
    """As in a terminal: what a shell runs in the background inherits that it is ignored."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Terminal:
    """The command in a terminal of so many columns and lines."""

    def __init__(self, dsn: str, *args: str, columns: int = 80, lines: int = 24) -> None:
        self.master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        env = os.environ | {"RETALLY_DSN": dsn, "TERM": "xterm"}
        for name in ("COLUMNS", "LINES", "NO_COLOR"):
            env.pop(name, None)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "retally.cli", "watch", "--interval", "0.1", *args],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=env,
            start_new_session=True,
            preexec_fn=heed_ctrl_c,
        )
        os.close(slave)
        self.output = ""

    def await_text(self, pattern: str) -> str:
        """Return what was printed up to this pattern; what came before is forgotten."""
        until = time.monotonic() + _PATIENCE
        while (found := re.search(pattern, self.output)) is None:
            assert time.monotonic() < until, self.output
            if not self._read():
                raise AssertionError(self.output)
        text, self.output = self.output[: found.end()], self.output[found.end() :]
        return text

    def end(self, number: signal.Signals) -> int:
        """Its exit code after this signal."""
        self.process.send_signal(number)
        until = time.monotonic() + _PATIENCE
        while self._read():
            assert time.monotonic() < until, "it goes on"
        return self.process.wait(_PATIENCE)

    def _read(self) -> bool:
        readable, _, _ = select.select([self.master], [], [], _PATIENCE)
        try:
            data = os.read(self.master, 65536) if readable else b""
        except OSError:  # the other end is closed
            return False
        self.output += data.decode(errors="replace")
        return bool(data)


@pytest.fixture
def terminal(farm_db: psycopg.Connection) -> Iterator[Callable[..., Terminal]]:
    """Starts the command in a terminal."""
    with contextlib.ExitStack() as undo:

        def start(*args: str, columns: int = 80, lines: int = 24) -> Terminal:
            started = Terminal(farm_db.info.dsn, *args, columns=columns, lines=lines)
            undo.callback(os.close, started.master)
            undo.callback(started.process.wait, _PATIENCE)
            undo.callback(started.process.kill)
            return started

        yield start


def plain(picture: str) -> str:
    """Without colours and the like."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", picture)


def served(conn: psycopg.Connection, name: str, *, wrong: bool = False) -> Work:
    """A show that a worker watches; ``wrong``: its totals know nothing of its proc."""
    rows = Rows(conn)
    work = make_work(rows, name)
    if wrong:
        rows.proc(work.host, work.show, work.job, work.layer, cores=300)
    routines.claim_due(conn, "subscription", 3600, [work.show], "me")
    watched(conn, work)
    return work


def watched(conn: psycopg.Connection, work: Work) -> None:
    found = routines.findings(conn, [work.show], TOTALS)
    routines.note_findings(
        conn, found, action="watched", tick="subscription", worker="me", seconds=0.5
    )


def told(output: str) -> list[str]:
    """The names of the shows, in the order in which they are told."""
    lines = output.splitlines()
    titles = next(n for n, line in enumerate(lines) if line.startswith("show "))
    return [line.split()[0] for line in itertools.takewhile(str.strip, lines[titles + 1 :])]


def test_shows_in_trouble_come_first_the_worst_on_top(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    served(farm_db, "a-quiet")
    served(farm_db, "b-adrift", wrong=True)
    failing = served(farm_db, "c-failing")
    routines.note_failure(farm_db, "subscription", failing.show, 60, "on fire")

    output = retally("watch", "--once").stdout

    assert told(output) == ["c-failing", "b-adrift", "a-quiet"]
    assert "3 shows, 2 in trouble" in output
    assert "subscription failed 1 time: on fire; again in" in output


def test_what_is_adrift_is_told_in_rows_and_cores(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    served(farm_db, "comet", wrong=True)
    (row,) = [line for line in retally("watch", "--once").stdout.splitlines() if "comet" in line]
    assert row.split()[:4] == ["comet", "default", "5", "15.00"]


def test_a_show_that_is_off_is_not_in_trouble(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    work = served(farm_db, "comet", wrong=True)
    assert "1 in trouble" in retally("watch", "--once").stdout
    routines.set_mode(farm_db, work.show, "off")
    output = retally("watch", "--once").stdout
    assert "none in trouble" in output
    assert output.splitlines()[3].split()[:7] == ["comet", "off", "-", "-", "-", "-", "-"]


def test_a_long_reason_is_told_in_full_under_the_table(
    farm_db: psycopg.Connection, terminal: Callable[..., Terminal]
) -> None:
    for number in range(30):
        served(farm_db, f"quiet{number}")
    failing = served(farm_db, "comet")
    reason = " ".join(f"word{number}" for number in range(60))
    routines.note_failure(farm_db, "subscription", failing.show, 60, reason)
    picture = plain(terminal().await_text(r"again in \d+ s"))
    table, _, below = picture.partition("more shows, none of them in trouble")
    assert "quiet" in table
    assert " ".join(below.split()).startswith(
        f"comet: subscription failed 1 time: {reason}; again in"
    )
    lines = picture.splitlines()
    assert len(lines) < 24
    assert max(map(len, lines)) <= 80


def test_reasons_that_do_not_fit_leave_half_of_the_screen_to_the_table(
    farm_db: psycopg.Connection, terminal: Callable[..., Terminal]
) -> None:
    for number in range(15):
        work = served(farm_db, f"show{number}")
        routines.note_failure(farm_db, "subscription", work.show, 60, "on fire " * 20)
    picture = plain(
        terminal().await_text(r"… and \d+ more lines: `retally status --format json` has all")
    )
    assert len(picture.splitlines()) < 24
    assert len([line for line in picture.splitlines() if line.startswith("show")]) >= 10


def test_a_show_that_nobody_serves_in_time_is_trouble(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    work = served(farm_db, "comet")
    manage(farm_db, work, True)
    farm_db.execute("UPDATE retally.due SET due_at = clock_timestamp() - interval '3 min'")
    output = retally("watch", "--once").stdout
    assert "due since 3 min" in output
    assert "1 in trouble" in output


def test_the_head_tells_database_time_and_workers(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    served(farm_db, "comet")
    routines.claim_due(farm_db, "subscription", 10, [], "dead")
    farm_db.execute(
        "UPDATE retally.worker SET seen_at = seen_at - interval '1 min' WHERE worker = 'dead'"
    )
    first = retally("watch", "--once").stdout.splitlines()[0]
    assert re.fullmatch(
        rf"{farm_db.info.dbname}  \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\dZ  1 worker \(1 gone\)"
        r"  1 show, none in trouble",
        first.rstrip(),
    )


def test_only_the_shows_that_are_asked_for_are_watched(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    for name in ("one", "other"):
        served(farm_db, name)
    assert told(retally("watch", "--once", "--show", "one").stdout) == ["one"]
    unknown = retally("watch", "--once", "--show", "on")
    assert unknown.exit_code == 1
    assert 'there is no show "on"' in unknown.stderr


def test_a_farm_that_no_worker_has_served_is_told_in_words(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    make_work(Rows(farm_db), "comet")
    assert "passes: none are kept" in retally("watch", "--once").stdout


def test_no_database_at_the_start_is_an_error() -> None:
    result = CliRunner().invoke(main, ["watch", "--dsn", "host=/nowhere"])
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")


def test_watching_reads_neither_procs_nor_totals(
    farm_db: psycopg.Connection, retally: Retally
) -> None:
    served(farm_db, "comet", wrong=True)
    farm_db.execute("ALTER TABLE proc RENAME TO proc_hidden")
    farm_db.execute("ALTER TABLE subscription RENAME TO subscription_hidden")
    for command in (["watch", "--once"], ["status"]):
        result = retally(*command)
        assert result.exit_code == 0, result.output


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_well_with_the_cursor_back(
    farm_db: psycopg.Connection, terminal: Callable[..., Terminal], number: signal.Signals
) -> None:
    served(farm_db, "comet")
    screen = terminal()
    screen.await_text("comet")
    assert screen.end(number) == 0
    assert "\x1b[?25h" in screen.output
    assert "Traceback" not in screen.output


def test_what_passes_find_meanwhile_is_seen(
    farm_db: psycopg.Connection, terminal: Callable[..., Terminal]
) -> None:
    work = served(farm_db, "comet")
    screen = terminal()
    screen.await_text("none in trouble")
    corrupt(farm_db)
    watched(farm_db, work)
    screen.await_text("1 in trouble")


@pytest.mark.parametrize(("columns", "lines"), [(80, 24), (160, 50)])
def test_more_shows_than_lines_are_cut_and_counted(
    farm_db: psycopg.Connection, terminal: Callable[..., Terminal], columns: int, lines: int
) -> None:
    rows = Rows(farm_db)
    for number in range(60):
        rows.show(f"show{number}")
    screen = terminal(columns=columns, lines=lines)
    picture = screen.await_text(r"… and \d+ more shows, none of them in trouble")
    shown = sum("show" in line for line in picture.splitlines()[3:-1])
    assert f"… and {60 - shown} more shows" in picture
    assert len(picture.splitlines()) < lines
    assert max(map(len, plain(picture).splitlines())) <= columns


def test_a_lost_database_is_told_and_waited_for(
    farm_db: psycopg.Connection, server: EmbeddedServer, terminal: Callable[..., Terminal]
) -> None:
    served(farm_db, "comet")
    screen = terminal(columns=160)
    screen.await_text("comet")
    name = sql.Identifier(farm_db.info.dbname)
    with psycopg.connect(server.dsn(), autocommit=True) as admin:
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        admin.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = %s AND pid <> %s",
            (farm_db.info.dbname, farm_db.info.backend_pid),
        )
        screen.await_text("database lost, waiting for it")
        screen.await_text("comet")  # as it was
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))
    screen.await_text("ticks: subscription")
    assert screen.end(signal.SIGINT) == 0


def test_in_a_pipe_a_plain_table_is_printed_again_and_again(
    farm_db: psycopg.Connection,
) -> None:
    served(farm_db, "comet")
    process = subprocess.Popen(
        [sys.executable, "-m", "retally.cli", "watch", "--interval", "0.1"],
        stdout=subprocess.PIPE,
        env=os.environ | {"RETALLY_DSN": farm_db.info.dsn, "PYTHONUNBUFFERED": "1"},
        text=True,
        preexec_fn=heed_ctrl_c,
    )
    assert process.stdout is not None
    seen: list[str] = []
    while sum("comet" in line for line in seen) < 3:
        line = process.stdout.readline()
        assert line, seen
        seen.append(line)
    process.send_signal(signal.SIGINT)
    rest, _ = process.communicate(timeout=_PATIENCE)
    assert process.returncode == 0
    assert "\x1b" not in "".join(seen) + rest
