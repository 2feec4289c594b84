"""Measure a run's students and its teacher under the numerical solvers: the values behind report.json.

Every method samples the same pictures: one label and one initial noise each, as many as there are real pictures to
compare with, class by class. Which sampling seed is which noise is fixed here, so that runs compare.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file
from torch import Tensor, nn

from tcd_core.target_embedding import TargetTimeEmbedding

from . import families, samplers
from .families import Family, Judge
from .lora_file import load_lora, lora_layers
from .phases import TARGET_EMBEDDING, TEACHER, Phase, student_phases
from .recipe import Recipe
from .results import LCM_GAMMA, Results
from .samplers import SOLVERS, Network, sample_solver, sample_sss, start_noise
from .student import TargetTime

FIRST_SAMPLING_SEED = 1000
SHOWN = 10  # pictures of each method kept for the grid: one of every class
Pictures = dict[str, dict[int, Tensor]]


class Measurement:
    """Measures the training seeds of a run, one after the other, and keeps some pictures of the first.

    Args:
        recipe: the run's.
        say: called with a line on what is being measured.
    """

    def __init__(self, recipe: Recipe, say: Callable[[str], None] = lambda line: None) -> None:
        self.recipe, self.say = recipe, say
        self.judge = families.build(recipe).judge()
        self.pictures: Pictures = {}

    def run(self, results: Results, folder: Path, training_seed: int) -> None:
        """Measure one training seed's teacher and students, which lie in ``folder``, into the results."""
        started = time.monotonic()
        recipe = self.recipe.model_copy(update={"seed": training_seed})
        family, judge, self.results = families.build(recipe), self.judge, results
        family.load(folder / TEACHER)
        results.floors.update(judge.floors)
        results.floor_ranges.update(judge.floor_ranges)
        sampling_seeds = [FIRST_SAMPLING_SEED + i for i in range(recipe.measure.sampling_seeds)]
        self.say("numerical solvers")
        self._solvers(family, judge, training_seed, sampling_seeds[0])
        for phase in student_phases(recipe):
            self.say(phase.name)
            self._student(family, judge, phase, folder, training_seed, sampling_seeds)
        results.seconds["measure"] = results.seconds.get("measure", 0.0) + time.monotonic() - started

    def _solvers(self, family: Family, judge: Judge, training_seed: int, sampling_seed: int) -> None:
        """The teacher under the numerical solvers, one sampling seed."""
        network = guided(family, family.network, judge.labels, self.recipe.measure.w)
        x = start_noise((len(judge.labels), *family.latent_shape), sampling_seed)
        for solver in SOLVERS:
            for steps in self.recipe.measure.steps:
                pictures = sample_solver(solver, network, family.prediction, family.schedule, x, steps)
                if pictures is not None:
                    self._add(judge, solver, steps, family.decode(pictures), training_seed, sampling_seed, None)

    def _student(self, family, judge, phase: Phase, folder: Path, training_seed: int, seeds: list[int]) -> None:
        """A student at its own gamma, from every sampling seed; at the 2 × 2's other and the sweep's from one."""
        measure = self.recipe.measure
        network, form = load_student(family, phase, folder)
        student = conditional(family, network, judge.labels)
        others = {"tcd": {LCM_GAMMA, *measure.gammas}, "lcm": {measure.gamma}}.get(phase.name, set())
        second = phase.recipe.objective.form == "tcf2"
        for gamma in sorted({phase.gamma} | others):
            for steps in measure.steps:
                if second and steps % 2:
                    continue
                for seed in seeds if gamma == phase.gamma else seeds[:1]:
                    x = start_noise((len(judge.labels), *family.latent_shape), seed)
                    order = {"order": "2", "form": form} if second else {}
                    pictures = sample_sss(student, family.prediction, family.schedule, x, steps, gamma, seed, **order)
                    self._add(
                        judge, phase.name, steps, family.decode(pictures), training_seed, seed, gamma, own=phase.gamma
                    )

    def _add(self, judge: Judge, method, steps, pictures: Tensor, training_seed, seed, gamma, own=None) -> None:
        for metric, value in judge(pictures).items():
            self.results.add(metric, method, steps, value, training_seed, seed, gamma)
        if gamma == own and (training_seed, seed) == (self.recipe.seed, FIRST_SAMPLING_SEED):
            self.pictures.setdefault(method, {})[steps] = pictures[judge.shown(SHOWN)]


# -- networks to sample ------------------------------------------------------------------------------------------------


def load_student(family: Family, phase: Phase, folder: Path) -> tuple[Callable, str]:
    """A student from its file, merged into a copy of the teacher: (network(x, times, s, condition), TCF(2)'s form).

    The file is what is measured, not the weights it was made of.
    """
    path = phase.artefact(folder)
    if phase.recipe.student.kind == "lora":
        family.load(folder / TEACHER)
        network = family.network
        embedding = load_lora(network, path).target_embedding
        for layer in lora_layers(network).values():
            layer.merge()
    else:
        network = UNet2DConditionModel.from_pretrained(path, low_cpu_mem_usage=False, local_files_only=True)
        file = path / TARGET_EMBEDDING
        embedding = TargetTimeEmbedding.from_state_dict(load_file(file)) if file.is_file() else None
    network.requires_grad_(False)
    return with_target_time(family, network, embedding), phase.recipe.objective.tcf2_form


def with_target_time(family: Family, network: nn.Module, embedding: TargetTimeEmbedding | None) -> Callable:
    """``call(x, times, s, condition) -> output``, the network told s where it has an embedding for it."""
    if embedding is None:
        return lambda x, times, s, condition: family.output(network, x, times, condition)
    target_time = TargetTime(network, embedding.requires_grad_(False))

    def call(x: Tensor, times: Tensor, s: Tensor, condition) -> Tensor:
        with target_time(s):
            return family.output(network, x, times, condition)

    return call


def conditional(family: Family, call: Callable, labels: Tensor) -> Network:
    """A student as the samplers call it, each picture with its label."""
    condition = family.condition(labels)

    @torch.inference_mode()
    def network(x: Tensor, t: float, s: float) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.float32)
        return call(x, times, torch.full_like(times, s), condition)

    return network


def guided(family: Family, network: nn.Module, labels: Tensor, w: float) -> Network:
    """The teacher with guidance ``ε_c + w (ε_c − ε_∅)``, conditional and unconditional in one batch."""
    labels = torch.cat([labels, torch.full_like(labels, family.no_label)])
    condition = family.condition(labels)

    return torch.inference_mode()(samplers.guided(lambda x, times: family.output(network, x, times, condition), w))
