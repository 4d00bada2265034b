"""The settings: the one place that names, defaults, reads and validates them.

A flag wins over the variable ``RETALLY_<NAME>``, that over the file, that over the default.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from psycopg import OperationalError, pq
from psycopg.conninfo import make_conninfo
from pydantic import AfterValidator, BeforeValidator, Field, ValidationError
from pydantic_settings import BaseSettings, EnvSettingsSource, NoDecode, SettingsConfigDict

from retally.procedures import TOTALS
from retally.sql.errors import RetallyError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LogFormat = Literal["text", "json"]
LogLevel = Literal["debug", "info", "warning", "error"]
Unmanaged = Literal["off", "watch", "repair"]

#: Read when no other file is named and it exists.
DEFAULT_FILE = Path("/etc/retally/retally.toml")
#: Names another one.
FILE_VARIABLE = "RETALLY_CONFIG"
#: What no flag, variable or file has given.
DEFAULT = "default"

_PREFIX = "RETALLY_"
_HIDDEN = "********"
_DAY = 86_400.0


class SettingError(RetallyError):
    """A setting is wrong or unknown, or its file cannot be read; the message says which and where.

    It never holds a DSN.
    """


def _split(value: Any) -> Any:
    return [word.strip() for word in value.split(",")] if isinstance(value, str) else value


def _in_order(totals: tuple[str, ...]) -> tuple[str, ...]:
    if unknown := [total for total in totals if total not in TOTALS]:
        raise ValueError(f"no such total: {', '.join(unknown)}; there are {', '.join(TOTALS)}")
    return tuple(total for total in TOTALS if total in totals)


def _number(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("Input should be a number")  # pydantic takes true for 1
    return value


def _none(value: Any) -> Any:
    return None if value == "none" else value


_Number = BeforeValidator(_number)
Seconds = Annotated[float, Field(ge=0.1, le=_DAY, allow_inf_nan=False), _Number]
Grace = Annotated[float, Field(ge=0, le=_DAY, allow_inf_nan=False), _Number]
Count = Annotated[int, Field(ge=1, le=64), _Number]
Port = Annotated[Annotated[int, Field(ge=0, le=65535), _Number] | None, BeforeValidator(_none)]
Totals = Annotated[
    tuple[str, ...],
    NoDecode,
    Field(min_length=1),
    BeforeValidator(_split),
    AfterValidator(_in_order),
]


class DatabaseSettings(BaseSettings):
    """Where the farm's database is: what every command needs."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX, env_ignore_empty=True, extra="forbid", frozen=True
    )

    dsn: str | None = Field(
        default=None,
        repr=False,
        description="libpq connection string or URI of the farm's database.",
    )


class WorkerSettings(DatabaseSettings):
    """What a worker is told; without arguments, from variables and defaults alone.

    Raises pydantic's ValidationError, which names the field and what is wrong with it.
    """

    subscription_interval: Seconds = Field(
        default=3.0, description="Seconds between passes over the subscriptions of a show."
    )
    resource_interval: Seconds = Field(
        default=10.0, description="Seconds between passes over the other totals of a show."
    )
    pool_size: Count = Field(
        default=2,
        description="Shows mended at the same time; connections, too, and one more for each tick.",
    )
    totals: Totals = Field(default=TOTALS, description="The totals that the ticks serve.")
    unmanaged: Unmanaged = Field(
        default="watch",
        description="What becomes of shows that are not managed and have no mode of their own:"
        " nothing, drift is told, or drift is repaired.",
    )
    journal_audit: Seconds = Field(
        default=600.0,
        description="Seconds between full passes over a journaled show, which its ticks just fold.",
    )
    statement_timeout: Seconds = Field(
        default=60.0, description="Seconds after which the server ends a statement."
    )
    shutdown_grace: Grace = Field(
        default=10.0,
        description="Seconds that passes in hand have to end when stopped; then they are undone.",
    )
    metrics_port: Port = Field(
        default=None,
        description="Port of /metrics, /healthz and /readyz; 0 is any free one, none is none.",
    )
    metrics_host: str = Field(
        default="127.0.0.1", description="Address that the port is opened on."
    )
    log_format: LogFormat = Field(default="text", description="Lines for people or for programs.")
    log_level: LogLevel = Field(
        default="info",
        description="The least level that is logged; debug tells of each show.",
    )


@dataclass(frozen=True)
class Settings:
    """The settings as read, and where each is from.

    ``sources`` has for each setting its flag, its variable, its file or ``DEFAULT``. ``file``: the
    one that was read. ``notes``: variables that look like settings and are none.
    """

    worker: WorkerSettings
    sources: Mapping[str, str]
    file: Path | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Layer:
    """Values from one place, and what to call the place of a setting."""

    values: Mapping[str, Any]
    source: Callable[[str], str]


