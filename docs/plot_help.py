"""Draws the pictures of the nodes' help pages into web/docs/img, as `tcd_core` works the runs out.

python docs/plot_help.py        (needs matplotlib)

The pages in every language share them, so their words are symbols, numbers and names; and the help panel is some 250
pixels wide, so their letters are large.
"""

from pathlib import Path

import matplotlib.pyplot as plt
from PIL import Image

from tcd_core import GammaSchedule, VPSchedule, inference_times, plan

FOLDER = Path(__file__).resolve().parents[1] / "web" / "docs" / "img"
SCHEDULE = VPSchedule.scaled_linear()
DENOISE, DIFFUSE, SECOND, INK, FAINT = "#1f6fb2", "#d9622b", "#2c8a57", "#333333", "#b9bec7"
STYLE = {"font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": FAINT}


def steps_of(count: int, gamma) -> list:
    """The plan of a run over the reference's times."""
    return plan(SCHEDULE, [SCHEDULE.level(t) for t in inference_times(count)], gamma)


def arrow(panel, start: tuple[float, float], end: tuple[float, float], colour: str, width: float = 1.6) -> None:
    style = {"arrowstyle": "-|>", "color": colour, "lw": width, "shrinkA": 0, "shrinkB": 0}
    panel.annotate("", end, start, arrowprops=style)


def zigzag(panel, steps: list, colours: list[str], words: bool = True) -> None:
    """One run: down to s in a step's colour, up to the next time in orange."""
    for i, step in enumerate(steps):
        corner = i + (0.58 if step.b else 1)
        arrow(panel, (i, step.t.t), (corner, step.s.t), colours[i])
        if step.b:
            arrow(panel, (corner, step.s.t), (i + 1, step.n.t), DIFFUSE)
        panel.plot(i, step.t.t, "o", color=INK, markersize=4, zorder=4)
        if words:
            panel.text(i + 0.1, step.t.t + 18, f"{step.t.t:.0f}", color=INK)
            if step.b:
                panel.text(corner, step.s.t - 30, f"s {step.s.t:.0f}", color="#555555", ha="center", va="top")
    panel.plot(len(steps), 0, "o", color=INK, markersize=4, zorder=4)
    panel.set(xlim=(-0.15, len(steps) + 0.35), ylim=(-70, 1080), xticks=range(len(steps) + 1), yticks=[0, 500, 1000])


def save(figure, name: str) -> None:
    file = FOLDER / f"{name}.png"
    figure.savefig(file, dpi=160)
    plt.close(figure)
    Image.open(file).convert("RGB").quantize(64).save(file, optimize=True)


def ksampler() -> None:
    figure, panel = plt.subplots(figsize=(4, 3.2), constrained_layout=True)
    zigzag(panel, steps_of(4, 0.3), [DENOISE] * 4)
    panel.plot([], [], color=DENOISE, label=r"$f(x,\ t \to s)$")
    panel.plot([], [], color=DIFFUSE, label=r"$+\ z$")
    panel.legend(frameon=False, loc="upper right")
    panel.set_title("γ = 0.3", loc="left")
    save(figure, "ksampler")


def ksampler_advanced() -> None:
    figure, panel = plt.subplots(figsize=(4, 3.2), constrained_layout=True)
    zigzag(panel, steps_of(4, 0.3), [DENOISE, DENOISE, SECOND, SECOND])
    panel.axvline(2, color=FAINT, ls="--", zorder=0)
    for x, colour, words in ((0.98, DENOISE, "0 … 2"), (3.1, SECOND, "2 … 4")):
        panel.text(x, 1010, words, color=colour, fontweight="bold", ha="center")
    save(figure, "ksampler_advanced")


def sampler() -> None:
    figure, panels = plt.subplots(3, 1, figsize=(4, 6), sharex=True, constrained_layout=True)
    for panel, gamma in zip(panels, (0.0, 0.3, 1.0), strict=True):
        zigzag(panel, steps_of(4, gamma), [DENOISE] * 4, words=False)
        panel.set_title(f"γ = {gamma:g}", loc="left")
    save(figure, "sampler")


def scheduler() -> None:
    rows = {
        "steps 4": inference_times(4),
        "steps 8": inference_times(8),
        "denoise 0.5": inference_times(4, strength=0.5),
        "original_steps 1000": inference_times(4, original_inference_steps=1000),
        "times 800": [800],
    }
    figure, panel = plt.subplots(figsize=(4, 3.8), constrained_layout=True)
    for y, (name, times) in enumerate(rows.items()):
        panel.axhline(-y, color=FAINT, lw=0.8, zorder=0)
        panel.plot(times, [-y] * len(times), "o", color=DENOISE, markersize=6)
        panel.text(1030, -y + 0.44, name, va="center", fontweight="bold", fontsize=9)
        if len(times) < 8:
            for t in times:
                panel.text(t, -y - 0.14, t, ha="center", va="top", fontsize=9, color=INK)
    panel.set(xlim=(1040, -25), ylim=(-len(rows) + 0.55, 0.8), yticks=[], xticks=[999, 750, 500, 250, 0])
    panel.spines["left"].set_visible(False)
    save(figure, "scheduler")


def gamma_schedule() -> None:
    shapes = {
        "constant": GammaSchedule("constant", 0.5),
        "linear": GammaSchedule("linear", 0.5, 0.1),
        "cosine": GammaSchedule("cosine", 0.5, 0.1),
        "power 2": GammaSchedule("power", 0.5, 0.1, 2.0),
        "list .4, .1, .3": GammaSchedule("list", values=(0.4, 0.1, 0.3), interpolate=True),
    }
    colours = (INK, DENOISE, DIFFUSE, SECOND, "#8a4fb0")
    figure, panel = plt.subplots(figsize=(4, 3.2), constrained_layout=True)
    times = inference_times(8)
    for (name, shape), colour in zip(shapes.items(), colours, strict=True):
        along = [1000 - i for i in range(1001)]
        panel.plot(along, [shape.at(1 - t / 999) for t in along], color=colour, lw=1.2, alpha=0.6)
        panel.plot(times, [shape.at(1 - t / 999) for t in times], "o", color=colour, markersize=5, label=name)
    panel.set(xlim=(1040, -30), ylim=(0, 0.56), xticks=[999, 750, 500, 250, 0], xlabel="t", ylabel="γ")
    panel.legend(frameon=False, loc="lower left", fontsize=8.5, handletextpad=0, labelspacing=0.25)
    save(figure, "gamma_schedule")


def grid() -> None:
    rows, columns = (2, 4, 8), (0.0, 0.3, 1.0)
    figure, panels = plt.subplots(3, 3, figsize=(4, 3.7), constrained_layout=True)
    for i, count in enumerate(rows):
        for j, gamma in enumerate(columns):
            panel = panels[i, j]
            zigzag(panel, steps_of(count, gamma), [DENOISE] * count, words=False)
            panel.set(xticks=[], yticks=[])
            for spine in panel.spines.values():
                spine.set_visible(True)
        panels[i, 0].set_ylabel(f"{count} steps", fontweight="bold")
    for j, gamma in enumerate(columns):
        panels[0, j].set_title(f"gamma {gamma:g}", fontweight="bold")
    save(figure, "grid")


if __name__ == "__main__":
    FOLDER.mkdir(parents=True, exist_ok=True)
    plt.rcParams.update(STYLE)
    for draw in (ksampler, ksampler_advanced, sampler, scheduler, gamma_schedule, grid):
        draw()
