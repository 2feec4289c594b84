"""What a pretrained model's run has besides its training: who looks on while it runs, and what it ends with."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import torch
from accelerate import Accelerator

from . import families
from .checkpoint_lora import CheckpointLora, save_averaged_lora
from .comfyui import export
from .comfyui_folders import find_comfyui
from .data import Settings, open_source
from .disk import write_atomically
from .families.unet import LORA_TARGETS
from .loop import Hook, any_process, check_shares, make_optimizer
from .models import configs
from .objective import TrajectoryDistillation
from .phases import Phase, losses, metadata, student_settings, trained_phases
from .plots import loss_curve
from .recipe import Recipe, recipe_hash
from .run_folder import REPORT, finished
from .sharding import check_torch
from .trackers import Trackers, check_trackers
from .validation import Validation, ValidationSettings


def check(recipe: Recipe, comfyui: Path | None = None, processes: int = 1) -> None:
    """Refuse before there is a run what would be refused after its data were encoded, or after its training.

    Raises:
        ValueError: ComfyUI's folder, trackers, optimiser, batch, model or data can't be used; says which and why.
    """
    if comfyui:
        find_comfyui(comfyui)
        if recipe.student.kind != "lora":
            raise ValueError(f"--comfyui takes LoRAs, and student.kind is {recipe.student.kind}: leave one of them out")
    check_trackers(recipe.validation.trackers)
    if recipe.memory.shard:
        check_torch()
    settings = student_settings(recipe)
    check_shares(settings, processes)
    make_optimizer([torch.nn.Parameter(torch.zeros(1))], settings)
    families.build(recipe)
    open_source(recipe.data)
    _ = Settings.of(recipe.data, recipe.model.resolution).buckets


def disk_needed(recipe: Recipe) -> int:
    """Bytes of checkpoints (weights, two moments, average; as many as are kept and one more) and of what is saved."""
    network = configs.skeleton("unet", families.build(recipe).found.configs["unet"])
    if recipe.student.kind == "full":
        trained = sum(p.numel() for p in network.parameters())
    else:
        targets = tuple(f".{name}" for name in LORA_TARGETS)
        layers = [m.weight.shape for name, m in network.named_modules() if f".{name}".endswith(targets)]
        trained = sum(recipe.student.rank * (shape[1:].numel() + shape[0]) for shape in layers)
    kept, value = recipe.checkpoint.keep + 1, 2 if recipe.student.dtype == "fp16" else 4
    return recipe.training_seeds * kept * trained * (4 * 4 + value) + 20_000_000


def watching(accelerator: Accelerator):
    """`phases.run_phases`' hooks: validation grids, a LoRA at every checkpoint, and the trackers, which come last."""

    @contextmanager
    def hooks(task: TrajectoryDistillation, phase: Phase, folder: Path, first: int) -> Iterator[Sequence[Hook]]:
        shards, recipe = task.shards, phase.recipe
        if not accelerator.is_main_process and not shards:
            yield ()
            return
        settings = ValidationSettings(
            prompts=tuple(task.family.prompts) if recipe.validation.every else (),
            every=recipe.validation.every,
            steps=recipe.validation.steps,
            gamma=phase.gamma,
            w=recipe.validation.w,
            teacher_steps=recipe.validation.teacher_steps,
            seed=recipe.validation.seed,
        )
        common = {"last": recipe.training.steps, "autocast": accelerator.autocast}
        if shards:
            common["agree"] = lambda flag: any_process(accelerator, flag)
        if not accelerator.is_main_process:
            yield [Validation(task, settings, folder / "validation", **common, draws=False)]
            return
        with Trackers(
            accelerator,
            recipe.validation.trackers,
            folder / "logs",
            f"{phase.name}_{recipe.name}",
            batch=recipe.training.batch,
            config=recipe.model_dump(mode="json"),
            first=first,
        ) as trackers:
            grids = Validation(task, settings, folder / "validation", **common, shown=trackers.picture)
            yield [grids, *_loras(task, phase, folder), trackers]

    return hooks


def _loras(task: TrajectoryDistillation, phase: Phase, folder: Path) -> list[Hook]:
    recipe = phase.recipe
    if recipe.student.kind != "lora":
        return []

    def write(path: Path) -> None:
        save_averaged_lora(path, task, metadata(task, phase), recipe.student.dtype)

    return [CheckpointLora(folder / "checkpoints", phase.artefact(folder).stem, write, recipe.checkpoint.keep)]


def finish(recipe: Recipe, folder: Path, parts: Sequence[tuple[int, Path]], comfyui: Path | None = None) -> dict:
    """Write report.json and the loss curve, and put the LoRA into ComfyUI where asked; say where all is.

    Returns:
        What report.json holds.

    Raises:
        ValueError, OSError: ComfyUI's folders could not be written to; all is trained, --resume tries that again.
    """
    curves = losses(parts[0][1])
    artefacts = [phase.artefact(part) for _, part in parts for phase in trained_phases(recipe)]
    done = [finished(part) for _, part in parts]
    seconds = {phase.name: sum(of_part[phase.name] for of_part in done) for phase in trained_phases(recipe)}
    earlier = _earlier_loras(recipe, parts)
    report = {
        "version": 1,
        "recipe": recipe.model_dump(mode="json"),
        "recipe_hash": recipe_hash(recipe),
        "seconds": seconds,
        "loss": curves,
        "files": [str(path.relative_to(folder)) for path in artefacts],
    }
    files = [*artefacts, folder / "report.json"]
    if loss_curve(report, folder / "loss_curve.png"):
        files.append(folder / "loss_curve.png")
    exported = None
    if comfyui and recipe.student.kind == "lora":
        zero = families.build(recipe).zero_terminal_snr  # what its file says included
        exported = export(comfyui, artefacts[0], recipe.model.path, zero_terminal_snr=zero)
    write_atomically(folder / REPORT, json.dumps(report, indent=1) + "\n")  # last: the run is finished
    files += [*sorted(folder.glob("validation/*.png"))[-1:], *earlier]
    print("\n".join(["Written:", *(f"  {path}" for path in files), *([str(exported)] if exported else [])]))
    return report


def _earlier_loras(recipe: Recipe, parts: Sequence[tuple[int, Path]]) -> list[Path]:
    """The LoRAs of the checkpoints before the last, kept to compare with; the last one's is the finished file, and
    goes, as does what a killed process left half written."""
    kept = []
    for part in (part / "checkpoints" for _, part in parts):
        for stem in (phase.artefact(part).stem for phase in trained_phases(recipe)):
            for path in [
                *part.glob(f".{stem}_step_*.tmp"),
                part / f"{stem}_step_{recipe.training.steps:08d}.safetensors",
            ]:
                path.unlink(missing_ok=True)
            kept += sorted(part.glob(f"{stem}_step_*.safetensors"))
        with suppress(OSError):  # not empty, or never made
            part.rmdir()
    return kept