S = TypeVar("S", bound=DatabaseSettings)


def read(flags: Mapping[str, Any] | None = None, config: str | None = None) -> Settings:
    """All settings, read afresh at each call; a flag that is None is not given.

    ``config``: the file that a flag names. Raises SettingError.
    """
    file = _file(config)
    worker, sources = _merged(WorkerSettings, flags or {}, file)
    return Settings(worker, sources, file, unknown_variables())


def read_dsn(dsn: str | None = None, config: str | None = None) -> str | None:
    """The DSN alone, whatever is wrong with the values of other settings. Raises SettingError."""
    settings, _ = _merged(DatabaseSettings, {"dsn": dsn}, _file(config))
    return settings.dsn


def flag_of(setting: str) -> str:
    """The flag that gives this setting."""
    # several totals are given by repeating it
    return "--total" if setting == "totals" else f"--{setting.replace('_', '-')}"


def variable_of(setting: str) -> str:
    """The variable that gives this setting."""
    return f"{_PREFIX}{setting.upper()}"


def masked(dsn: str) -> str:
    """The DSN as a connection string that can be shown: without its secrets."""
    try:
        shown = {
            option.keyword.decode(): _HIDDEN if _secret(option) else option.val.decode()
            for option in pq.Conninfo.parse(dsn.encode())
            if option.val is not None
        }
    except (OperationalError, UnicodeError):
        return _HIDDEN
    # an @ that was not escaped: what follows it in the password is taken for a host
    return _HIDDEN if "@" in shown.get("host", "") else make_conninfo("", **shown)


def _secret(option: pq.ConninfoOption) -> bool:
    # libpq marks what is to be hidden with a *, but not the keys
    return option.dispchar == b"*" or option.keyword.startswith(b"scram_")


def unknown_variables() -> tuple[str, ...]:
    """A line for each variable that has our prefix and that nothing reads."""
    known = [*WorkerSettings.model_fields, "config", "pg_bindir"]
    lines = []
    for name in sorted(os.environ):
        setting = name.lower().removeprefix(_PREFIX.lower())
        if setting != name.lower() and setting not in known:
            near = get_close_matches(setting, known, 1)
            meant = f"; did you mean {variable_of(near[0])}?" if near else ""
            lines.append(f"nothing reads the variable {name}{meant}")
    return tuple(lines)


def _merged(
    kind: type[S], flags: Mapping[str, Any], file: Path | None
) -> tuple[S, Mapping[str, str]]:
    layers = [
        _Layer({} if file is None else _values(file), lambda _: str(file)),
        _Layer(EnvSettingsSource(kind)(), variable_of),
        _Layer({name: value for name, value in flags.items() if value is not None}, flag_of),
    ]
    values: dict[str, Any] = {}
    sources = dict.fromkeys(kind.model_fields, DEFAULT)
    for layer in layers:  # the later one wins
        for name in layer.values.keys() & sources.keys():
            values[name] = layer.values[name]
            sources[name] = layer.source(name)
    try:
        return kind(**values), sources
    except ValidationError as error:
        # not "from error", which quotes what it was given, a DSN as well
        raise _refused(error, sources) from None


def _refused(error: ValidationError, sources: Mapping[str, str]) -> SettingError:
    first = error.errors(include_url=False, include_context=False)[0]
    name = str(first["loc"][0])
    given = "" if name == "dsn" else f" (it is {first['input']!r})"
    wrong = first["msg"].removeprefix("Value error, ")
    return SettingError(f"setting {name} from {sources[name]}: {wrong}{given}")


def _file(config: str | None) -> Path | None:
    """The file to read; one that is named is read whether or not it exists."""
    if named := config or os.environ.get(FILE_VARIABLE):
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.exists() else None


def _values(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(file.read_bytes().decode())
    except OSError as error:
        raise SettingError(
            f"the settings file {file} cannot be read: {error.strerror}",
            f"name another one with --config or {FILE_VARIABLE}, or /dev/null for none",
        ) from error
    except UnicodeDecodeError:
        raise SettingError(f"the settings file {file} is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise SettingError(f"the settings file {file} is not TOML: {error}") from None
    for name in values:
        if name not in WorkerSettings.model_fields:
            near = get_close_matches(name, WorkerSettings.model_fields, 1)
            hint = f"did you mean {near[0]}?" if near else "`retally settings` lists them"
            raise SettingError(f"the settings file {file} has {name}, which is no setting", hint)
    return values
