"""``retally worker``."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, TypeVar

import click

from retally.cli.options import dsn_option
from retally.procedures import TOTALS
from retally.worker import Worker, WorkerSettings, configure_logging, stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable

F = TypeVar("F", bound="Callable[..., Any]")

_DEFAULTS = WorkerSettings.model_fields


def _option(name: str, text: str, **kwargs: Any) -> Callable[[F], F]:
    default = _DEFAULTS[name].default
    env = f"RETALLY_{name.upper()}"
    return click.option(
        f"--{name.replace('_', '-')}",
        name,
        help=f"{text}  [env: {env}; default: {default}]",
        **kwargs,
    )


@click.command()
@_option("subscription_interval", "Seconds between passes over subscriptions.", type=float)
@_option("resource_interval", "Seconds between passes over the other totals.", type=float)
@_option("pool_size", "Shows mended at the same time.", type=int)
@click.option(
    "--total",
    "totals",
    multiple=True,
    type=click.Choice(TOTALS),
    help="Serve only this total; may be given several times."
    "  [env: RETALLY_TOTALS, separated by commas; default: all five]",
)
@_option("statement_timeout", "Seconds after which the server ends a statement.", type=float)
@_option("shutdown_grace", "Seconds that passes have to end when stopped.", type=float)
@_option("log_format", "Lines for people or for programs.", type=click.Choice(["text", "json"]))
@_option(
    "log_level",
    "The least level that is logged; debug tells of quiet passes too.",
    type=click.Choice(["debug", "info", "warning", "error"]),
)
@dsn_option
def worker(dsn: str | None, totals: tuple[str, ...], **flags: Any) -> None:
    """Keep the totals of every managed show true, until SIGTERM or Ctrl-C.

    Two ticks: subscriptions, and the other totals. A tick writes only what differs, never waits
    for a booking, and takes rows that were busy at the next tick. Any number of workers may run:
    each show is rebuilt once per interval in total. A lost database is waited for.

    \b
    Example:
      retally worker --dsn postgresql://cue@db.example/cuebot --log-format json
    """
    settings = WorkerSettings.from_flags(totals=",".join(totals) or None, **flags)
    configure_logging(settings.log_format, settings.log_level)
    stop = threading.Event()
    with stop_on_signals(stop):
        Worker(dsn, settings).run(stop)
