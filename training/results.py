"""What was measured: single values with their seeds, and the tables that are made of them (see `report_json`).

A value is known by metric, method, gamma, steps and seeds, and is added once; every table is a view of the same values,
so that no two of them can disagree. Two seeds count: the training seed (a whole run: teacher and students) and the
sampling seed (initial and added noise).
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from statistics import fmean, stdev
from typing import NamedTuple

from .catalogue import (
    DIGITS,
    LCM_GAMMA,
    Group,
    Method,
    Metric,
    distilled_forms,
    distilled_groups,
    distilled_methods,
    known,
)
from .disk import write_atomically

__all__ = ["LCM_GAMMA", "Cell", "Cost", "Group", "Key", "Method", "Metric", "Pair", "Results", "aggregate"]

Cell = dict  # {"mean", "std", "n"} and, where there is one, "interval"; mean and std are None where not finite
Interval = tuple[float, float]


class Key(NamedTuple):
    """Whose value it is. gamma is None for the numerical solvers, which have none."""

    metric: str
    method: str
    gamma: float | None
    steps: int
    training_seed: int
    sampling_seed: int


class Pair(NamedTuple):
    """Whose difference it is: method − other, of the same prompts' pictures."""

    metric: str
    method: str
    gamma: float | None
    other: str
    other_gamma: float | None
    steps: int


class Cost(NamedTuple):
    """What some pictures took. evaluations: passes of one picture through the network, two a step with guidance."""

    pictures: int
    seconds: float
    evaluations: float
    peak_bytes: int | None


