"""Gamma schedules: the paper's stochasticity gamma as a function of a run's progress.

gamma = 0 is deterministic sampling, gamma = 1 multistep consistency sampling. The paper uses one number; nothing in
Algorithm 4 asks for that. Progress is measured in time, ``p = 1 − t/T`` at the time t where a step starts, and not in
steps, so that a run that is split, or starts late (img2img), uses at each time what the whole run would.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from typing import Literal, get_args

import numpy as np

Shape = Literal["constant", "linear", "cosine", "power", "list"]
SHAPES = get_args(Shape)


@dataclass(frozen=True)
class GammaSchedule:
    """gamma(p) for progress p ∈ [0, 1].

    ========  =============================================================
    constant  ``start``
    linear    ``start + (end − start) p``
    cosine    ``start + (end − start) (1 − cos πp) / 2``
    power     ``start + (end − start) p^exponent``
    list      ``values[i]`` for step i: M − 1 values for M steps, since the last step adds no noise; with
              ``interpolate``, any number of values, spread evenly over p and joined by straight lines
    ========  =============================================================

    A value object: comparable, hashable, JSON-serialisable.

    Raises:
        ValueError: unknown shape, a gamma outside [0, 1], exponent not positive, a list without values.
    """

    shape: Shape = "constant"
    start: float = 0.3
    end: float = 0.3
    exponent: float = 1.0
    values: tuple[float, ...] = ()
    interpolate: bool = False

    def __post_init__(self) -> None:
        if self.shape not in SHAPES:
            raise ValueError(f"shape must be one of {', '.join(SHAPES)}, got {self.shape!r}")
        object.__setattr__(self, "values", tuple(float(v) for v in self.values))
        for gamma in self.values:
            check_gamma(gamma)
        for name in ("start", "end"):
            object.__setattr__(self, name, check_gamma(getattr(self, name)))
        if not isinstance(self.interpolate, bool):
            raise ValueError(f"interpolate must be true or false, got {self.interpolate!r}")
        if not (math.isfinite(self.exponent) and self.exponent > 0):
            raise ValueError(f"exponent must be positive, got {self.exponent}")
        if self.shape == "list" and self.interpolate and not self.values:
            raise ValueError("an interpolated list needs values: numbers in [0, 1], such as 0.5, 0.3, 0.1")

    def at(self, progress: float) -> float:
        """gamma at a progress in [0, 1]; not for a list without ``interpolate``, which knows steps only."""
        p = min(max(progress, 0.0), 1.0)
        if self.shape == "list":
            if not self.interpolate:
                raise ValueError("a list without interpolation gives one gamma per step, not one per time")
            return float(np.interp(p, np.linspace(0, 1, len(self.values)), self.values))
        rise = {
            "constant": lambda: 0.0,
            "linear": lambda: p,
            "cosine": lambda: 0.5 - 0.5 * math.cos(math.pi * p),
            "power": lambda: p**self.exponent,
        }[self.shape]()
        return self.start + (self.end - self.start) * rise

    def per_step(self, progress: Sequence[float], lands: bool = True) -> list[float]:
        """One gamma for each step of a run.

        Args:
            progress: p at each step's start, M numbers.
            lands: whether the last step lands at the end of the trajectory; such a step adds no noise and its gamma,
                0 here for a list, is without effect.

        Raises:
            ValueError: a list without ``interpolate`` of another length than the run needs; both lengths are named.
        """
        if self.shape != "list" or self.interpolate:
            return [self.at(p) for p in progress]
        needed = len(progress) - 1 if lands else len(progress)
        if len(self.values) != needed:
            values = f"{len(self.values)} value" + "s" * (len(self.values) != 1)
            run = f"{len(progress)} step" + "s" * (len(progress) != 1)
            why = "the last step adds no noise" if lands else "it stops before the end"
            raise ValueError(
                f"the gamma list has {values}, this run of {run} needs {needed} ({why}): change the "
                "list or the steps, or switch interpolate on"
            )
        return [*self.values, 0.0] if lands else list(self.values)

    def to_json(self) -> str:
        """A JSON object of the fields."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> GammaSchedule:
        """Inverse of `to_json`; ValueError for text that is no such object."""
        try:
            fields = json.loads(text)
            values = fields.get("values", [])
            if not isinstance(values, list):
                raise ValueError(f"values must be a list, got {values!r}")
            return cls(**{**fields, "values": tuple(values)})
        except (TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"not a gamma schedule: {error}") from error


Gamma = float | GammaSchedule | Sequence[float]


def check_gamma(gamma: float) -> float:
    """gamma as a float; ValueError for what is no number in [0, 1] (NaN included)."""
    if not isinstance(gamma, Real) or not 0.0 <= gamma <= 1.0:
        raise ValueError(f"gamma must lie in [0, 1], got {gamma!r}")
    return float(gamma)


def gamma_per_step(gamma: Gamma, progress: Sequence[float], lands: bool = True) -> list[float]:
    """One gamma per step from a number, a `GammaSchedule` or a ready list of M numbers."""
    if isinstance(gamma, GammaSchedule):
        return gamma.per_step(progress, lands)
    if isinstance(gamma, Real | str):
        return [check_gamma(gamma)] * len(progress)
    if len(gamma) != len(progress):
        raise ValueError(f"got {len(gamma)} gammas for {len(progress)} steps: give one per step")
    return [check_gamma(g) for g in gamma]
