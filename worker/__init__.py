"""The worker: timed passes that keep the totals of every managed show true.

``Worker(dsn, settings).run(requests)`` works until it is asked to stop; any number of them may run.
It knows scopes, totals, keys and amounts, and nothing of the farm's tables.
"""

from retally.worker.log import configure_logging
from retally.worker.run import Worker
from retally.worker.settings import SettingError, Settings, WorkerSettings
from retally.worker.signals import Requests, requests_on_signals, stop_on_signals

__all__ = [
    "Requests",
    "SettingError",
    "Settings",
    "Worker",
    "WorkerSettings",
    "configure_logging",
    "requests_on_signals",
    "stop_on_signals",
]
