"""What the paper measured (arXiv 2402.19159, Table 1 and the table of TCF forms), to stand beside one's own figures.

SDXL on COCO-2017's validation set, 5,000 captions, gamma = 0.2. FID is lower-is-better, the other three
higher-is-better. FID and the Fréchet distances of this project are in different features of different pictures: their
shapes can be compared, their sizes cannot.
"""

from __future__ import annotations

STEPS = (2, 4, 8, 20)
GAMMA = 0.2

# metric → method → one figure for each of STEPS
TABLE_1 = {
    "fid": {
        "euler": (104.73, 44.31, 18.20, 14.72),
        "ddim": (105.98, 44.86, 17.62, 13.60),
        "dpmpp_2s": (46.08, 18.50, 12.49, 12.15),
        "lcm": (16.15, 15.03, 16.93, 18.13),
        "tcd": (14.66, 12.68, 13.64, 13.56),
    },
    "complexity": {
        "euler": (0.4251, 0.3639, 0.4151, 0.4489),
        "ddim": (0.4456, 0.3633, 0.4148, 0.4481),
        "dpmpp_2s": (0.2876, 0.4496, 0.4788, 0.4679),
        "lcm": (0.4300, 0.4364, 0.4260, 0.4057),
        "tcd": (0.4701, 0.5095, 0.5336, 0.5563),
    },
    "image_reward": {
        "euler": (-227.77, -189.41, 12.59, 65.05),
        "ddim": (-227.75, -189.96, 13.45, 66.14),
        "dpmpp_2s": (-169.21, -1.27, 67.58, 75.8),
        "lcm": (18.78, 52.72, 55.16, 49.32),
        "tcd": (34.58, 68.49, 73.09, 74.96),
    },
    "pick_score": {
        "euler": (16.75, 18.71, 21.32, 22.21),
        "ddim": (16.74, 18.68, 21.31, 22.16),
        "dpmpp_2s": (19.05, 20.68, 21.9, 22.33),
        "lcm": (21.49, 22.2, 22.32, 22.25),
        "tcd": (21.51, 22.31, 22.5, 22.36),
    },
}

# form → figures at 4 steps, and, where it is told, the training iterations that it took
FORMS = {
    "tcf1": {"fid": 12.68, "complexity": 0.5095, "image_reward": 68.49, "pick_score": 22.31, "iterations": 3_000},
    "tcf2": {"fid": 13.35, "complexity": 0.5037, "image_reward": 58.13, "pick_score": 22.07},
    "tcf_s_plus": {
        "fid": 13.03,
        "complexity": 0.4176,
        "image_reward": 57.96,
        "pick_score": 22.01,
        "iterations": 43_000,
    },
}


def figure(metric: str, method: str, steps: int) -> float | None:
    """The paper's figure in Table 1, or None where it has none (another step count, metric or method)."""
    row = TABLE_1.get(metric, {}).get(method)
    return row[STEPS.index(steps)] if row and steps in STEPS else None
