"""Every check of the project, in order; the tests last. ``check.py NAME …`` runs only these.

Goes on after a failure and says at the end what failed.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_RUN = [sys.executable, "-m"]
_SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "ci").glob("*.py"))

#: name -> commands
CHECKS: dict[str, list[list[str]]] = {
    "ruff": [[*_RUN, "ruff", "check"], [*_RUN, "ruff", "format", "--check"]],
    "mypy": [[*_RUN, "mypy", "-p", "retally"], [*_RUN, "mypy", "tests", *_SCRIPTS]],
    "sqlfluff": [[*_RUN, "sqlfluff", "lint", "--processes", "2", "sql", "procedures", "bench"]],
    "bodies": [[sys.executable, "ci/parse_bodies.py"]],
    "schema": [[sys.executable, "ci/schema.py"]],
    "wheel": [[sys.executable, "ci/wheel.py"]],
    "pytest": [[*_RUN, "pytest", "--durations=10"]],
}


def run(command: list[str]) -> tuple[bool, str]:
    """Run a command and pass on what it prints; whether it succeeded, and its last line."""
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    last = ""
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        for line in process.stdout or ():
            print(line, end="", flush=True)
            last = line.strip() or last
    return process.returncode == 0, last


def main() -> int:
    wanted = sys.argv[1:] or list(CHECKS)
    if unknown := set(wanted) - set(CHECKS):
        print(f"no such check: {', '.join(sorted(unknown))}; there are {', '.join(CHECKS)}")
        return 2
    outcomes: list[tuple[str, bool, float]] = []
    closing = ""
    for name in wanted:
        print(f"\n=== {name}", flush=True)
        started = time.monotonic()
        results = [run(command) for command in CHECKS[name]]
        outcomes.append((name, all(ok for ok, _ in results), time.monotonic() - started))
        closing = results[-1][1]
    print("\n=== summary")
    for name, ok, seconds in outcomes:
        print(f"{'ok    ' if ok else 'FAILED'} {name:10} {seconds:6.1f} s")
    failed = [name for name, ok, _ in outcomes if not ok]
    if failed:
        print(f"failed: {', '.join(failed)}")
    if wanted[-1] == "pytest":
        print(closing)  # pytest's closing line, which a reader looks for at the end
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
