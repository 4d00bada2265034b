"""``retally bench recompute``: what a pass over all totals costs, beside other ways to do it.

``run`` measures a ``Plan``: farms of one or more sizes, every method on the same data.
"""

from retally.bench.recompute.records import Plan, Run, Scenario
from retally.bench.recompute.run import run

__all__ = ["Plan", "Run", "Scenario", "run"]
