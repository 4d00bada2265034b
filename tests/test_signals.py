"""Signals and what they ask for, sent to this process and to others."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from retally.worker import Requests, requests_on_signals, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

_PATIENCE = 60.0  # seconds, for what takes far below one
_NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def asked(requests: Requests) -> list[str]:
    return [name for name in ("stop", "hurry", "reload") if getattr(requests, name).is_set()]


@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_stops_and_the_second_hurries(
    first: signal.Signals, second: signal.Signals
) -> None:
    with requests_on_signals() as requests:
        signal.raise_signal(first)
        assert requests.stop.wait(_PATIENCE)
        assert asked(requests) == ["stop"]
        signal.raise_signal(second)
        assert requests.hurry.wait(_PATIENCE)
    assert asked(requests) == ["stop", "hurry"]


def test_two_signals_at_once_are_two() -> None:
    with requests_on_signals() as requests:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
    assert asked(requests) == ["stop", "hurry"], "all are served before the block is left"


def test_a_hang_up_asks_for_the_settings_as_often_as_it_comes() -> None:
    with requests_on_signals() as requests:
        for _ in range(3):
            signal.raise_signal(signal.SIGHUP)
            assert requests.reload.wait(_PATIENCE)
            requests.reload.clear()
    assert asked(requests) == []


def test_what_runs_in_a_terminal_stops_at_every_one_of_them() -> None:
    for number in _NUMBERS:
        stop = threading.Event()
        with stop_on_signals(stop):
            signal.raise_signal(number)
            assert stop.wait(_PATIENCE)


def test_the_former_handlers_are_back_and_no_thread_is_left_afterwards() -> None:
    before = [signal.getsignal(number) for number in _NUMBERS]
    with requests_on_signals(), stop_on_signals(threading.Event()):
        assert before != [signal.getsignal(number) for number in _NUMBERS]
    assert before == [signal.getsignal(number) for number in _NUMBERS]
    assert not [t for t in threading.enumerate() if t.name == "retally-signals"]


def test_an_error_in_the_block_puts_the_former_handlers_back_too() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyError), requests_on_signals():
        raise KeyError
    assert signal.getsignal(signal.SIGTERM) is before


def test_another_thread_is_refused_and_leaves_nothing_behind() -> None:
    before = [signal.getsignal(number) for number in _NUMBERS]
    refused: list[Exception] = []

    def enter() -> None:
        try:
            with requests_on_signals():
                pass
        except ValueError as error:
            refused.append(error)

    other = threading.Thread(target=enter)
    other.start()
    other.join()

    assert len(refused) == 1
    assert before == [signal.getsignal(number) for number in _NUMBERS]
    assert not [t for t in threading.enumerate() if t.name == "retally-signals"]


_PROGRAM = """
import sys, threading
from retally.worker.signals import requests_on_signals
with requests_on_signals() as requests:
    print("ready", flush=True)
    for line in sys.stdin:
        event = getattr(requests, line.strip())
        print(event.wait(60), flush=True)
        event.clear()
print("ended", flush=True)
"""

# A signal at each line that the main thread runs in the module threading, locks in its hands.
_LOCKED_PROGRAM = """
import signal, sys, threading
from retally.worker.signals import requests_on_signals

def interrupt(frame, event, _):
    if frame.f_code.co_filename == threading.__file__:
        signal.raise_signal(signal.SIGHUP)
        return interrupt

with requests_on_signals() as requests:
    print("ready", flush=True)
    thread = threading.Thread(target=int)
    sys.settrace(interrupt)
    requests.reload.set()
    requests.reload.wait(0)
    requests.reload.clear()
    requests.reload.wait(0.01)
    thread.start()
    thread.join()
    sys.settrace(None)
    print(requests.reload.wait(60), flush=True)
"""


@contextmanager
def running(program: str, *prefix: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [*prefix, sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    # reading cannot hang for ever: the pipe ends with the process
    limit = threading.Timer(_PATIENCE, process.kill)
    limit.start()
    with process:
        try:
            assert line(process) == "ready"
            yield process
        finally:
            process.kill()
            limit.cancel()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def wait_for(process: subprocess.Popen[str], event: str) -> str:
    assert process.stdin is not None
    process.stdin.write(f"{event}\n")
    process.stdin.flush()
    return line(process)


def test_a_process_hears_signals_while_it_is_inside_a_wait() -> None:
    with running(_PROGRAM) as process:
        for number, event in (
            (signal.SIGHUP, "reload"),
            (signal.SIGTERM, "stop"),
            (signal.SIGHUP, "reload"),
        ):
            process.send_signal(number)
            assert wait_for(process, event) == "True"
        process.communicate()
        assert process.returncode == 0


def test_a_signal_waits_for_no_lock_that_the_main_thread_holds() -> None:
    with running(_LOCKED_PROGRAM) as process:
        assert line(process) == "True"
        assert process.wait(_PATIENCE) == 0


def test_under_nohup_a_hang_up_stays_without_effect() -> None:
    with running(_PROGRAM, "nohup") as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        assert wait_for(process, "stop") == "True"
        out, _ = process.communicate()
        assert (out, process.returncode) == ("ended\n", 0)
