"""Where log events go: stderr, as lines for people or as one JSON object per line."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, TextIO

import structlog

if TYPE_CHECKING:
    from structlog.typing import Processor

    from retally.worker.settings import LogFormat, LogLevel

# What these two report, the worker reports itself, once and with the names needed to act.
_REPEATING = ("psycopg", "apscheduler")


class _Handler(logging.StreamHandler[TextIO]):
    """Ours, so that configuring twice does not log twice."""


def configure_logging(
    log_format: LogFormat = "text", level: LogLevel = "info", stream: TextIO | None = None
) -> None:
    """Send every event, other libraries' too, to ``stream`` (stderr); times are UTC.

    No DSN is ever given to the log, and tracebacks come without local variables, which would
    show it.
    """
    target = sys.stderr if stream is None else stream
    common: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *common,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )
    handler = _Handler(target)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=common,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *(_json() if log_format == "json" else _text(target)),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [h for h in root.handlers if not isinstance(h, _Handler)] + [handler]
    root.setLevel(level.upper())
    for name in _REPEATING:
        logging.getLogger(name).setLevel(logging.ERROR)


def _json() -> list[Processor]:
    return [
        structlog.processors.format_exc_info,
        structlog.processors.JSONRenderer(ensure_ascii=False),
    ]


def _text(target: TextIO) -> list[Processor]:
    return [
        structlog.dev.ConsoleRenderer(
            colors=target.isatty(),
            exception_formatter=structlog.dev.plain_traceback,
            sort_keys=False,
        )
    ]
