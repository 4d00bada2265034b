"""``retally worker``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from retally.cli.options import settings_options
from retally.worker import Settings, Worker, configure_logging, requests_on_signals

if TYPE_CHECKING:
    from collections.abc import Callable


@click.command()
@settings_options
def worker(reread: Callable[[], Settings]) -> None:
    """Keep the totals of every managed show true, until SIGTERM or Ctrl-C.

    Two ticks: subscriptions, and the other totals. A tick writes only what differs, never waits
    for a booking, and takes rows that were busy at the next tick. Any number of workers may run:
    each show is rebuilt once per interval in total. A lost database is waited for. SIGTERM lets
    the passes in hand end, a second one undoes them; SIGHUP reads the settings again.

    \b
    Example:
      retally worker --dsn postgresql://cue@db.example/cuebot --log-format json
    """
    settings = reread().worker
    configure_logging(settings.log_format, settings.log_level)
    with requests_on_signals() as requests:
        Worker(settings.dsn, settings, reread=lambda: reread().worker).run(requests)
