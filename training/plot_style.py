"""How all of the run's pictures look, and how they are written."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager
from pathlib import Path

import matplotlib.style
from matplotlib.figure import Figure

from .disk import write_atomically

DPI = 200
WIDTH = 8.0  # inches: 1600 pixels, shown at 800 a letter of 9 points is 12 pixels high
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.7,
    "xtick.color": "#444444",
    "ytick.color": "#444444",
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "figure.facecolor": "white",
}


def styled() -> AbstractContextManager:
    """Matplotlib's defaults and this style, whatever the user's own settings are, for the time of a ``with``."""
    return matplotlib.style.context(["default", STYLE])


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(path, data.getvalue())
