"""How all of the run's pictures look, in light and dark, and how they are written."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
from matplotlib.figure import Figure

from .disk import write_atomically

DPI = 200
WIDTH = 8.0  # inches: 1600 pixels, shown at 800 a letter of 9 points is 12 pixels high


@dataclass(frozen=True)
class Theme:
    """Colours of a plot but for its curves'; ``shades`` is a colour map with the ends of it that can be seen."""

    paper: str
    ink: str
    ticks: str
    edge: str
    grid: str
    floor: str
    shades: tuple[str, float, float]

    def shade(self, count: int) -> np.ndarray:
        """That many colours in order, (count, 4)."""
        name, first, last = self.shades
        return matplotlib.colormaps[name](np.linspace(first, last, count))


LIGHT = Theme("#ffffff", "#000000", "#444444", "#666666", "#e4e4e4", "#555555", ("viridis_r", 0.22, 0.97))
DARK = Theme("#16181c", "#e6e6e6", "#b8b8b8", "#8a8a8a", "#33373d", "#b0b0b0", ("viridis", 0.32, 1.0))

STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.linewidth": 0.7,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "svg.hashsalt": "report",  # the same figure is the same file
    "text.parse_math": False,  # a LoRA may be called "$x"
}


def styled(theme: Theme = LIGHT) -> AbstractContextManager:
    """Matplotlib's defaults and this style, whatever the user's own settings are, for the time of a ``with``."""
    colours = {
        "figure.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "text.color": theme.ink,
        "axes.titlecolor": theme.ink,
        "axes.labelcolor": theme.ink,
        "axes.edgecolor": theme.edge,
        "grid.color": theme.grid,
        "xtick.color": theme.ticks,
        "ytick.color": theme.ticks,
    }
    return matplotlib.style.context(["default", STYLE | colours])


def save(figure: Figure, path: Path) -> None:
    """Write a PNG, whole or not at all."""
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=DPI, metadata={"Software": None})
    write_atomically(path, data.getvalue())


def as_svg(draw: Callable[[dict, Theme], Figure | None], report: dict, theme: Theme) -> bytes | None:
    """A plot of a report as SVG, its letters drawn as paths; None where there is nothing to draw."""
    data = io.BytesIO()
    with styled(theme):
        figure = draw(report, theme)
        if figure is None:
            return None
        figure.savefig(data, format="svg", metadata={"Date": None, "Creator": None})
    return data.getvalue()
