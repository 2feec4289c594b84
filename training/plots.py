"""The run's pictures: sample grid, metrics against steps and against gamma, loss curves. PNG, some 1600 pixels wide.

Figures are made with matplotlib's objects and drawn by Agg: no window, no pyplot, no state that outlives a call. The
colours are Okabe and Ito's, which colour-blind readers can tell apart; each method also has a marker of its own.

`metric_against_steps`, `metric_against_gamma` and `loss_curve` take a report (`to_json`), write a PNG and say whether
they drew: where nothing was measured there is no file. `PLOTS` has the functions that draw the figures, in any theme.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from .figures import cell, label, measured_steps, reach, shown
from .plot_style import DPI, LIGHT, WIDTH, Theme, save, styled
from .sample_grid import sample_grid

__all__ = ["loss_curve", "metric_against_gamma", "metric_against_steps", "sample_grid"]

COLOURS = {"euler": "#E69F00", "ddim": "#56B4E9", "dpmpp_2s": "#009E73", "lcm": "#D55E00", "tcd": "#0072B2"}
MARKERS = {"euler": "v", "ddim": "s", "dpmpp_2s": "^", "lcm": "D", "tcd": "o"}
SPARE = ("#CC79A7", "#8C6D31", "#7F7F7F", "#B3A100", "#6A51A3", "#A50026")  # for methods of no role, or a role's second
SPARE_MARKERS = "P*Xh<>"
LINES = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)))
NAME_LENGTH = 40  # letters of a name in a legend
BETTER = {"lower": "lower is better", "higher": "higher is better", "real": "best: as real"}


def metric_against_steps(report: dict, path: Path) -> bool:
    """One panel a metric: each method's mean over the sampling steps, ± its spread, with the floor dashed."""
    return _write(steps_figure, report, path)


def metric_against_gamma(report: dict, path: Path) -> bool:
    """One panel a metric: TCD's weights over gamma, one curve for each step count."""
    return _write(gamma_figure, report, path)


def loss_curve(report: dict, path: Path) -> bool:
    """Loss over training steps, raw and smoothed; the teacher's in a panel of its own, as another quantity."""
    return _write(loss_figure, report, path)


def _write(draw: Callable[[dict, Theme], Figure | None], report: dict, path: Path) -> bool:
    with styled():
        figure = draw(report, LIGHT)
        if figure is not None:
            save(figure, path)
    return figure is not None


def steps_figure(report: dict, theme: Theme) -> Figure | None:
    metrics = [metric for metric in report["metrics"] if measured_steps(report, metric)]
    if not metrics:
        return None
    figure, panels = _panels(len(metrics))
    styles = method_styles(report)
    for axes, metric in zip(panels, metrics, strict=True):
        values = report[metric]
        for method in (m for m in shown(report) if m in values):
            curve = {int(n): value for n, value in values[method].items()}
            _curve(axes, curve, label(report, method), styles[method])
        _floor(axes, values["floor"], theme)
        _steps_axis(axes, measured_steps(report, metric))
        _range(axes, report["metrics"][metric])
    _legend(figure, panels)
    return figure


def gamma_figure(report: dict, theme: Theme) -> Figure | None:
    sweep = report["gamma_sweep"]
    steps = sorted({int(n) for by in sweep.values() for n in by})
    swept = {metric for by in sweep.values() for row in by.values() for metric in row}
    metrics = [metric for metric in report["metrics"] if metric in swept]
    if not metrics:
        return None
    figure, panels = _panels(len(metrics))
    for axes, metric in zip(panels, metrics, strict=True):
        for n, colour, marker in zip(steps, theme.shade(len(steps)), _cycle("os^Dvp", len(steps)), strict=True):
            row = {float(g): value for g in sweep if (value := cell(sweep, g, n, metric))}
            _curve(axes, row, f"{n} {'step' if n == 1 else 'steps'}", dict(color=colour, marker=marker))
        _floor(axes, report[metric]["floor"], theme)
        axes.set_xlabel("γ: 0 adds no noise, 1 is sampled as LCM is")
        _range(axes, report["metrics"][metric])
    _legend(figure, panels)
    return figure


def loss_figure(report: dict, theme: Theme) -> Figure | None:
    losses = {name: curve for name, curve in report["loss"].items() if curve["step"]}
    groups = [[n for n in losses if n == "teacher"], [n for n in losses if n != "teacher"]]
    groups = [names for names in groups if names]
    if not groups:
        return None
    titles = {name: told["title"] for name, told in report.get("methods", {}).items()}
    figure, panels = _panels(len(groups))
    for axes, names in zip(panels, groups, strict=True):
        for name, spare in zip(names, _cycle(("#CC79A7", "#E69F00", "#009E73"), len(names)), strict=True):
            steps, values = losses[name]["step"], [math.nan if v is None else v for v in losses[name]["loss"]]
            colour = theme.ticks if name == "teacher" else COLOURS.get(name, spare)
            axes.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
            axes.plot(steps, smooth(values), color=colour, label=_short(titles.get(name, name)))
        axes.set_title("Teacher" if names == ["teacher"] else "Students")
        axes.set_xlabel("training step")
        axes.set_ylabel("loss" if len(names) == 1 else "loss (of unlike targets)")
        if all(v is None or v > 0 for name in names for v in losses[name]["loss"]):
            _log(axes)
        if len(names) > 1:
            axes.legend(loc="upper right")
    return figure


