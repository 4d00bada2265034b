"""Why a benchmark did not run."""

from __future__ import annotations

from retally.sql.errors import RetallyError


class MissingPlotLibraryError(RetallyError):
    """A plot was asked for, and matplotlib is not installed."""


class BenchError(RetallyError):
    """The server has too few connections, or a client of the benchmark failed."""
