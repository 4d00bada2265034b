"""The one door through which SQL text comes into Python."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, LiteralString

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable


@cache
def sql_text(room: str, name: str) -> LiteralString:
    """The text of ``<room>/<name>.sql``, a file of this package; read once per process.

    ``room`` is ``sql``, ``procedures`` or ``bench``; ``name`` may hold folders: ``opencue/booked``.
    """
    return _trusted(files(f"retally.{room}").joinpath(f"{name}.sql"))


@cache
def sql_texts(room: str, folder: str) -> dict[str, LiteralString]:
    """All files ``<room>/<folder>/*.sql``, by stem, in the order of their names."""
    found = files(f"retally.{room}").joinpath(folder).iterdir()
    wanted = sorted((f for f in found if f.name.endswith(".sql")), key=lambda f: f.name)
    return {f.name.removesuffix(".sql"): _trusted(f) for f in wanted}


def _trusted(file: Traversable) -> LiteralString:
    # Files of the package are as trustworthy as literals in its code.
    text: LiteralString = file.read_text(encoding="utf-8")
    return text
