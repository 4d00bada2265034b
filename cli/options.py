"""The options that several commands share, and what they turn into."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from retally.procedures import TOTALS, Show, routines
from retally.sql.connect import connect
from retally.sql.migrate import require_current
from retally.worker.settings import (
    DEFAULT_FILE,
    FILE_VARIABLE,
    WorkerSettings,
    flag_of,
    read,
    read_dsn,
    variable_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import psycopg

F = TypeVar("F", bound="Callable[..., Any]")

#: What stands for the value of a setting in the help, unless that lists the values.
_METAVARS = {
    "dsn": "DSN",
    "subscription_interval": "SECONDS",
    "resource_interval": "SECONDS",
    "pool_size": "N",
    "totals": f"[{'|'.join(TOTALS)}]",
    "journal_audit": "SECONDS",
    "statement_timeout": "SECONDS",
    "shutdown_grace": "SECONDS",
    "metrics_port": "PORT",
    "metrics_host": "ADDRESS",
}


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


def dsn_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--dsn`` and ``--config``, handed on as the parameter ``dsn``; and ``--debug``."""

    @functools.wraps(command)
    def resolved(*args: Any, dsn: str | None, config: str | None, **kwargs: Any) -> Any:
        return command(*args, dsn=read_dsn(dsn, config), **kwargs)

    return _setting_option("dsn")(_config_option(debug_option(resolved)))


def settings_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """A flag for each setting, ``--config`` and ``--debug``.

    The command gets ``reread``, which reads all settings anew at each call.
    """

    @functools.wraps(command)
    def resolved(config: str | None, **kwargs: Any) -> Any:
        flags = {name: kwargs.pop(name) for name in WorkerSettings.model_fields}
        flags["totals"] = flags["totals"] or None
        return command(reread=functools.partial(read, flags, config), **kwargs)

    options = _config_option(debug_option(resolved))
    for name in reversed(WorkerSettings.model_fields):
        options = _setting_option(name)(options)
    return options


def _config_option(command: F) -> F:
    return click.option(
        "--config",
        metavar="FILE",
        help=f"TOML file with settings.  [env: {FILE_VARIABLE}; default: {DEFAULT_FILE} if it"
        " exists]",
    )(command)


def _setting_option(name: str) -> Callable[[F], F]:
    """The flag of one setting; its value is checked where those from elsewhere are."""
    described = WorkerSettings.model_fields[name]
    default = described.default
    env = variable_of(name)
    text = described.description
    if several := isinstance(default, tuple):
        text, env, default = f"{text} May be repeated.", f"{env}, separated by commas", "all five"
    if name == "dsn":
        default = "libpq's own PG… variables"
    return click.option(
        flag_of(name),
        name,
        multiple=several,
        metavar=_METAVARS.get(name) or f"[{'|'.join(get_args(described.annotation))}]",
        help=f"{text}  [env: {env}; default: {'none' if default is None else default}]",
    )


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
        help="How to print: a table for people, amounts in cores; JSON or CSV for programs, amounts"
        " in core units.",
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
