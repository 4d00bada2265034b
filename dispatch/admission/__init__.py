"""Admission: hard caps for managed shows, counted in the dispatcher's memory.

``Store`` counts; the gate lets bookings in by it; leases see to it that one dispatcher at a time
counts a show; recounts and notifications keep what is counted true.
"""

from retally.dispatch.admission.gate import Entry, Gate
from retally.dispatch.admission.metrics import AdmissionCollector
from retally.dispatch.admission.records import AdmissionStats
from retally.dispatch.admission.service import AdmissionService
from retally.dispatch.admission.settings import Admission
from retally.dispatch.admission.store import Store

__all__ = [
    "Admission",
    "AdmissionCollector",
    "AdmissionService",
    "AdmissionStats",
    "Entry",
    "Gate",
    "Store",
]
