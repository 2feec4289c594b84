"""A run's phases for one training seed: teacher, then students, each trained, saved, and not done twice.

Folder of one training seed: ``teacher/``, ``tcd_<name>.safetensors``, ``lcm_<name>.safetensors`` … (with full
fine-tuning folders in place of the files), ``checkpoints/<phase>/``, ``losses.json``.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from . import checkpoint
from .catalogue import LCM_GAMMA
from .checkpoint_lora import averaged_embedding, save_averaged_lora
from .comparisons import variants
from .disk import OutputError, write_atomically
from .families import Family
from .loop import Curve, Hook, LoopSettings, train
from .lora_metadata import lora_metadata
from .objective import TrajectoryDistillation
from .recipe import Recipe, lcm_baseline, recipe_hash
from .run_folder import finished, mark_finished
from .sharding import mesh_of, network_with
from .stopping import Stop
from .teacher_pairs import distillation

TEACHER = "teacher"
LOSSES = "losses.json"
TARGET_EMBEDDING = "target_embedding.safetensors"  # beside a fully fine-tuned TCF(S+) network


class Phase(NamedTuple):
    """A student to train: its name, its recipe, the gamma it is meant to be sampled at.

    ``trained``: the name of an earlier student with the same recipe, whose file serves; its own where there is none.
    """

    name: str
    recipe: Recipe
    gamma: float
    trained: str

    def artefact(self, folder: Path) -> Path:
        """Where the student is saved: a LoRA file, or a folder for a fully fine-tuned network."""
        stem = f"{self.trained}_{self.recipe.name}"
        return folder / (f"{stem}.safetensors" if self.recipe.student.kind == "lora" else stem)


def student_phases(recipe: Recipe) -> list[Phase]:
    """TCD, the LCM baseline and the students to compare, as the recipe asks, on equal budgets."""
    wanted = {"tcd": (recipe, recipe.measure.gamma)}
    if recipe.baseline:
        wanted["lcm"] = (lcm_baseline(recipe), LCM_GAMMA)
    wanted |= {name: (variant, recipe.measure.gamma) for name, variant in variants(recipe).items()}
    first = {recipe_hash(of): name for name, (of, _) in reversed(wanted.items())}
    return [Phase(name, of, gamma, first[recipe_hash(of)]) for name, (of, gamma) in wanted.items()]


def trained_phases(recipe: Recipe) -> list[Phase]:
    """Those of `student_phases` that are trained."""
    return [phase for phase in student_phases(recipe) if phase.trained == phase.name]


Hooks = Callable[[TrajectoryDistillation, Phase, Path, int], AbstractContextManager[Sequence[Hook]]]


def run_phases(
    family: Family,
    recipe: Recipe,
    folder: Path,
    accelerator: Accelerator,
    stop: Stop,
    hooks: Hooks = lambda *_: nullcontext(()),
) -> None:
    """Train what is not finished yet. A phase counts as finished once its artefact stands whole in the folder.

    Args:
        family: the recipe's, prepared.
        hooks: ``with hooks(task, phase, folder, steps done before)`` gives those who look on at a student's training.
    """
    done = finished(folder)
    if accelerator.is_main_process:
        for phase in done:  # killed just before, they were left
            shutil.rmtree(_checkpoints(folder, phase), ignore_errors=True)
    task = None if TEACHER in done else family.teacher_task(recipe)
    if task is not None:
        curve = train(task, teacher_settings(recipe), accelerator, _checkpoints(folder, TEACHER), TEACHER, stop)
        if accelerator.is_main_process:
            _load_averages(task)
            with _saving(folder / TEACHER):
                family.save(folder / TEACHER)
        _finish(folder, TEACHER, curve, accelerator)
    for phase in trained_phases(recipe):
        if phase.name not in done:
            family.load(folder / TEACHER)
            task = distillation(family, phase.recipe, mesh=mesh_of(phase.recipe, accelerator))
            settings = student_settings(phase.recipe)
            checkpoints = _checkpoints(folder, phase.name)
            with hooks(task, phase, folder, checkpoint.newest_step(checkpoints)) as watching:
                curve = train(task, settings, accelerator, checkpoints, phase.name, stop, watching)
            averages = task.saved.weights
            if task.shards:
                averages = task.shards.gathered(averages)
            if accelerator.is_main_process:
                with _saving(phase.artefact(folder)):
                    save_student(task, phase, folder, averages)
            _finish(folder, phase.name, curve, accelerator)


def teacher_settings(recipe: Recipe) -> LoopSettings:
    teacher, every = recipe.teacher, 5 * recipe.checkpoint.every
    return LoopSettings(teacher.steps, teacher.batch, teacher.lr, warmup=50, every=every, keep=recipe.checkpoint.keep)


def student_settings(recipe: Recipe) -> LoopSettings:
    fields = recipe.training.model_dump(exclude={"precision"})
    every, keep = recipe.checkpoint.every, recipe.checkpoint.keep
    return LoopSettings(**fields, every=every, keep=keep, optimizer=recipe.memory.optimizer)


def save_student(task: TrajectoryDistillation, phase: Phase, folder: Path, averages: Mapping[str, Tensor]) -> None:
    """Write the student's averaged weights: a LoRA in kohya's layout, or the whole network as diffusers does.

    Args:
        averages: the task's, whole where it has shards.
    """
    recipe, path = phase.recipe, phase.artefact(folder)
    if recipe.student.kind == "lora":
        save_averaged_lora(path, task, metadata(task, phase), recipe.student.dtype)
        return
    embedding = averaged_embedding(averages)
    network = task.student.network
    if task.shards:
        own = {name.removeprefix("network."): w for name, w in averages.items() if name.startswith("network.")}
        network = network_with(network, own)
    else:
        _load_averages(task)
    unfinished = path.with_name(f".{path.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    dtype = torch.float16 if recipe.student.dtype == "fp16" else torch.float32
    network.to(dtype).save_pretrained(unfinished)
    if embedding is not None:
        save_file(embedding.state_dict_for_file(dtype), unfinished / TARGET_EMBEDDING)
    shutil.rmtree(path, ignore_errors=True)
    unfinished.replace(path)


def metadata(task: TrajectoryDistillation, phase: Phase) -> dict[str, str]:
    """What the LoRA file says of itself."""
    recipe, family = phase.recipe, task.family
    ends, objective = recipe.end_times, recipe.objective
    span = "s = 0" if ends.lower_share == 1 and ends.segments == (1,) else "s in [0, t_n]"
    if ends.segments != (1,):
        span += f" in {', '.join(map(str, ends.segments))} segments"
    return lora_metadata(
        title=f"{phase.name}_{recipe.name}",
        architecture=family.architecture,
        base_model=family.base_model,
        prediction_type=family.prediction,
        resolution=family.resolution,
        rank=recipe.student.rank,
        alpha=recipe.student.alpha,
        form=objective.form,
        tcf2_form=objective.tcf2_form if objective.form == "tcf2" else None,
        steps=4,
        gamma=phase.gamma,
        cfg=1.0,
        training_span=f"k={objective.skip}, N=1000, {span}",
        recipe_hash=recipe_hash(recipe),
    )


def losses(folder: Path) -> dict[str, dict[str, list[float]]]:
    """The loss curves of the finished phases.

    Raises:
        OutputError: their file is damaged.
    """
    path = folder / LOSSES
    try:
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError as error:
        raise OutputError(f"{path} is damaged ({error}). Delete it: only the loss plot needs it") from error


def _finish(folder: Path, phase: str, curve: Curve, accelerator: Accelerator) -> None:
    """Note the phase as done and drop its checkpoints; other processes wait."""
    if accelerator.is_main_process:
        write_atomically(folder / LOSSES, json.dumps({**losses(folder), phase: curve.shown()}))
        mark_finished(folder, phase, curve.seconds)
        shutil.rmtree(_checkpoints(folder, phase), ignore_errors=True)
        with suppress(OSError):  # the last phase's leaves none
            (folder / "checkpoints").rmdir()
    accelerator.wait_for_everyone()


@contextmanager
def _saving(path: Path) -> Iterator[None]:
    """Errors of writing an artefact as one for people; the phase's last checkpoint is that of its last step."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        why = getattr(error, "strerror", None) or error
        raise OutputError(
            f"{path} was not written: {why}. Its training is done and kept: free space or make the folder writable, "
            "then go on with --resume"
        ) from error


def _checkpoints(folder: Path, phase: str) -> Path:
    return folder / "checkpoints" / phase


def _load_averages(task) -> None:
    with torch.no_grad():
        for name, parameter in task.trainable().items():
            parameter.copy_(task.saved.weights[name])
