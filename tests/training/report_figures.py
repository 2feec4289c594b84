"""Two contrasting sets of figures, and results made of them, for the tests of reports."""

from training.catalogue import SOLVERS, Group, Method, known
from training.report import Results

STEPS = (2, 4, 8, 20)
AS_IN_THE_PAPER = {
    "euler": (8.5, 2.2, 1.25, 0.95),
    "ddim": (8.2, 2.1, 1.16, 0.88),
    "dpmpp_2s": (3.7, 2.1, 1.2, 0.9),
    ("lcm", 1.0): (2.0, 1.4, 1.5, 1.7),
    ("lcm", 0.2): (1.9, 1.35, 1.4, 1.5),
    ("tcd", 1.0): (2.3, 1.5, 1.6, 1.8),
    ("tcd", 0.2): (1.2, 0.66, 0.67, 0.68),
    ("tcd", 0.0): (1.6, 0.9, 0.8, 0.8),
    ("tcf2", 0.2): (4.0, 8.5, 5.0, 4.0),
    ("tcf_s_plus", 0.2): (1.2, 0.97, 0.9, 0.9),
}
THE_OTHER_WAY = {
    "euler": (0.9, 0.6, 0.5, 0.3),
    "ddim": (1.0, 0.7, 0.5, 0.3),
    "dpmpp_2s": (0.8, 0.5, 0.4, 0.3),
    ("lcm", 1.0): (1.5, 1.3, 1.1, 0.9),
    ("lcm", 0.2): (1.0, 0.9, 0.8, 0.7),
    ("tcd", 1.0): (2.3, 2.0, 2.0, 2.2),
    ("tcd", 0.2): (2.2, 1.9, 1.9, 2.6),
    ("tcd", 0.0): (2.0, 1.5, 1.5, 1.5),
    ("tcf2", 0.2): (1.2, 1.0, 0.9, 0.8),
    ("tcf_s_plus", 0.2): (1.2, 1.1, 0.9, 0.9),
}


def recipe(**measure):
    return {"name": "digits", "objective": {"form": "tcf1"}, "measure": {"gamma": 0.2, "against": "held_out"} | measure}


def empty(**fields):
    return Results(recipe(), "abc123", 899, **({"floors": {"fd": 0.5}} | fields))


def measured(figures, noise=0.01, training_seeds=1, sampling_seeds=3, steps=STEPS, **fields):
    """Results whose figures spread by ``noise`` around those given; complexity rises with gamma as fd's order is."""
    results = empty(**fields)
    for who, row in figures.items():
        method, gamma = who if isinstance(who, tuple) else (who, None)
        for n, value in zip(steps, row, strict=True):
            for training in range(training_seeds):
                for sampling in range(sampling_seeds if gamma is not None else 1):
                    x = value + noise * (sampling - 1) + noise * (training - (training_seeds - 1) / 2)
                    results.add("fd", method, n, x, training, sampling, gamma)
    return results


REAL_METRICS = ("fid", "kid", "clip_score", "image_reward", "complexity", "diversity")
REAL_SOURCES = {"fid": "torch-fidelity 0.3.0, inception-v3-compat (sha256 abc)", "clip_score": "ViT-L/14"}
OWN = "tcd:my-model"


def real_model(
    tcd="my-model", shift=0.0, seeds=1, steps=STEPS, gammas=(0.0, 0.2, 1.0), recipe_name="my-base", **fields
):
    """Results of a real model's evaluation: solvers on the base, three LoRAs, intervals, differences and costs."""
    methods = SOLVERS | {
        "lcm:lcm-lora": Method("lcm-lora", "student", 1.0, "lcm"),
        OWN: Method(tcd, "student", 0.2, "tcd"),
        "hyper-sd": Method("hyper-sd", "student", 1.0),
        "omega_1": Method("ω = 1", "student", 0.2, group="weights"),
        "min_snr": Method("min-SNR", "student", 0.2, group="weights"),
    }
    told = {
        "metrics": known(*REAL_METRICS, **REAL_SOURCES),
        "methods": methods,
        "groups": {"weights": Group("Weights ω", "One training each.", "min_snr")},
        "title": "Few-step LoRAs on my-base",
        "about": "5,000 prompts, a picture each.",
        "reference": {"real pictures": "coco/val2017", "real pictures' hash": "abc"},
        "conditions": {"prompts": "captions.json, 5,000", "prompts' hash": "def"},
        "left_out": {"PickScore": "no weights at ~/.cache/pick: fetch them with --fetch"},
        "versions": {"torch": "2.13.0"},
        "floors": {"fid": 6.0},
        "shown": {"samples.png": ["a red bird", "a chair"]},
    }
    settings = {"name": recipe_name, "measure": {"gamma": 0.2, "steps": list(steps)}}
    results = Results(settings, "abc123", 5000, **(told | fields))
    scale = {"fid": 12.0, "kid": 0.002, "clip_score": 31.0, "image_reward": 60.0, "complexity": 0.5, "diversity": 0.6}
    for i, (name, method) in enumerate(methods.items()):
        if name == "min_snr":
            continue
        for gamma in sorted({method.gamma, *gammas}) if name == OWN else [method.gamma]:
            for n in steps:
                for metric in REAL_METRICS:
                    for seed in range(seeds):
                        value = scale[metric] * (1 + 0.1 * i / n + 0.05 * (gamma or 0) + 0.001 * seed)
                        value += shift if name == OWN else 0.0
                        interval = (0.98 * value, 1.02 * value)
                        results.add(metric, name, n, value, 0, seed, gamma, interval=interval)
    for n in steps:
        for metric in ("image_reward", "clip_score"):
            ours, theirs = results.table(metric, OWN, 0.2), results.table(metric, "lcm:lcm-lora", 1.0)
            apart = ours[str(n)]["mean"] - theirs[str(n)]["mean"]
            results.add_difference(metric, OWN, "lcm:lcm-lora", n, apart, (apart - 0.8, apart + 0.8))
        for name in ("ddim", OWN):
            results.add_cost(name, n, 100, 0.05 * 100 * n, n * (2 if name == "ddim" else 1), 3_400_000_000)
    return results
