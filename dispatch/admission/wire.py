"""Notifications as they come over the wire: JSON text, OpenCue's fields, and some of retally's own.

retally adds ``core_units`` (the wire has whole cores, cut), ``xact``, the number of the transaction
that sent it: only by that can a message be told from one that is overtaken; and the ``hosts`` of a
release, by which one is found that has moved.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from retally.sql.errors import RetallyError

#: The channels, as OpenCue names them.
RELEASES = "acct_release"
LIMITS = "acct_limit_change"

_UNITS = 100  # core units of a core
_VERTICES = {"sub": "subscription", "folder": "folder", "job": "job"}
_MOST = 1 << 62


class MalformedPayloadError(RetallyError):
    """A notification that makes no sense."""


@dataclass(frozen=True)
class Release:
    """Procs have ended: so much less is in use at each of the three vertices.

    ``alloc`` and ``folder`` None: the host or the job is gone. ``xact`` None: whoever sent it
    does not say when it was; ``hosts`` None: nor which hosts they were on.
    """

    show: str
    alloc: str | None
    folder: str | None
    job: str | None
    core_units: int
    gpus: int
    xact: int | None
    hosts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class LimitChange:
    """New caps of a vertex: subscription (of ``show``), folder or job; None: as it is.

    As the farm has them: -1 (or 0, save for a burst) is no limit.
    """

    vertex: str
    key: str
    show: str | None
    core_units: int | None
    gpus: int | None
    xact: int | None


def release(payload: str) -> Release:
    """An acct_release. Raises MalformedPayloadError."""
    fields = _fields(payload)
    cores = _number(fields, "cores")
    units = _number(fields, "core_units")
    gpus = _number(fields, "gpus")
    if cores is None or gpus is None or max(cores, units or 0, gpus) > 0:
        raise MalformedPayloadError("a release says what is less, in whole cores and GPUs")
    return Release(
        show=_text(fields, "show"),
        alloc=_text_or_none(fields, "alloc"),
        folder=_text_or_none(fields, "folder"),
        job=_text_or_none(fields, "job"),
        core_units=-(cores * _UNITS if units is None else units),
        gpus=-gpus,
        xact=_xact(fields),
        hosts=_hosts(fields),
    )


def limit_change(payload: str) -> LimitChange:
    """An acct_limit_change. Raises MalformedPayloadError."""
    fields = _fields(payload)
    vertex = _VERTICES.get(str(fields.get("vertex")))
    if vertex is None:
        raise MalformedPayloadError(f"there is no vertex {fields.get('vertex')!r}")
    is_subscription = vertex == "subscription"
    cores = _number(fields, "burst" if is_subscription else "max_cores")
    units = _number(fields, "core_units")
    if is_subscription and cores is None:
        raise MalformedPayloadError("a subscription's change names its burst")
    if units is None and cores is not None:
        units = cores * _UNITS if cores >= 0 else cores
    return LimitChange(
        vertex=vertex,
        key=_text(fields, "alloc" if is_subscription else "id"),
        show=_text(fields, "show") if is_subscription else None,
        core_units=units,
        gpus=None if is_subscription else _number(fields, "max_gpus"),
        xact=_xact(fields),
    )


def _fields(payload: str) -> dict[str, Any]:
    try:
        fields = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise MalformedPayloadError("it is no JSON") from error
    if not isinstance(fields, dict):
        raise MalformedPayloadError("it is no object")
    return fields


def _text(fields: dict[str, Any], name: str) -> str:
    value = _text_or_none(fields, name)
    if value is None:
        raise MalformedPayloadError(f"{name} is missing")
    return value


def _text_or_none(fields: dict[str, Any], name: str) -> str | None:
    value = fields.get(name)
    if value is None or isinstance(value, str):
        return value
    raise MalformedPayloadError(f"{name} is no text")


def _number(fields: dict[str, Any], name: str) -> int | None:
    value = fields.get(name)
    if value is None or (type(value) is int and abs(value) < _MOST):
        return value
    raise MalformedPayloadError(f"{name} is no whole number")


def _hosts(fields: dict[str, Any]) -> tuple[str, ...] | None:
    value = fields.get("hosts")
    if value is None:
        return None
    if not (isinstance(value, list) and all(isinstance(each, str) for each in value)):
        raise MalformedPayloadError("hosts is no list of texts")
    return tuple(value)


def _xact(fields: dict[str, Any]) -> int | None:
    value = _text_or_none(fields, "xact")
    if value is None:
        return None
    if not (value.isascii() and value.isdigit() and len(value) <= 20):
        raise MalformedPayloadError("xact is no transaction")
    return int(value)
