"""Two contrasting sets of figures, and results made of them, for the tests of reports."""

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
