"""How the plots look, whichever benchmark draws them."""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from typing import TYPE_CHECKING

from retally.bench.errors import MissingPlotLibraryError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito: told apart by most who do not see all of them.
BLUE, SKY, GREEN, ORANGE, YELLOW, PINK, GREY = (
    "#0072B2", "#56B4E9", "#009E73", "#D55E00", "#E69F00", "#CC79A7", "#555555",
)  # fmt: skip


def require_matplotlib() -> None:
    """Raise MissingPlotLibraryError unless a plot can be drawn."""
    if find_spec("matplotlib") is None:
        raise MissingPlotLibraryError(
            "a plot needs matplotlib, which is not installed", "pip install 'retally[bench]'"
        )


@contextlib.contextmanager
def drawn(path: Path, width: float, height: float) -> Iterator[Figure]:
    """An empty figure, in inches, which is saved as the file when the block ends well."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    # text stays text, and the same run gives the same file
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "retally", "font.size": 10}):
        figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
        yield figure
        figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)


def plain(axes: Axes) -> None:
    """A light grid, and no frame at the top and right."""
    axes.set_axisbelow(True)
    axes.grid(visible=True, color="#dddddd", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)
