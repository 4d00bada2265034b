"""``retally settings``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from retally.cli.options import format_option, settings_options
from retally.cli.output import Row, note, print_rows
from retally.worker.settings import DEFAULT_FILE, masked

if TYPE_CHECKING:
    from collections.abc import Callable

    from retally.worker import Settings

_COLUMNS = ("setting", "value", "source")


@click.command("settings")
@format_option
@settings_options
def settings_command(reread: Callable[[], Settings], style: str) -> None:
    """Print every setting, and whether a flag, a variable, the file or the default gave it.

    Takes the flags of `retally worker`, so that a command line can be tried. Passwords in the DSN
    are not shown. Without a DSN, libpq's own PG… variables and service files hold.

    \b
    Example:
      retally settings --pool-size 4
    """
    settings = reread()
    print_rows([_row(settings, name, style) for name in settings.sources], style, _COLUMNS)
    note(f"settings file: {settings.file or f'none, as there is no {DEFAULT_FILE}'}")
    for line in settings.notes:
        note(f"note: {line}")


def _row(settings: Settings, name: str, style: str) -> Row:
    value = getattr(settings.worker, name)
    if name == "dsn" and value is not None:
        value = masked(value)
    return {
        "setting": name,
        "value": value if style == "json" else _written(value),
        "source": settings.sources[name],
    }


def _written(value: Any) -> str | None:
    """As it would stand in a variable."""
    if isinstance(value, tuple):
        return ",".join(value)
    return None if value is None else str(value)
