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
from .opening import check, keep_recipe, open_folder, resumed_folder, stored_recipe
from .recipe import EMBEDDED

SAVING = (
    "Close what else uses it, or begin a run that needs less: --memory.gradient_checkpointing, a smaller "
    "training.batch or more training.accumulation, --memory.optimizer adamw8bit, --memory.offload, a smaller "
    "student.rank or model.resolution; while data are encoded --data.encode_batch 1. What is encoded stays"
)


def main(argv: list[str] | None = None) -> int:
    """Run a command line; the exit status: 0 done, 1 failed, 130 interrupted, 2 (by `parse`) a bad command line."""
    command = parse(argv)
    _quiet(offline=command.recipe.family in EMBEDDED)
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


def run(command: Command) -> None:
    """Train what the recipe asks for, measure it, draw it."""
    from accelerate import Accelerator, PartialState
    from accelerate.utils import AutocastKwargs, broadcast_object_list

    from . import families
    from .folder_lock import lock
    from .phases import run_phases
    from .sharding import check_launch
    from .stopping import catch_signals, terminated_as_interrupted

    # other processes wait while the first goes through the data, which may take hours
    process = PartialState(cpu=not _has_accelerator(), timeout=timedelta(days=1))
    if command.dry_run:
        _dry_run(command, process)
        return
    folder, recipe = None, None
    with ExitStack() as stack:
        if process.is_main_process:
            folder, recipe = open_folder(command, process.num_processes)
            stack.enter_context(lock(folder))
            print(f"Writing to {folder}")
            if origin := _origin(recipe, folder, command.resume):
                origin.check_model(families.build(recipe))
        folder, recipe = broadcast_object_list([folder, recipe])
        origin = _origin(recipe, folder, command.resume)
        accelerator = Accelerator(
            cpu=not _has_accelerator(),
            mixed_precision=recipe.training.precision,
            # the target's weights, cast without a graph, are not to be taken for the student's, as older torch does
            kwargs_handlers=[AutocastKwargs(cache_enabled=False)],
        )
        check_launch(accelerator)
        if recipe.memory.shard and accelerator.num_processes == 1:
            print("memory.shard: one process has nothing to share out (accelerate launch --num_processes N)")
        parts = seed_folders(recipe, folder)
        for seed, part in parts:
            part.mkdir(exist_ok=True)
            of_seed = recipe.model_copy(update={"seed": seed})
            with terminated_as_interrupted():
                family = families.build(of_seed)
                family.prepare(accelerator, origin=origin)
                if accelerator.is_main_process:
                    keep_recipe(folder, recipe)
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


def _origin(recipe, folder: Path, resumed: bool):
    """What a pretrained model's run began with; None for an embedded family."""
    if recipe.family in EMBEDDED:
        return None
    from .origin import Origin

    return Origin(folder, resumed)


def _dry_run(command: Command, process) -> None:
    """Say what the run would take, on the main process."""
    from accelerate import Accelerator

    from .dry_run import dry_run

    if process.is_main_process:
        recipe = stored_recipe(resumed_folder(command)) if command.resume else command.recipe
        check(recipe, command.comfyui, process.num_processes)
        precision = recipe.training.precision
        print(dry_run(recipe, Accelerator(cpu=not _has_accelerator(), mixed_precision=precision)))


def hooks(recipe, accelerator):
    """Who looks on while students are trained: for pretrained models grids, trackers, LoRAs at checkpoints."""
    from contextlib import nullcontext

    if recipe.family in EMBEDDED:
        return lambda *_: nullcontext(())
    from .pretrained import watching

    return watching(accelerator)


def end(recipe, folder: Path, parts: list[tuple[int, Path]], comfyui: Path | None) -> None:
    """What a trained run ends with: measured and drawn, or of a pretrained model its report and ComfyUI's files."""
    if recipe.family in EMBEDDED:
        from .evaluate import evaluate

        evaluate(folder, folder)
    else:
        from .pretrained import finish

        finish(recipe, folder, parts, comfyui)


def seed_folders(recipe, folder: Path) -> list[tuple[int, Path]]:
    """(training seed, its folder): the run's own for one seed, ``seed-0`` … in it for several."""
    seeds = range(recipe.seed, recipe.seed + recipe.training_seeds)
    return [(seed, folder if len(seeds) == 1 else folder / f"seed-{seed}") for seed in seeds]


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
