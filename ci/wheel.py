"""Builds the wheel from the files under version control, checks what it holds, and installs it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
VERSION = PROJECT["project"]["version"]
#: package -> folder
ROOMS: dict[str, str] = PROJECT["tool"]["setuptools"]["package-dir"]
_METADATA = {"METADATA", "RECORD", "WHEEL", "entry_points.txt", "top_level.txt"}


def sources() -> list[str]:
    """The repository's files, new ones that are not ignored among them."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return sorted(name for name in listed.stdout.split("\0") if name and (ROOT / name).exists())


def expected(names: list[str]) -> set[str]:
    """The wheel's contents: the rooms' modules and SQL, and the metadata."""
    folders = {folder: package.replace(".", "/") for package, folder in ROOMS.items()}
    metadata = f"retally-{VERSION}.dist-info"
    wanted = {f"{metadata}/{name}" for name in _METADATA} | {f"{metadata}/licenses/LICENSE"}
    for name in names:
        folder, _, rest = name.partition("/")
        if folder in folders and rest.endswith((".py", ".sql", "py.typed")):
            wanted.add(f"{folders[folder]}/{rest}")
    return wanted


def forgotten_rooms(names: list[str]) -> list[str]:
    """Folders that look like a room of the package but are not told everywhere as one."""
    rooms = {name.partition("/")[0] for name in names if name.count("/") == 1}
    rooms = {room for room in rooms if f"{room}/__init__.py" in names}
    told = set(ROOMS.values())
    linked = {room for room in rooms if (ROOT / "ci" / "typing" / "retally" / room).is_symlink()}
    return [
        *(f"{room}/ is not in pyproject.toml's package-dir" for room in sorted(rooms - told)),
        *(f"ci/typing/retally/{room} is missing" for room in sorted(rooms - linked)),
    ]


def build(names: list[str], work: Path) -> Path:
    """The wheel, built from a copy: no stale build/ or egg-info gets into it."""
    for name in names:
        target = work / "source" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, target, follow_symlinks=False)
    command: list[str | Path] = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--outdir",
        work / "dist",
    ]
    built = subprocess.run(
        [*command, work / "source"],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    if built.returncode:
        raise SystemExit(f"{built.stdout}\nthe wheel cannot be built")
    (wheel,) = (work / "dist").glob("*.whl")
    return wheel


def installed_version(wheel: Path, work: Path) -> str:
    """What ``retally --version`` says in a fresh environment, run from an empty directory."""
    venv.create(work / "venv", with_pip=True)
    empty = work / "empty"
    empty.mkdir()
    programs = work / "venv" / "bin"
    pip: list[str | Path] = [programs / "python", "-m", "pip", "install", "--quiet", wheel]
    subprocess.run(pip, check=True, cwd=empty)
    result = subprocess.run(
        [programs / "retally", "--version"], cwd=empty, capture_output=True, text=True, check=False
    )
    return (result.stdout + result.stderr).strip()


def main() -> int:
    names = sources()
    problems = forgotten_rooms(names)
    with tempfile.TemporaryDirectory(prefix="retally-wheel-") as directory:
        wheel = build(names, Path(directory))
        with zipfile.ZipFile(wheel) as archive:
            held = set(archive.namelist())
        print(f"{wheel.name}: {len(held)} files, {wheel.stat().st_size} bytes")
        problems += [f"not in the wheel: {name}" for name in sorted(expected(names) - held)]
        problems += [f"does not belong: {name}" for name in sorted(held - expected(names))]
        said = installed_version(wheel, Path(directory))
        print(said)
        if not re.fullmatch(rf"retally\b.*\b{re.escape(VERSION)}", said):
            problems.append(f"`retally --version` does not say retally {VERSION}")
    for problem in problems:
        print(problem)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
