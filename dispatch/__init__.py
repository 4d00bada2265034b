"""The dispatcher's side: books procs and releases them, and simulates a farm that does.

``Dispatcher`` is the client of the dispatch path; ``retally.dispatch.simulator`` drives it.
"""

from retally.dispatch.client import Dispatcher
from retally.procedures import Answer, Booking

__all__ = ["Answer", "Booking", "Dispatcher"]