@dataclass(frozen=True)
class Results:
    """All that a report is written from. Fill it with `add`; `save` and `load` carry it from measuring to reporting.

    Attributes:
        recipe: the resolved recipe or settings as plain data; its ``name`` and its ``measure.gamma``, at which TCD is
            reported, are needed.
        n_samples: pictures in each measurement, generated and real alike.
        floors: metric → real pictures' own value: training half against held-out half for the Fréchet distances, the
            held-out pictures' for accuracy and complexity.
        floor_ranges: metric → (low, high) of the floor over other draws of the real pictures, where it was worked out.
        seconds: phase → seconds: "teacher", "tcd", "lcm", …, "measure", "total".
        losses: phase → {"step": […], "loss": […]}.
        values: what `add` collected; ``intervals``, ``differences`` and ``costs`` likewise.
        metrics, methods, groups: name → description. Left out: those of a distillation of digits.
        main: the metric that claims and summary are about; left out, the first.
        title, about: the report's heading and its first sentence; left out, those of a distillation.
        reference, conditions: what real pictures were compared with, and what was asked for (prompts): name → value,
            hashes included. Two reports are compared only where these agree.
        left_out: a metric's title → why it was not measured, in a line.
        shown: sample grid's file, "samples.png" and more → what its pictures were asked for, in their order in a cell.
    """

    recipe: Mapping
    recipe_hash: str
    n_samples: int
    floors: dict[str, float] = field(default_factory=dict)
    floor_ranges: dict[str, Interval] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    losses: dict[str, dict[str, list]] = field(default_factory=dict)
    values: dict[Key, float] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=lambda: known(*DIGITS))
    methods: dict[str, Method] = field(default_factory=dict)
    groups: dict[str, Group] = field(default_factory=dict)
    main: str = ""
    title: str = ""
    about: str = ""
    reference: dict[str, str | int] = field(default_factory=dict)
    conditions: dict[str, str | int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    shown: dict[str, list[str]] = field(default_factory=dict)
    intervals: dict[Key, Interval] = field(default_factory=dict)
    differences: dict[Pair, tuple[float, float, float]] = field(default_factory=dict)
    costs: dict[tuple[str, int], Cost] = field(default_factory=dict)

    def __post_init__(self):
        if "gamma" not in self.recipe.get("measure", {}):
            raise ValueError("the recipe has no measure.gamma: give the resolved recipe, with every field filled in")
        if not self.methods:
            self.methods.update(distilled_methods(self.gamma) | distilled_forms(self.gamma))
            self.groups.update(distilled_groups(self.recipe.get("objective", {}).get("form", "tcf1")) | self.groups)
        if not self.main:
            object.__setattr__(self, "main", next(iter(self.metrics)))
        if self.main not in self.metrics:
            raise ValueError(f"the main metric must be one of {', '.join(self.metrics)}, got {self.main!r}")
        if lost := {m.group for m in self.methods.values()} - {None, *self.groups}:
            raise ValueError(f"methods stand in groups that are not described: {', '.join(sorted(lost))}")

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
        interval: Interval | None = None,
    ) -> None:
        """Take in one measured value. One that is not finite is kept, and reported as that.

        Args:
            gamma: what a student was sampled at. Left out: the method's own.
            interval: 95 % confidence interval of the value over other pictures and prompts (`bootstrap`).

        Raises:
            ValueError: unknown metric or method, gamma for a numerical solver or outside [0, 1], the same value twice.
        """
        self._known(metric, method)
        key = Key(metric, method, self._gamma(method, gamma), int(steps), int(training_seed), int(sampling_seed))
        if key in self.values:
            raise ValueError(f"this value was added before: {key}; each (gamma, steps, seeds) is measured once")
        self.values[key] = float(value)
        if interval is not None:
            self.intervals[key] = (float(interval[0]), float(interval[1]))

    def add_difference(
        self,
        metric: str,
        method: str,
        other: str,
        steps: int,
        difference: float,
        interval: Interval,
        gamma: float | None = None,
        other_gamma: float | None = None,
    ) -> None:
        """Take in method − other on the same prompts, with its 95 % interval (`bootstrap.paired_interval`).

        Raises:
            ValueError: as `add`.
        """
        for name in (method, other):
            self._known(metric, name)
        pair = Pair(metric, method, self._gamma(method, gamma), other, self._gamma(other, other_gamma), int(steps))
        if pair in self.differences:
            raise ValueError(f"this difference was added before: {pair}")
        self.differences[pair] = (float(difference), float(interval[0]), float(interval[1]))

    def add_cost(
        self,
        method: str,
        steps: int,
        pictures: int,
        seconds: float,
        evaluations: float,
        peak_bytes: int | None = None,
    ) -> None:
        """Take in what generating some pictures took; later calls for the same method and steps are added up.

        Args:
            seconds: wall time of all of them.
            evaluations: passes of one picture through the network: steps, or twice that with guidance.
            peak_bytes: the device's (or the process's) peak memory while they were made.
        """
        self._known(None, method)
        known_before = self.costs.get((method, int(steps)), Cost(0, 0.0, 0.0, None))
        peaks = [peak for peak in (known_before.peak_bytes, peak_bytes) if peak is not None]
        self.costs[method, int(steps)] = Cost(
            known_before.pictures + int(pictures),
            known_before.seconds + float(seconds),
            max(known_before.evaluations, float(evaluations)),
            max(peaks, default=None),
        )

    def _known(self, metric: str | None, method: str) -> None:
        if metric is not None and metric not in self.metrics:
            raise ValueError(f"metric must be one of {', '.join(self.metrics)}, got {metric!r}")
        if method not in self.methods:
            raise ValueError(f"method must be one of {', '.join(self.methods)}, got {method!r}")

    def _gamma(self, method: str, gamma: float | None) -> float | None:
        own = self.methods[method].gamma
        if own is None:
            if gamma is not None:
                raise ValueError(f"{method} is a numerical solver and has no gamma, got gamma {gamma}")
            return None
        gamma = float(own if gamma is None else gamma)
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must lie in [0, 1], got {gamma}")
        return gamma

    def cell(self, metric: str, method: str, steps: int, gamma: float | None) -> Cell | None:
        """Mean, spread and n of one method's values at one step count; None where nothing was measured."""
        chosen = {key: value for key, value in self.values.items() if key[:4] == (metric, method, gamma, steps)}
        if not chosen:
            return None
        cell = aggregate({(key.training_seed, key.sampling_seed): value for key, value in chosen.items()})
        ends = [self.intervals[key] for key in chosen if key in self.intervals]
        if (
            len(ends) == len(chosen) and cell["mean"] is not None
        ):  # as wide as one's: prompts and real pictures are shared
            cell["interval"] = [fmean(end) for end in zip(*ends, strict=True)]
        return cell

    def table(self, metric: str, method: str, gamma: float | None) -> dict[str, Cell]:
        """steps → cell, for the step counts that were measured."""
        steps = sorted({key.steps for key in self.values})
        return {str(n): cell for n in steps if (cell := self.cell(metric, method, n, gamma))}

    def gammas(self, method: str) -> list[float]:
        """The gammas at which these weights were sampled, ascending."""
        return sorted({key.gamma for key in self.values if key.method == method and key.gamma is not None})

    def with_role(self, role: str) -> str | None:
        """The first method that stands for that row of the paper's table."""
        return next((name for name, method in self.methods.items() if method.role == role), None)

    def save(self, path: Path) -> None:
        """Write everything as JSON, to be read by `load`."""
        data = {entry.name: getattr(self, entry.name) for entry in fields(self)}
        data |= {name: {k: asdict(v) for k, v in data[name].items()} for name in DESCRIBED}
        data |= {name: [[*key, *_as_row(value)] for key, value in data[name].items()] for name in ROWS}
        write_atomically(path, json.dumps(data))

    @classmethod
    def load(cls, path: Path) -> Results:
        """Read what `save` wrote; files of earlier versions hold a distillation of digits.

        Raises:
            ValueError: the file holds something else.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            data["values"] = {Key(*row[:-1]): row[-1] for row in data["values"]}
            data["floor_ranges"] = {metric: tuple(ends) for metric, ends in data["floor_ranges"].items()}
            for name, kind in DESCRIBED.items():
                if name in data:
                    data[name] = {key: kind(**told) for key, told in data[name].items()}
            if "intervals" in data:
                data["intervals"] = {Key(*row[:-2]): tuple(row[-2:]) for row in data["intervals"]}
                data["differences"] = {Pair(*row[:-3]): tuple(row[-3:]) for row in data["differences"]}
                data["costs"] = {(row[0], row[1]): Cost(*row[2:]) for row in data["costs"]}
            return cls(**data)
        except (KeyError, TypeError, AttributeError, IndexError, json.JSONDecodeError) as error:
            raise ValueError(f"{path} does not hold measured results ({error}): measure the run again") from error


DESCRIBED = {"metrics": Metric, "methods": Method, "groups": Group}
ROWS = ("values", "intervals", "differences", "costs")


def _as_row(value: float | tuple) -> tuple:
    return value if isinstance(value, tuple) else (value,)


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
