"""What an error means to a worker: whether to wait a moment, and by what name it is counted."""

from __future__ import annotations

import psycopg
from psycopg.errors import LockNotAvailable

from retally.sql.errors import (
    DatabaseUnreachableError,
    DeadlockError,
    NotInstalledError,
    PermissionDeniedError,
    RepairRefusedError,
    RetallyError,
    ShowBusyError,
)

_BY_SQLSTATE = {
    "53100": "disk_full",
    "53200": "out_of_memory",
    "55P03": "lock_timeout",
    "57014": "statement_timeout",
}
_BY_TYPE = {
    DatabaseUnreachableError: "database_lost",
    DeadlockError: "deadlock",
    NotInstalledError: "not_installed",
    PermissionDeniedError: "permission_denied",
    RepairRefusedError: "repair_refused",
    ShowBusyError: "show_busy",
}


def gave_way(error: Exception) -> bool:
    """Whether somebody else merely holds what was needed."""
    return isinstance(error, ShowBusyError) or isinstance(error.__cause__, LockNotAvailable)


def kind_of(error: Exception) -> str:
    """What the metrics call it: one word of few."""
    if not isinstance(error, RetallyError):
        return "unexpected"
    cause = error.__cause__
    if isinstance(cause, psycopg.Error) and (cause.sqlstate or "") in _BY_SQLSTATE:
        return _BY_SQLSTATE[cause.sqlstate or ""]
    return next((kind for known, kind in _BY_TYPE.items() if isinstance(error, known)), "refused")
