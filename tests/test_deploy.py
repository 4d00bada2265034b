"""The files in deploy/ promise things about the program: each promise is held against it."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
import tomllib
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from retally.cli import main
from retally.cli.errors import Exit
from retally.worker import WorkerSettings
from retally.worker.run import _WATCH_SECONDS
from retally.worker.settings import DEFAULT_FILE, read, variable_of

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
UNIT_FILE = DEPLOY / "systemd" / "retally.service"
EXAMPLE = (DEPLOY / "retally.toml").read_text(encoding="utf-8")
OPERATION = (ROOT / "docs" / "operation.md").read_text(encoding="utf-8")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
DEFAULTS = {name: field.default for name, field in WorkerSettings.model_fields.items()}

_SECONDS = {"s": 1, "min": 60}


def unit() -> dict[str, list[str]]:
    """The unit's keys; each may be given several times."""
    keys: dict[str, list[str]] = {}
    for line in UNIT_FILE.read_text(encoding="utf-8").splitlines():
        if line and line[0] not in "#;[":
            key, _, value = line.partition("=")
            keys.setdefault(key, []).append(value)
    return keys


UNIT = unit()


def one(key: str) -> str:
    (value,) = UNIT[key]
    return value


def seconds(key: str) -> float:
    number = re.fullmatch(r"(\d+)(s|min)", one(key))
    assert number is not None
    return int(number[1]) * _SECONDS[number[2]]


def parsed(command: list[str]) -> dict[str, object]:
    """The parameters that a command line comes to; nothing is run."""
    name, *arguments = command
    return main.commands[name].make_context(name, arguments).params


def test_the_unit_starts_a_command_that_exists_with_flags_that_exist() -> None:
    program, *command = shlex.split(one("ExecStart"))
    assert Path(program).name in PROJECT["project"]["scripts"]
    assert command[0] == "worker"
    assert parsed(command)["config"] == str(DEFAULT_FILE)


def test_the_unit_allows_for_an_orderly_end() -> None:
    assert one("KillSignal") == "SIGTERM"
    assert seconds("TimeoutStopSec") >= DEFAULTS["shutdown_grace"] + 10
    # at a reload the passes in hand end first, and nobody says that it is alive meanwhile
    assert seconds("WatchdogSec") >= DEFAULTS["shutdown_grace"] + 10 * _WATCH_SECONDS


def test_the_unit_reloads_by_the_signal_that_the_worker_takes_for_it() -> None:
    assert one("Type") == "notify"
    assert shlex.split(one("ExecReload"))[1:] == ["-HUP", "$MAINPID"]


def test_the_unit_does_not_try_again_what_cannot_become_right() -> None:
    assert one("Restart") == "on-failure"
    assert one("RestartPreventExitStatus") == str(int(Exit.USAGE))
    wrong = subprocess.run(
        [sys.executable, "-m", "retally.cli", "worker"],
        env=os.environ | {"RETALLY_POOL_SIZE": "none"},
        check=False,
        capture_output=True,
    )
    assert wrong.returncode == Exit.USAGE


def test_the_unit_lets_the_worker_reach_its_manager_and_the_database() -> None:
    assert {"AF_UNIX", "AF_INET", "AF_INET6"} <= set(one("RestrictAddressFamilies").split())
    assert "PrivateNetwork" not in UNIT


def test_every_setting_in_the_units_environment_exists() -> None:
    known = {variable_of(name) for name in DEFAULTS} | {"RETALLY_CONFIG"}
    text = UNIT_FILE.read_text(encoding="utf-8")
    assert set(re.findall(r"RETALLY_\w+", text)) <= known


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_finds_nothing_wrong_with_the_unit_and_little_to_expose(tmp_path: Path) -> None:
    # only the program is not where an installation has it
    copy = tmp_path / UNIT_FILE.name
    program = shlex.split(one("ExecStart"))[0]
    text = UNIT_FILE.read_text(encoding="utf-8").replace(program, sys.executable)
    copy.write_text(text, encoding="utf-8")

    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], check=False, capture_output=True, text=True
    )
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")

    exposed = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", copy],
        check=False,
        capture_output=True,
        text=True,
    )
    assert exposed.returncode == 0, exposed.stdout


def test_the_example_file_names_every_setting_with_its_default(tmp_path: Path) -> None:
    assert tomllib.loads(EXAMPLE) == {}, "as it is, it changes nothing"
    file = tmp_path / "retally.toml"
    file.write_text(re.sub(r"^#(?=\w+ = )", "", EXAMPLE, flags=re.MULTILINE), encoding="utf-8")

    got = read({}, str(file))

    assert list(got.sources) == list(DEFAULTS)
    assert set(got.sources.values()) == {str(file)}
    without_default = {"dsn", "metrics_port"}
    assert {n: v for n, v in got.worker.model_dump().items() if n not in without_default} == {
        n: v for n, v in DEFAULTS.items() if n not in without_default
    }


