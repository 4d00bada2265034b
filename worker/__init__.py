"""The worker: timed passes that keep the totals of every managed show true.

``Worker(dsn, settings).run(stop)`` works until the event is set; any number of them may run.
It knows scopes, totals, keys and amounts, and nothing of the farm's tables.
"""

from retally.worker.log import configure_logging
from retally.worker.run import Worker
from retally.worker.settings import WorkerSettings
from retally.worker.signals import stop_on_signals

__all__ = ["Worker", "WorkerSettings", "configure_logging", "stop_on_signals"]
