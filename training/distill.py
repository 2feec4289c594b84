"""``python -m training.distill``: teacher, students, measurements and pictures, by one recipe.

Without arguments: the recipe `digits`, which downloads nothing and needs no GPU. ``--help`` lists every field.
"""

from __future__ import annotations

import logging
import os
import sys
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

from .cli import Command, parse

EMBEDDED = "digits"  # the family that trains its own teacher and is measured at its run's end
SAVING = (
    "Close what else uses it, or begin a run that needs less: --memory.gradient_checkpointing, a smaller "
    "training.batch or more training.accumulation, --memory.optimizer adamw8bit, --memory.offload, a smaller "
    "student.rank or model.resolution; while data are encoded --data.encode_batch 1. What is encoded stays"
)


def main(argv: list[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 failed, 130 interrupted, 2 (by `parse`) a bad command line."""
    command = parse(argv)
    _quiet(offline=command.recipe.family == EMBEDDED)
    import torch

    from .checkpoint import CheckpointError
    from .disk import OutputError
    from .loop import Interrupted
    from .stopping import TrainingDiverged

    try:
        run(command)
    except Interrupted as stopped:
        print(f"\n{stopped}", file=sys.stderr)
        return 130
    except KeyboardInterrupt as stopped:
        print(f"\nInterrupted{stopped}; go on with --resume", file=sys.stderr)
        return 130
    except torch.OutOfMemoryError as error:
        print(f"\nerror: the GPU's memory is too small: {str(error).splitlines()[0]} {SAVING}", file=sys.stderr)
        return 1
    except (CheckpointError, OutputError, TrainingDiverged, ValueError, OSError) as error:
        print(f"\nerror: {error}", file=sys.stderr)
        return 1
    return 0


def run(command: Command) -> Path:
    """Train what the recipe asks for, measure it, draw it; the run's folder."""
    from accelerate import Accelerator, PartialState
    from accelerate.utils import AutocastKwargs, broadcast_object_list

    from . import families
    from .folder_lock import lock
    from .phases import run_phases
    from .stopping import catch_signals, terminated_as_interrupted

    # other processes wait while the first goes through the data, which may take hours
    process, folder = PartialState(cpu=not _has_accelerator(), timeout=timedelta(days=1)), None
    if command.dry_run:
        _dry_run(command, process)
        return command.output
    with ExitStack() as stack:
        if process.is_main_process:
            folder = _open_folder(command, process.num_processes)
            stack.enter_context(lock(folder))
            print(f"Writing to {folder}")
        (folder,) = broadcast_object_list([folder])
        recipe = stored_recipe(folder)
        accelerator = Accelerator(
            cpu=not _has_accelerator(),
            mixed_precision=recipe.training.precision,
            # the target's weights, cast without a graph, are not to be taken for the student's, as older torch does
            kwargs_handlers=[AutocastKwargs(cache_enabled=False)],
        )
        parts = seed_folders(recipe, folder)
        for seed, part in parts:
            part.mkdir(exist_ok=True)
            of_seed = recipe.model_copy(update={"seed": seed})
            with terminated_as_interrupted():
                family = families.build(of_seed)
                family.prepare(accelerator)
            with catch_signals() as stop:
                run_phases(family, of_seed, part, accelerator, stop, hooks(recipe, accelerator))
            if stop.requested:  # in the very last step, or after it
                raise KeyboardInterrupt
        if accelerator.is_main_process:
            with terminated_as_interrupted():
                end(recipe, folder, parts, command.comfyui)
        accelerator.wait_for_everyone()
        if accelerator.num_processes > 1:
            accelerator.end_training()
    return folder


def _dry_run(command: Command, process) -> None:
    """Say what the run would take, on the main process."""
    from accelerate import Accelerator

    from .dry_run import dry_run

    if process.is_main_process:
        recipe = stored_recipe(command.output) if command.resume else command.recipe
        check(recipe, command.comfyui, process.num_processes)
        precision = recipe.training.precision
        print(dry_run(recipe, Accelerator(cpu=not _has_accelerator(), mixed_precision=precision)))


def hooks(recipe, accelerator):
    """Who looks on while students are trained: for pretrained models grids, trackers, LoRAs at checkpoints."""
    from contextlib import nullcontext

    if recipe.family == EMBEDDED:
        return lambda *_: nullcontext(())
    from .pretrained import watching

    return watching(accelerator)


def end(recipe, folder: Path, parts: list[tuple[int, Path]], comfyui: Path | None) -> None:
    """What a trained run ends with: measured and drawn, or of a pretrained model its report and ComfyUI's files."""
    if recipe.family == EMBEDDED:
        from .evaluate import evaluate

        evaluate(folder, folder)
    else:
        from .pretrained import finish

        finish(recipe, folder, parts, comfyui)


def seed_folders(recipe, folder: Path) -> list[tuple[int, Path]]:
    """(training seed, its folder): the run's own for one seed, ``seed-0`` … in it for several."""
    seeds = range(recipe.seed, recipe.seed + recipe.training_seeds)
    return [(seed, folder if len(seeds) == 1 else folder / f"seed-{seed}") for seed in seeds]


def stored_recipe(folder: Path):
    """The recipe that a run's folder was begun with.

    Raises:
        ValueError: the folder holds no run.
    """
    from .recipe import load_recipe
    from .run_folder import RECIPE

    if not (folder / RECIPE).is_file():
        raise ValueError(f"{folder} holds no run: there is no {RECIPE} in it. Give a folder that training.distill made")
    return load_recipe(folder / RECIPE)


def check(recipe, comfyui: Path | None = None, processes: int = 1) -> None:
    """Refuse now, with an error for people, what would fail only when hours have gone by."""
    if recipe.family == EMBEDDED:
        if comfyui:
            raise ValueError(f"--comfyui: ComfyUI has no models of the family {EMBEDDED}, leave it out")
        return
    from .pretrained import check

    check(recipe, comfyui, processes)


def _open_folder(command: Command, processes: int) -> Path:
    """A new run's folder with its recipe in it, or the one to go on with."""
    from .disk import check_writable, write_atomically
    from .recipe import dump_toml, recipe_hash
    from .run_folder import RECIPE, claim, resume

    recipe = command.recipe
    if not command.resume:
        check(recipe, command.comfyui, processes)
        check_writable(command.output, disk_needed(recipe))
        folder = claim(command.output)
        write_atomically(folder / RECIPE, dump_toml(recipe))
        return folder
    folder = resume(command.output, named=command.output != Path("outputs") / recipe.name)
    stored = stored_recipe(folder)
    if command.overridden and recipe_hash(stored) != recipe_hash(recipe):
        raise ValueError(
            f"{folder} was begun with another recipe ({folder / RECIPE}): {_differences(stored, recipe)}. Resume it "
            "without these options, or begin a new run without --resume"
        )
    check(stored, command.comfyui, processes)
    check_writable(folder, disk_needed(stored))
    return folder


def disk_needed(recipe) -> int:
    """An upper estimate of what a run writes, in bytes: weights with their optimiser state, twice for a checkpoint."""
    if recipe.family != EMBEDDED:  # the cache tells its own
        from .pretrained import disk_needed as of_pretrained

        return of_pretrained(recipe)
    width = recipe.teacher.width
    teacher = 4 * 1100 * width**2  # about 1,000 parameters per width², float32
    share = 1.0 if recipe.student.kind == "full" else min(1.0, recipe.student.rank / width)
    students = 1 + recipe.baseline + 2 * recipe.forms
    of_seed = teacher * (1 + share * students) + 5 * teacher * (recipe.checkpoint.keep + 1)
    return int(recipe.training_seeds * of_seed) + 20_000_000


def _differences(stored, given) -> str:
    """The fields in which two recipes differ, for people."""

    def flat(recipe) -> dict:
        fields = {}
        for name, value in recipe.model_dump().items():
            fields |= {f"{name}.{k}": v for k, v in value.items()} if isinstance(value, dict) else {name: value}
        return fields

    old, new = flat(stored), flat(given)
    return "; ".join(f"{name} is {old[name]}, asked for {new[name]}" for name in old if old[name] != new[name])


def _has_accelerator() -> bool:
    """Whether there is a device to train on besides the CPU; without one several processes talk by gloo."""
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available() or torch.xpu.is_available()


def _quiet(offline: bool = True) -> None:
    """Libraries' notices out of the progress bar; offline, where nothing is to be fetched: only a Hub name's model is,
    when its run begins."""
    if offline:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    for name in ("diffusers", "peft", "accelerate"):
        logging.getLogger(name).setLevel(logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