def test_the_settings_page_has_every_setting_with_its_default() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \|", OPERATION, re.MULTILINE)
    said = {"dsn": "libpq's own", "totals": "all five", "metrics_port": "none"}
    assert dict(rows) == {name: said.get(name, str(value)) for name, value in DEFAULTS.items()}


def dockerfile() -> list[tuple[str, str]]:
    text = (DEPLOY / "docker" / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"^#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (x.partition(" ") for x in lines if x)]


INSTRUCTIONS = dockerfile()
#: Those of the image itself, after the last FROM.
IMAGE = dict(INSTRUCTIONS[max(i for i, (word, _) in enumerate(INSTRUCTIONS) if word == "FROM") :])
ENVIRONMENT = dict(part.split("=", 1) for part in shlex.split(IMAGE["ENV"]))


def test_the_image_runs_as_a_number_that_is_not_root() -> None:
    user, group = IMAGE["USER"].split(":")
    assert int(user) > 0
    assert int(group) > 0


def test_the_image_starts_a_worker_without_a_shell_between() -> None:
    (program,) = json.loads(IMAGE["ENTRYPOINT"])
    assert program in PROJECT["project"]["scripts"]
    command = json.loads(IMAGE["CMD"])
    assert command[0] == "worker"
    parsed(command)
    assert IMAGE["STOPSIGNAL"] == "SIGTERM"


def test_the_image_has_what_it_runs_and_nothing_to_build_with() -> None:
    (copied,) = [
        rest.split() for word, rest in INSTRUCTIONS if (word, "--from" in rest) == ("COPY", True)
    ]
    source, place = copied[1:]
    assert source == place
    assert "RUN" not in IMAGE
    built = " ".join(rest for word, rest in INSTRUCTIONS if word == "RUN")
    assert f"venv --without-pip {place} " in built
    assert ENVIRONMENT["PATH"].split(":")[0] == f"{place}/bin"


def test_the_image_has_a_python_that_is_supported() -> None:
    versions = {rest.split()[0] for word, rest in INSTRUCTIONS if word == "FROM"}
    (version,) = versions  # the environment is made and used by the same one
    number = re.fullmatch(r"python:(3\.\d+)-slim", version)
    assert number is not None
    assert f"Programming Language :: Python :: {number[1]}" in PROJECT["project"]["classifiers"]


def test_the_image_sets_settings_that_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {name: value for name, value in ENVIRONMENT.items() if name.startswith("RETALLY_")}
    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    got = read({}, os.devnull)
    assert ours.keys() <= set(got.sources.values())
    assert str(got.worker.metrics_port) == IMAGE["EXPOSE"]
    assert got.worker.metrics_host == "0.0.0.0", "or no published port would reach it"


@pytest.mark.parametrize(("status", "healthy"), [(200, True), (503, False)])
def test_the_image_is_healthy_when_the_worker_says_so(status: int, healthy: bool) -> None:
    asked: list[str] = []

    class Worker(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    command = json.loads(IMAGE["HEALTHCHECK"].partition("CMD ")[2])
    assert command[0] == "python"
    with HTTPServer(("127.0.0.1", 0), Worker) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answer = subprocess.run(
                [sys.executable, *command[1:]],
                # a proxy is for others
                env=os.environ
                | {"RETALLY_METRICS_PORT": str(server.server_port), "http_proxy": "http://[::1]:1"},
                check=False,
                capture_output=True,
            )
        finally:
            server.shutdown()
            thread.join()
    assert asked == ["/healthz"]
    assert (answer.returncode == 0) is healthy


def sent_to_the_builder() -> set[str]:
    """The names at the repository's root that .dockerignore leaves in; the last match decides."""
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    rules = [rule for rule in rules if rule and not rule.startswith("#")]
    names = set()
    for path in ROOT.iterdir():
        matching = [rule for rule in rules if fnmatch(path.name, rule.removeprefix("!"))]
        if not matching or matching[-1].startswith("!"):
            names.add(path.name)
    return names


def test_the_builder_gets_what_the_wheel_is_made_of_and_nothing_else() -> None:
    project = PROJECT["project"]
    rooms = set(PROJECT["tool"]["setuptools"]["package-dir"].values())
    needed = {"pyproject.toml", project["readme"], *project["license-files"], *rooms}
    assert sent_to_the_builder() == needed
