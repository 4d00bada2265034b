"""What computes: the routines, one .sql file each, and one typed Python call per routine.

``core/`` knows nothing of a farm's tables; ``opencue/`` is all that does.
"""

from retally.procedures.booking import Answer, Booking
from retally.procedures.install import Installed, install, uninstall
from retally.procedures.records import (
    MODES,
    OVERRIDES,
    TOTALS,
    Claim,
    Drift,
    Finding,
    HostDrift,
    LastPass,
    Orphan,
    Override,
    Pass,
    Show,
)

__all__ = [
    "MODES",
    "OVERRIDES",
    "TOTALS",
    "Answer",
    "Booking",
    "Claim",
    "Drift",
    "Finding",
    "HostDrift",
    "Installed",
    "LastPass",
    "Orphan",
    "Override",
    "Pass",
    "Show",
    "install",
    "uninstall",
]
