"""The options that several commands share, and what they turn into."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar

import click

from retally.procedures import TOTALS, Show, routines
from retally.sql.connect import connect
from retally.sql.migrate import require_current

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

F = TypeVar("F", bound="Callable[..., Any]")


def debug_option(command: F) -> F:
    """``--debug``: show the traceback of an error."""

    def remember(ctx: click.Context, _: click.Parameter, value: bool) -> None:
        ctx.meta["retally.debug"] = value

    return click.option(
        "--debug",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Show the traceback of an error.",
    )(command)


def dsn_option(command: F) -> F:
    """``--dsn``, handed on as the parameter ``dsn``; and ``--debug``."""
    option = click.option(
        "--dsn",
        envvar="RETALLY_DSN",
        metavar="DSN",
        help="libpq connection string or URI of the farm's database"
        "  [env: RETALLY_DSN; default: libpq's own PG… variables]",
    )
    return option(debug_option(command))


def database(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--dsn`` and ``--debug``; the command gets an open connection as its first argument."""

    @functools.wraps(command)
    def connected(dsn: str | None, **kwargs: Any) -> Any:
        with connect(dsn) as conn:
            return command(conn, **kwargs)

    return dsn_option(connected)


def installed(command: Callable[..., Any]) -> Callable[..., Any]:
    """As ``database``, and retally has to be installed there, in this program's version."""

    @functools.wraps(command)
    def checked(conn: psycopg.Connection, **kwargs: Any) -> Any:
        require_current(conn)
        return command(conn, **kwargs)

    return database(checked)


def show_option(text: str) -> Callable[[F], F]:
    """``--show NAME``, repeatable, as the parameter ``names``."""
    return click.option("--show", "names", multiple=True, metavar="NAME", help=text)


def total_option(command: F) -> F:
    """``--total T``, repeatable, as the parameter ``totals``: empty means all five."""
    return click.option(
        "--total",
        "totals",
        multiple=True,
        type=click.Choice(TOTALS),
        help="Only this total; may be given several times.",
    )(command)


def format_option(command: F) -> F:
    """``--format table|json|csv`` as the parameter ``style``."""
    return click.option(
        "--format",
        "style",
        type=click.Choice(["table", "json", "csv"]),
        default="table",
        show_default=True,
        help="How to print: a table in cores for people, JSON or CSV in core units for programs.",
    )(command)


def chosen_shows(conn: psycopg.Connection, names: Sequence[str]) -> list[Show]:
    """The shows with these names or ids, each once; all of them when there are no names.

    Raises UnknownShowError and AmbiguousShowError.
    """
    everything = routines.shows(conn)
    if not names:
        return everything
    ids = {routines.show_id(conn, name) for name in names}
    return [show for show in everything if show.show_id in ids]


def chosen_totals(totals: Sequence[str]) -> tuple[str, ...]:
    """These totals in the order of the booking path; all five when there are none."""
    return tuple(total for total in TOTALS if not totals or total in totals)


def need(condition: object, message: str) -> None:
    """Raise a usage error (exit code 2) unless the condition holds."""
    if not condition:
        raise click.UsageError(message)
