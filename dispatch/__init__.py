"""The dispatcher's side: books procs within their caps, releases them, and simulates a farm.

``Dispatcher`` is the client of the dispatch path, ``retally.dispatch.admission`` keeps it to the
caps of managed shows; ``retally.dispatch.simulator`` drives it.
"""

from retally.dispatch.admission import Admission, AdmissionCollector, AdmissionStats
from retally.dispatch.client import Dispatcher
from retally.procedures import Answer, Booking

__all__ = [
    "Admission",
    "AdmissionCollector",
    "AdmissionStats",
    "Answer",
    "Booking",
    "Dispatcher",
]
