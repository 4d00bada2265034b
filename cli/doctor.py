"""``retally doctor``."""

from __future__ import annotations

import sys
import textwrap
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING

import click

from retally.cli.diagnosis import BARE, INSTALLED
from retally.cli.errors import Exit
from retally.cli.options import dsn_option, format_option
from retally.cli.output import print_rows
from retally.cli.symptoms import Check, Question
from retally.procedures.rights import PURPOSES
from retally.sql.connect import connect
from retally.sql.errors import (
    DatabaseUnreachableError,
    PermissionDeniedError,
    RetallyError,
    translated,
)
from retally.sql.migrate import known_version, require_current

if TYPE_CHECKING:
    from collections.abc import Iterator

    import psycopg

_COLORS = {"ok": "green", "warning": "yellow", "problem": "red", "skipped": None}
_WIDTH = 100
_INDENT = 22

# No check may hang behind a lock, keep the server busy, or change anything.
_LIMITS = """
SELECT
    set_config('statement_timeout', '30s', TRUE),
    set_config('lock_timeout', '2s', TRUE),
    set_config('transaction_read_only', 'on', TRUE)
"""


@dataclass(frozen=True)
class Line:
    """A line of the report; ``state``: ok, warning, problem or skipped."""

    check: str
    state: str
    seen: str
    advice: str = ""


@click.command()
@click.option(
    "--long",
    "long",
    type=click.FloatRange(min=0, max=1e6),
    default=5.0,
    show_default=True,
    metavar="MINUTES",
    help="Tell of transactions that are open for longer.",
)
@click.option(
    "--for",
    "purpose",
    type=click.Choice(PURPOSES),
    default="worker",
    show_default=True,
    help="Whose rights the role should have; see retally grants.",
)
@format_option
@dsn_option
def doctor(dsn: str | None, long: float, purpose: str, style: str) -> None:
    """Look for what keeps totals from being true, or ticks from being quick, and say what to do.

    Changes nothing. Exit code 0 when nothing is a problem, 1 otherwise. A problem: totals are or
    will become wrong, or retally cannot do its work; a warning: it works, and somebody should
    look; skipped: it takes rights that such a role does not have, and need not. It reads every proc
    once or twice.

    \b
    Example:
      retally doctor
      retally doctor --for reader --long 60 --format json
    """
    lines = []
    for line in _lines(dsn, Question(60 * long, purpose)):
        lines.append(line)
        if style == "table":
            _print(line)
    if style != "table":
        print_rows([asdict(line) for line in lines], style, tuple(Line.__dataclass_fields__))
    sys.exit(Exit.ERROR if any(line.state == "problem" for line in lines) else Exit.FINE)


def _lines(dsn: str | None, question: Question) -> Iterator[Line]:
    try:
        conn = connect(dsn)
    except RetallyError as error:
        yield Line("connection", "problem", str(error), error.hint)
        return
    with conn:
        yield Line("connection", "ok", f"database {conn.info.dbname} as {conn.info.user}")
        try:
            for check in BARE:
                yield from _look(conn, check, question)
            schema = _schema(conn, question)
            yield schema
            if schema.state != "ok":
                names = ", ".join(check.name for check in INSTALLED)
                yield Line("the rest", "warning", f"not looked at: {names}", "see schema first")
                return
            for check in INSTALLED:
                yield from _look(conn, check, question)
        except DatabaseUnreachableError as error:
            yield Line("connection", "problem", f"lost: {error}", error.hint)


def _schema(conn: psycopg.Connection, question: Question) -> Line:
    try:
        with translated(), conn.transaction():
            conn.execute(_LIMITS)
            require_current(conn)
    except DatabaseUnreachableError:
        raise
    except RetallyError as error:
        return Line("schema", "problem", str(error), _advice(conn, error, question))
    return Line(
        "schema", "ok", f"version {known_version()}, routines of retally {version('retally')}"
    )


def _look(conn: psycopg.Connection, check: Check, question: Question) -> Iterator[Line]:
    """One check, in a transaction of its own: one that fails keeps no other from its answer."""
    if check.purposes is not None and question.purpose not in check.purposes:
        yield Line(check.name, "skipped", f"not looked at: not for a {question.purpose} to see")
        return
    try:
        with translated(), conn.transaction():
            conn.execute(_LIMITS)
            symptoms = check.look(conn, question)
    except DatabaseUnreachableError:
        raise
    except RetallyError as error:
        yield Line(check.name, "problem", str(error), _advice(conn, error, question))
        return
    if not symptoms:
        yield Line(check.name, "ok", check.fine)
    for symptom in symptoms:
        yield Line(check.name, symptom.state, symptom.seen, symptom.advice)


def _advice(conn: psycopg.Connection, error: RetallyError, question: Question) -> str:
    if isinstance(error, PermissionDeniedError):
        role = conn.info.user
        return f"as the owner: retally grants --to {role} --for {question.purpose} --apply"
    return error.hint


def _print(line: Line) -> None:
    state = click.style(f"{line.state:<8}", fg=_COLORS[line.state])
    first, *others = _wrapped(line.seen)
    click.echo(f"{state} {line.check:<12} {first}")
    if line.advice:
        others += _wrapped(f"-> {line.advice}")
    for text in others:
        click.echo(f"{'':{_INDENT}}{text}")


def _wrapped(text: str) -> list[str]:
    # what may be copied, statements and ids, is not cut within a word
    return textwrap.wrap(
        text, _WIDTH - _INDENT, break_long_words=False, break_on_hyphens=False
    ) or [""]
