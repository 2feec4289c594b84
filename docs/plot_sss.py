"""Draws docs/sss.png: what strategic stochastic sampling does to the noise level, as `tcd_core.plan` works it out.

python docs/plot_sss.py        (needs matplotlib)
"""

from pathlib import Path

import matplotlib.pyplot as plt

from tcd_core import VPSchedule, inference_times, plan

SCHEDULE = VPSchedule.scaled_linear()
TITLES = {0.0: "γ = 0: deterministic, DDIM", 0.3: "γ = 0.3", 1.0: "γ = 1: multistep consistency"}


def main() -> None:
    plt.rcParams.update({"font.size": 11, "axes.spines.top": False, "axes.spines.right": False})
    figure, panels = plt.subplots(1, 3, figsize=(11, 3.2), sharey=True, constrained_layout=True)
    levels = [SCHEDULE.level(t) for t in inference_times(4)]
    for panel, (gamma, title) in zip(panels, TITLES.items(), strict=True):
        for i, step in enumerate(plan(SCHEDULE, levels, gamma)):
            arrow = {"arrowstyle": "->", "color": "#1f6fb2"}
            panel.annotate("", (i + (0.6 if step.b else 1), step.s.t), (i, step.t.t), arrowprops=arrow)
            if step.b:
                arrow = {"arrowstyle": "->", "color": "#d9622b"}
                panel.annotate("", (i + 1, step.n.t), (i + 0.6, step.s.t), arrowprops=arrow)
                panel.text(i + 0.66, step.s.t - 75, f"s = {step.s.t:.0f}", fontsize=9, color="#555555")
            panel.plot(i, step.t.t, "o", color="#333333", markersize=4)
            panel.text(i + 0.08, step.t.t + 12, f"{step.t.t:.0f}", fontsize=9)
        panel.set(title=title, xlim=(-0.15, 4.1), ylim=(-90, 1060), xticks=range(5), xlabel="step")
    panels[0].set_ylabel("diffusion time")
    panels[1].plot([], [], color="#1f6fb2", label="denoise: f(x, t → s)")
    panels[1].plot([], [], color="#d9622b", label="diffuse: noise put back")
    panels[1].legend(frameon=False, loc="upper right")
    figure.savefig(Path(__file__).with_name("sss.png"), dpi=110)


if __name__ == "__main__":
    main()
