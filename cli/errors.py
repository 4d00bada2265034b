"""The one place that turns errors into a line on the terminal and an exit code."""

from __future__ import annotations

import sys
import traceback
from enum import IntEnum
from typing import Any

import click
import psycopg
from pydantic import ValidationError

from retally.sql.errors import RetallyError, ShowBusyError, StillBusyError, typed
from retally.worker.settings import SettingError


class Exit(IntEnum):
    """What the exit codes of ``retally`` mean."""

    FINE = 0
    ERROR = 1
    USAGE = 2
    DRIFT = 3
    BUSY = 5


class TypedErrorGroup(click.Group):
    """Prints any expected error as one line and exits with its code; see ``Exit``.

    ``--debug`` adds the traceback.
    """

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; see the class."""
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            raise  # whoever reads our output has enough: click ends quietly
        except (RetallyError, psycopg.Error, ValidationError, OSError, UnicodeError) as error:
            if ctx.meta.get("retally.debug"):
                traceback.print_exc()
            click.secho(f"Error: {_line(error)}", fg="red", err=True)
            sys.exit(_code(error))


def _code(error: Exception) -> Exit:
    if isinstance(error, (ShowBusyError, StillBusyError)):
        return Exit.BUSY
    return Exit.USAGE if isinstance(error, (ValidationError, SettingError)) else Exit.ERROR


def _line(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        name = "_".join(str(part) for part in first["loc"])
        return f"setting {name}: {first['msg']} (it is {first['input']!r})"
    known = typed(error) if isinstance(error, psycopg.Error) else error
    hint = getattr(known, "hint", "")
    # psycopg's messages can be long paragraphs: one line is what a log and a person can use
    message = " ".join(str(known).split())
    return f"{message}: {hint}" if hint else message
