"""``retally bench admission``: what it costs that a dispatcher keeps to caps, and whether it does.

``run`` measures a ``Plan``: the store alone, bookings and releases through a ``Dispatcher``, and
shows that run into their caps all the time.
"""

from retally.bench.admission.records import Part, Plan, Run
from retally.bench.admission.run import run

__all__ = ["Part", "Plan", "Run", "run"]
