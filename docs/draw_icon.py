"""Draws docs/icon.png and docs/banner.png for the registry: the noise level of a four-step run at gamma 0.5.

python docs/draw_icon.py        (needs matplotlib)
"""

from pathlib import Path

import matplotlib.pyplot as plt
from matplotlib.patches import FancyBboxPatch

from tcd_core import VPSchedule, inference_times, plan

GROUND, DOWN, UP, END, TEXT = "#171a21", "#4da3ff", "#ff9a4d", "#ffffff", "#c9d1dc"
DPI = 100
ICON, BANNER = (400, 400), (1260, 540)  # pixels: the registry wants a square of at most 400, and 21:9
SCHEDULE = VPSchedule.scaled_linear()


def zigzag(steps: int, gamma: float) -> list[tuple[float, float]]:
    """Corners of the run: (position, noise level) with both in 0 … 1, the last at (1, 0)."""
    plans = plan(SCHEDULE, [SCHEDULE.level(t) for t in inference_times(steps)], gamma)
    corners = []
    for i, step in enumerate(plans):
        corners.append((i, step.t.t))
        corners.append((i + (0.62 if step.b else 1), step.s.t))
    return [(x / steps, t / 999) for x, t in corners]


def canvas(size: tuple[int, int]) -> tuple[plt.Figure, plt.Axes]:
    """A figure of so many pixels, in pixel coordinates."""
    figure = plt.figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(0, size[0]), ylim=(0, size[1]))
    axes.axis("off")
    return figure, axes


def draw(axes: plt.Axes, corners, left: float, bottom: float, width: float, height: float, line: float) -> None:
    """The zigzag into a box: down in one colour, up in another, a dot where it lands."""
    points = [(left + x * width, bottom + y * height) for x, y in corners]
    for i, (a, b) in enumerate(zip(points, points[1:], strict=False)):
        colour = UP if i % 2 else DOWN
        axes.plot(*zip(a, b, strict=True), color=colour, lw=line, solid_capstyle="round", zorder=3 - i % 2)
    axes.plot(*points[-1], "o", color=END, markersize=1.5 * line, zorder=4)


def icon(file: Path) -> None:
    figure, axes = canvas(ICON)
    box = FancyBboxPatch((0, 0), *ICON, boxstyle="round,pad=0,rounding_size=72", facecolor=GROUND, linewidth=0)
    axes.add_patch(box)
    draw(axes, zigzag(3, 0.6), 66, 74, 268, 262, 17)
    figure.savefig(file, transparent=True)


def banner(file: Path) -> None:
    figure, axes = canvas(BANNER)
    figure.set_facecolor(GROUND)
    draw(axes, zigzag(4, 0.5), 660, 110, 510, 330, 13)
    axes.text(90, 300, "TCD Toolkit", color=END, fontsize=54, fontweight="bold")
    axes.text(94, 224, "pictures in 4 steps,", color=TEXT, fontsize=27)
    axes.text(94, 174, "from your own checkpoint", color=TEXT, fontsize=27)
    figure.savefig(file, facecolor=GROUND)


if __name__ == "__main__":
    here = Path(__file__).parent
    icon(here / "icon.png")
    banner(here / "banner.png")
