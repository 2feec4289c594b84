"""What a run measured: single values with their seeds, and the tables that are made of them (report.json).

A value is known by metric, method, gamma, steps and seeds, and is added once; every table is a view of the same values,
so that no two of them can disagree. Two seeds count: the training seed (a whole run: teacher and students) and the
sampling seed (initial and added noise).
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from .disk import write_atomically

METRICS = {
    "fd": "Fréchet distance in features",
    "fd_pixels": "Fréchet distance in pixels",
    "accuracy": "Class accuracy",
    "complexity": "Image complexity",
}
SOLVERS = {"euler": "Euler", "ddim": "DDIM", "dpmpp_2s": "DPM++(2S)"}  # numerical solvers, on the teacher
STUDENTS = {"lcm": "LCM", "tcd": "TCD"}
METHODS = SOLVERS | STUDENTS
FORMS = {
    "tcf1": "TCF(1)",
    "tcf2": "TCF(2)",
    "tcf_s_plus": "TCF(S+)",
}  # as methods: students of that form, at equal budget
LCM_GAMMA = 1.0  # multistep consistency sampling, as LCM is sampled

Cell = dict  # {"mean": float, "std": float, "n": int}; mean and std are None where a value was not finite


class Key(NamedTuple):
    """Whose value it is. gamma is None for the numerical solvers, which have none."""

    metric: str
    method: str
    gamma: float | None
    steps: int
    training_seed: int
    sampling_seed: int


@dataclass(frozen=True)
class Results:
    """All that a report is written from. Fill it with `add`; `save` and `load` carry it from measuring to reporting.

    Attributes:
        recipe: the resolved recipe as plain data; its ``measure.gamma`` is the gamma at which TCD is reported.
        n_samples: pictures in each measurement, generated and real alike.
        floors: metric → real pictures' own value: training half against held-out half for the Fréchet distances, the
            held-out pictures' for accuracy and complexity.
        floor_ranges: metric → (low, high) of the floor over other draws of the real pictures, where it was worked out.
        seconds: phase → seconds: "teacher", "tcd", "lcm", …, "measure", "total".
        losses: phase → {"step": […], "loss": […]}.
        values: what `add` collected.
    """

    recipe: Mapping
    recipe_hash: str
    n_samples: int
    floors: dict[str, float] = field(default_factory=dict)
    floor_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    losses: dict[str, dict[str, list]] = field(default_factory=dict)
    values: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self):
        if "gamma" not in self.recipe.get("measure", {}):
            raise ValueError("the recipe has no measure.gamma: give the resolved recipe, with every field filled in")

    @property
    def gamma(self) -> float:
        """The gamma at which TCD stands in the tables of methods."""
        return float(self.recipe["measure"]["gamma"])

    def add(
        self,
        metric: str,
        method: str,
        steps: int,
        value: float,
        training_seed: int,
        sampling_seed: int,
        gamma: float | None = None,
    ) -> None:
        """Take in one measured value. One that is not finite is kept, and reported as that.

        Args:
            metric: "fd", "fd_pixels", "accuracy" or "complexity".
            method: a numerical solver on the teacher, "euler", "ddim", "dpmpp_2s"; or whose weights: "lcm", "tcd", or
                "tcf1", "tcf2", "tcf_s_plus" for students trained to compare the forms.
            gamma: what a student was sampled at. Left out: 1 for "lcm", the recipe's for the others.

        Raises:
            ValueError: unknown metric or method, gamma for a numerical solver or outside [0, 1], the same value twice.
        """
        if metric not in METRICS:
            raise ValueError(f"metric must be one of {', '.join(METRICS)}, got {metric!r}")
        if method not in METHODS | FORMS:
            raise ValueError(f"method must be one of {', '.join(METHODS | FORMS)}, got {method!r}")
        if method in SOLVERS:
            if gamma is not None:
                raise ValueError(f"{method} is a numerical solver and has no gamma, got gamma {gamma}")
        else:
            gamma = float(gamma if gamma is not None else LCM_GAMMA if method == "lcm" else self.gamma)
            if not 0 <= gamma <= 1:
                raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
        key = Key(metric, method, gamma, int(steps), int(training_seed), int(sampling_seed))
        if key in self.values:
            raise ValueError(f"this value was added before: {key}; each (gamma, steps, seeds) is measured once")
        self.values[key] = float(value)

    def cell(self, metric: str, method: str, steps: int, gamma: float | None) -> Cell | None:
        """Mean, spread and n of one method's values at one step count; None where nothing was measured."""
        chosen = {
            (key.training_seed, key.sampling_seed): value
            for key, value in self.values.items()
            if key[:4] == (metric, method, gamma, steps)
        }
        return aggregate(chosen) if chosen else None

    def table(self, metric: str, method: str, gamma: float | None) -> dict[str, Cell]:
        """steps → cell, for the step counts that were measured."""
        steps = sorted({key.steps for key in self.values})
        return {str(n): cell for n in steps if (cell := self.cell(metric, method, n, gamma))}

    def gammas(self, method: str) -> list[float]:
        """The gammas at which these weights were sampled, ascending."""
        return sorted({key.gamma for key in self.values if key.method == method and key.gamma is not None})

    def save(self, path: Path) -> None:
        """Write everything as JSON, to be read by `load`."""
        data = asdict(self) | {"values": [[*key, value] for key, value in self.values.items()]}
        write_atomically(path, json.dumps(data))

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            values = {Key(*row[:-1]): row[-1] for row in data.pop("values")}
            ranges = {metric: tuple(ends) for metric, ends in data.pop("floor_ranges").items()}
            return cls(**data, values=values, floor_ranges=ranges)
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not hold measured results ({error}): measure the run again") from error