PLOTS = {
    "metric_against_steps.png": steps_figure,
    "metric_against_gamma.png": gamma_figure,
    "loss_curve.png": loss_figure,
}  # file → what draws its figure, of a report in a theme


def method_styles(report: dict) -> dict[str, dict]:
    """Colour and marker of each method: its role's where it is the first of it, else one of its own while they last."""
    taken, styles, spare = set(), {}, 0
    for name in shown(report):
        role = report["methods"][name]["role"]
        if role in COLOURS and role not in taken:
            taken.add(role)
            styles[name] = dict(color=COLOURS[role], marker=MARKERS[role], zorder=3 if role == "tcd" else 2)
        else:
            turn, i = divmod(spare, len(SPARE))
            marker = SPARE_MARKERS[(i + turn) % len(SPARE_MARKERS)]
            styles[name] = dict(color=SPARE[i], marker=marker, linestyle=LINES[turn % len(LINES)], zorder=2)
            spare += 1
    return styles


def smooth(values: Sequence[float], share: float = 0.015) -> np.ndarray:
    """The running mean under a Gaussian of that share of the curve (at least 2 values); NaN has no weight in it."""
    values = np.asarray(values, dtype=float)
    width = max(2.0, share * len(values))
    reach = np.arange(-math.ceil(3 * width), math.ceil(3 * width) + 1)
    kernel, known = np.exp(-0.5 * (reach / width) ** 2), np.isfinite(values)
    middle = slice(len(reach) // 2, len(reach) // 2 + len(values))
    total, weight = (np.convolve(v, kernel)[middle] for v in (np.where(known, values, 0), known.astype(float)))
    return np.where(weight > 0, total / np.where(weight > 0, weight, 1), math.nan)


# -- parts ---------------------------------------------------------------------------------------------------------


def _panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with that many panels, two side by side."""
    columns, rows = min(2, count), math.ceil(count / 2)
    figure = Figure(figsize=(WIDTH, 0.5 + 2.9 * rows), dpi=DPI, layout="constrained")
    figure.get_layout_engine().set(w_pad=0.08, h_pad=0.06, wspace=0.03, hspace=0.04)
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for spare in panels[count:]:
        spare.remove()
    return figure, panels[:count]


def _curve(axes: Axes, row: Mapping[float, dict], name: str, style: dict) -> None:
    """Means with how far each may lie off (`reach`); values that are not finite are left out."""
    points = [(x, value) for x, value in sorted(row.items()) if value["mean"] is not None]
    if points:
        x, values = zip(*points, strict=True)
        bars = np.array([[reach(value, sign) or 0.0 for value in values] for sign in (-1, 1)])
        means = [value["mean"] for value in values]
        looks = dict(elinewidth=1.2, capsize=2.5, capthick=1.2, markersize=4.8, markeredgewidth=0.6)
        looks |= dict(markeredgecolor=axes.get_facecolor(), label=_short(name))
        axes.errorbar(x, means, yerr=bars if bars.any() else None, **looks, **style)


def _short(name: str) -> str:
    """A long name cut before its last ", note", which is the gamma."""
    line = " ".join(name.split())
    if len(line) <= NAME_LENGTH:
        return line
    title, comma, note = line.rpartition(", ")
    note = comma + note if comma and len(note) < NAME_LENGTH // 2 else ""
    return (title if note else line)[: NAME_LENGTH - 1 - len(note)] + "…" + note


def _floor(axes: Axes, floor: float | None, theme: Theme) -> None:
    if floor is not None:
        dashes = dict(linestyle=(0, (4, 3)), linewidth=1.1, zorder=1.5)
        axes.axhline(floor, label="real pictures", color=theme.floor, **dashes)


def _steps_axis(axes: Axes, steps: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(steps))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda n, _: f"{n:.0f}"))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("sampling steps")


def _range(axes: Axes, told: Mapping) -> None:
    """Title, and for a distance the logarithm where the values span more than a factor of 4."""
    axes.set_title(told["title"])
    axes.set_ylabel(BETTER[told["better"]])
    values = np.concatenate([np.asarray(line.get_ydata(), dtype=float) for line in axes.get_lines()] or [np.ones(1)])
    if told["distance"] and values.min() > 0 and values.max() > 4 * values.min():
        _log(axes)
    else:
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        if told["distance"]:
            axes.set_ylim(bottom=0)


def _log(axes: Axes) -> None:
    """Logarithmic y with plain numbers: 0.5, 1, 2, 5 … or, over more than three decades, powers of ten."""
    axes.set_yscale("log")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high / low < 1000 else (1,)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.yaxis.set_minor_locator(NullLocator())


def _legend(figure: Figure, panels: Sequence[Axes]) -> None:
    """One legend for all panels, above them."""
    entries = {name: handle for axes in panels for handle, name in zip(*axes.get_legend_handles_labels(), strict=True)}
    order = sorted(entries, key=lambda name: name == "real pictures")
    if entries:
        longest = max(map(len, order))
        columns = max(1, min(len(order), 6, int(WIDTH / (0.55 + 0.075 * longest))))  # inches of a line and of a letter
        figure.legend([entries[n] for n in order], order, loc="outside upper center", ncols=columns, columnspacing=1.6)


def _cycle(values: Sequence, count: int) -> list:
    return [values[i % len(values)] for i in range(count)]
