"""``retally bench dispatch``: bookings through retally, the inline path, the bare statements.

``run`` measures a ``Plan``; every mode alternates with the others on one farm.
"""

from retally.bench.dispatch.records import Plan, Run, Spec
from retally.bench.dispatch.run import run

__all__ = ["Plan", "Run", "Spec", "run"]
