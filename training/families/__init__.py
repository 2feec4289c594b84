"""Model families: what the trainer must know of a kind of model, one file each.

`digits` is the embedded default. A latent-diffusion or flow-transformer family is another file with a class of these
few members; nothing else in `training` knows families apart.
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Protocol

from accelerate import Accelerator
from torch import Tensor, nn

from tcd_core.predictions import Prediction
from tcd_core.sss import Schedule

from ..catalogue import Metric
from ..recipe import Recipe


class Judge(Protocol):
    """Measures a set of generated pictures against real ones.

    Attributes:
        metrics: what it measures, the main one first, by name.
        labels: what to generate, one for each picture.
        floors: metric → real pictures' own value.
        floor_ranges: metric → (least, greatest) of it over other draws of the real pictures, where known.
    """

    metrics: dict[str, Metric]
    labels: Tensor
    floors: dict[str, float]
    floor_ranges: dict[str, tuple[float, float]]

    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """Metric → value."""

    def shown(self, count: int) -> Tensor:
        """Rows of about ``count`` pictures to show."""


class Family(Protocol):
    """A pretrained teacher with its schedule, its data and the names its LoRA is saved under.

    Attributes:
        network: the network to be distilled, a diffusers model; frozen by the student it becomes.
        schedule, prediction: what the network was trained with.
        lora_targets: names of the modules that get an adapter, as in peft's `target_modules`.
        architecture, base_model, resolution: what its LoRAs' metadata say.
    """

    network: nn.Module
    schedule: Schedule
    prediction: Prediction
    lora_targets: list[str]
    architecture: str
    base_model: str
    resolution: int
    no_label: int
    latent_shape: tuple[int, ...]

    def output(self, network: nn.Module, x: Tensor, times: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """The network's raw output at (x, t); times shape (B,), in the schedule's units."""

    def data(self, step: int, count: int, seed: int, stream: str, part: slice) -> tuple[Tensor, Tensor, dict, dict]:
        """(rows, x_0, condition, unconditional) of the samples ``part`` of a step's batch of ``count``, from these
        arguments alone, on the CPU."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures of latents (B, *latent_shape), in [−1, 1]."""

    def condition(self, labels: Tensor) -> dict[str, Tensor]:
        """What the network is told of these labels; ``no_label`` is the unconditional one."""

    def prepare(self, accelerator: Accelerator, origin=None) -> None:
        """What is to be done once before training: data encoded, once ``origin`` (an `Origin`) has found that they are
        those the run began with."""

    def judge(self) -> Judge | None:
        """What the family's pictures are measured by; None for a family that is not measured at its run's end."""

    def teacher_task(self, recipe: Recipe) -> nn.Module | None:
        """The task that trains the teacher (see `loop`), None for a family whose teacher is given."""

    def save(self, folder: Path) -> None:
        """Write the teacher."""

    def load(self, folder: Path) -> None:
        """Put a fresh copy of the teacher, frozen, into ``network``."""


def build(recipe: Recipe) -> Family:
    """The recipe's family, from the module of its name."""
    return importlib.import_module(f".{recipe.family}", __name__).build(recipe)
