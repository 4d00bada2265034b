"""The farm simulator: N dispatchers at once on a farm where things happen, and an audit at the end.

``simulate(dsn, Simulation(…), stop)`` runs it on any database that holds a farm and retally, and
answers with a ``Report``. It changes that farm for good. ``Simulator`` is the same without audit.
"""

from retally.dispatch.simulator.audit import Audit
from retally.dispatch.simulator.run import Report, Simulator, simulate
from retally.dispatch.simulator.settings import Simulation
from retally.dispatch.simulator.tally import Counts

__all__ = ["Audit", "Counts", "Report", "Simulation", "Simulator", "simulate"]