def aggregate(values: Mapping[tuple[int, int], float]) -> Cell:
    """(training seed, sampling seed) → value, as mean, sample standard deviation and n.

    With more than one training seed: over the training seeds, of each one's mean over its sampling seeds. With one:
    over the sampling seeds. A single value has std 0 and n 1.
    """
    if not all(map(math.isfinite, values.values())):
        return {"mean": None, "std": None, "n": len(values)}
    seeds = sorted({training for training, _ in values})
    means = [fmean(v for (training, _), v in values.items() if training == seed) for seed in seeds]
    each = means if len(means) > 1 else list(values.values())
    return {"mean": fmean(each), "std": stdev(each) if len(each) > 1 else 0.0, "n": len(each)}


def spread_rule(keys: Iterable[Key]) -> str:
    """What the spread of the students' figures is over, in words."""
    keys = list(keys)
    keys = [key for key in keys if key.method not in SOLVERS] or keys
    training, sampling = len({key.training_seed for key in keys}), len({key.sampling_seed for key in keys})
    if training > 1:
        each = f"each the mean of {sampling} sampling seeds" if sampling > 1 else "one sampling seed each"
        return f"{training} training seeds, {each}"
    return f"{sampling} sampling seeds, one training seed" if sampling > 1 else "one training seed, one sampling seed"


def to_json(results: Results) -> dict:
    """The report as plain data (report.json): means, spreads and tables; plain JSON, without NaN."""
    report = {
        "version": 1,
        "recipe": dict(results.recipe),
        "recipe_hash": results.recipe_hash,
        "spread": spread_rule(results.values),
        "seeds": {
            "training": sorted({key.training_seed for key in results.values}),
            "sampling": sorted({key.sampling_seed for key in results.values if key.method not in SOLVERS}),
            "sampling_solvers": sorted({key.sampling_seed for key in results.values if key.method in SOLVERS}),
        },
        "n_samples": results.n_samples,
        "seconds": {"total": sum(results.seconds.values())} | results.seconds,
        "versions": results.versions,
        **{metric: _methods(results, metric) for metric in METRICS},
        "floor_ranges": {metric: list(ends) for metric, ends in results.floor_ranges.items()},
        "gamma_sweep": _sweep(results),
        "student_x_gamma": _student_x_gamma(results),
        "tcd_below_lcm": _below(results),
        "forms": _forms(results),
        "loss": results.losses,
    }
    return _finite(report)


def _methods(results: Results, metric: str) -> dict:
    gammas = dict.fromkeys(SOLVERS) | {"lcm": LCM_GAMMA, "tcd": results.gamma}
    rows = {method: results.table(metric, method, gamma) for method, gamma in gammas.items()}
    return {"floor": results.floors.get(metric)} | {method: row for method, row in rows.items() if row}


def _by_steps(results: Results, method: str, gamma: float) -> dict:
    """steps → metric → cell."""
    tables = {metric: results.table(metric, method, gamma) for metric in METRICS}
    steps = sorted({int(n) for table in tables.values() for n in table})
    return {str(n): {metric: table[str(n)] for metric, table in tables.items() if str(n) in table} for n in steps}


def _sweep(results: Results) -> dict:
    gammas = results.gammas("tcd")
    return {f"{gamma:g}": _by_steps(results, "tcd", gamma) for gamma in gammas} if len(gammas) > 1 else {}


def _student_x_gamma(results: Results) -> dict:
    gammas = sorted({results.gamma, LCM_GAMMA}, reverse=True)
    tables = {m: {f"{g:g}": row for g in gammas if (row := results.table("fd", m, g))} for m in STUDENTS}
    return {method: table for method, table in tables.items() if table}


def _below(results: Results) -> dict:
    """steps → on how many (training seed, sampling seed) pairs TCD's Fréchet distance is below LCM's."""
    pairs = {}
    for key, tcd in results.values.items():
        if key[:3] == ("fd", "tcd", results.gamma):
            lcm = results.values.get(key._replace(method="lcm", gamma=LCM_GAMMA))
            if lcm is not None:
                pairs.setdefault(key.steps, []).append(tcd < lcm)
    return {str(n): {"seeds": sum(pairs[n]), "of": len(pairs[n])} for n in sorted(pairs)}


def _forms(results: Results) -> dict | None:
    own = results.recipe.get("objective", {}).get("form", "tcf1")  # TCD's own weights are of this form
    rows = {form: _by_steps(results, form, results.gamma) for form in FORMS}
    rows = {form: row for form, row in rows.items() if row}
    return {own: _by_steps(results, "tcd", results.gamma)} | rows if rows else None


def _finite(data):
    if isinstance(data, Mapping):
        return {str(key): _finite(value) for key, value in data.items()}
    if isinstance(data, Sequence) and not isinstance(data, str):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
