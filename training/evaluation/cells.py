"""What is to be sampled: methods, and cells of one method, gamma, step count and seed each."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from ..samplers import SOLVERS

Baseline = Literal["euler", "ddim", "dpmpp_2s", "lcm", "tcd"]
BASELINES = get_args(Baseline)
LCM_GAMMA = 1.0
MOST_REFERENCE_STEPS = 50  # of diffusers' LCM and TCD schedulers, which take from a grid of as many times
_TITLES = {"euler": "Euler", "ddim": "DDIM", "dpmpp_2s": "DPM++(2S)"}
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")


@dataclass(frozen=True)
class Method:
    """Whose pictures, and how they are sampled.

    Attributes:
        name: of files, and in results.
        title: in tables.
        sampler: "sss" is tcd_core's strategic stochastic sampling, everything else a scheduler of diffusers.
        lora: the LoRA's name, "" for the base model with guidance.
        gamma: at which it stands in tables; None for the numerical solvers.
        role: its row of the paper's Table 1, if it has one.
    """

    name: str
    title: str
    sampler: Literal["sss", "euler", "ddim", "dpmpp_2s", "lcm", "tcd"]
    lora: str = ""
    gamma: float | None = None
    role: str | None = None


@dataclass(frozen=True)
class Cell:
    """One set of pictures, a picture for each prompt."""

    method: Method
    gamma: float | None
    steps: int
    seed: int

    @property
    def name(self) -> str:
        """Of its folders and files."""
        gamma = "" if self.gamma is None else f"_gamma{self.gamma:g}"
        return f"{self.method.name}{gamma}_steps{self.steps}_seed{self.seed}"


def named_loras(words: Sequence[str], kind: str = "--lora") -> dict[str, Path]:
    """``NAME=FILE`` or ``FILE``, whose name is then the file's, as name → file.

    Raises:
        ValueError: a name that is none, is a baseline's, or stands there twice.
    """
    loras: dict[str, Path] = {}
    for word in words:
        name, equals, path = word.partition("=")
        if not equals or not _NAME.fullmatch(name):
            name, path = Path(word).stem, word
        name = re.sub(r"[^\w.+-]+", "_", name).strip("_.") or "lora"
        if name in loras or name in BASELINES:
            what = "is a baseline's" if name in BASELINES else "stands there twice"
            raise ValueError(f"{kind}: the name {name!r} {what}: give {kind} NAME={path}")
        loras[name] = Path(path).expanduser()
    return loras


def methods_of(
    loras: Mapping[str, Path], lcm_loras: Mapping[str, Path], baselines: Sequence[Baseline], gamma: float
) -> list[Method]:
    """Baselines on the base model, then students: by SSS at ``gamma``, LCM's at gamma 1, and by diffusers' schedulers.

    Raises:
        ValueError: one name for two files.
    """
    if both := set(loras) & set(lcm_loras):
        raise ValueError(f"--lora and --lcm-lora both name {', '.join(sorted(both))}: give NAME=FILE with other names")
    methods = [Method(name, _TITLES[name], name, role=name) for name in SOLVERS if name in baselines]
    for names, own, role in ((lcm_loras, LCM_GAMMA, "lcm"), (loras, gamma, "tcd")):
        for i, name in enumerate(names):
            methods.append(Method(name, name, "sss", name, own, role if i == 0 else None))
            if role in baselines:
                title = f"{name}, diffusers' {role.upper()}Scheduler"
                methods.append(Method(f"{name}-{role}_scheduler", title, role, name, own))
    return methods


def cells_of(
    methods: Sequence[Method],
    steps: Sequence[int],
    gammas: Sequence[float],
    seeds: Sequence[int],
    second_order: Sequence[str] = (),
) -> list[Cell]:
    """Every method at its own gamma from every seed; students by SSS at the other ``gammas`` from the first seed alone.

    Args:
        second_order: names of LoRAs that were distilled with TCF(2), of which a step takes two evaluations: for these
            odd step counts are left out.

    Raises:
        ValueError: more steps than diffusers' LCM and TCD schedulers have times.
    """
    cells = []
    for method in methods:
        if method.sampler in ("lcm", "tcd") and max(steps) > MOST_REFERENCE_STEPS:
            raise ValueError(
                f"--steps: {method.title} takes {MOST_REFERENCE_STEPS} steps at most, got {max(steps)}: leave "
                f"{method.sampler} out of --baselines"
            )
        others = sorted({float(gamma) for gamma in gammas} - {method.gamma}) if method.sampler == "sss" else []
        for n in steps:
            if n % 2 and method.lora in second_order:
                continue
            cells += [Cell(method, method.gamma, n, seed) for seed in seeds]
            cells += [Cell(method, gamma, n, seeds[0]) for gamma in others]
    return cells
