"""The worker's settings: the one place that names, defaults and validates them."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from retally.procedures import TOTALS

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]

_DAY = 86_400.0


def _split(value: Any) -> Any:
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def _in_order(totals: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [total for total in totals if total not in TOTALS]:
        raise ValueError(f"no such total: {', '.join(unknown)}; there are {', '.join(TOTALS)}")
    return tuple(total for total in TOTALS if total in totals)


Seconds = Annotated[float, Field(ge=0.1, le=_DAY, allow_inf_nan=False)]
Grace = Annotated[float, Field(ge=0, le=_DAY, allow_inf_nan=False)]
Totals = Annotated[
    tuple[str, ...],
    NoDecode,
    Field(min_length=1),
    BeforeValidator(_split),
    AfterValidator(_in_order),
]


class WorkerSettings(BaseSettings):
    """What a worker is told; each field is also read from RETALLY_<FIELD>.

    Raises pydantic's ValidationError, which names the field and what is wrong with it.
    """

    model_config = SettingsConfigDict(
        env_prefix="RETALLY_", env_ignore_empty=True, extra="forbid", frozen=True
    )

    subscription_interval: Seconds = 3.0
    """Seconds between two passes over the subscriptions of a show."""

    resource_interval: Seconds = 10.0
    """Seconds between two passes over the other totals of a show."""

    pool_size: Annotated[int, Field(ge=1, le=64)] = 2
    """Shows that are mended at the same time; connections, too, and one more for each tick."""

    totals: Totals = TOTALS
    """Which totals the ticks serve; in a variable separated by commas."""

    statement_timeout: Seconds = 60.0
    """Seconds after which the server ends a statement."""

    shutdown_grace: Grace = 10.0
    """Seconds that running passes have to end when the worker is stopped; then they are undone."""

    log_format: LogFormat = "text"
    """Lines for people, or one JSON object per line."""

    log_level: LogLevel = "info"
    """The least level that is logged; debug also tells of passes that found nothing."""

    @classmethod
    def from_flags(cls, **flags: Any) -> Self:
        """These settings, where None means not given: then the environment or the default holds."""
        return cls(**{name: value for name, value in flags.items() if value is not None})
