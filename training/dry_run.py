"""``--dry_run``: what a run would take of memory, disk and time, told before it; nothing is written.

Parameters and bytes are counted on the network itself, time on one optimiser step over random latents and conditions of
the right shapes, so that no cache is needed; where the teacher draws the pictures, on one evaluation of it as well.
Activations are that step's peak: on a GPU measured, on a CPU those of the tensors that lived in it. What encoding and
decoding take of memory is worked out (`memory_arithmetic`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from math import ceil
from pathlib import Path
from typing import NamedTuple

import torch
from accelerate import Accelerator

from . import families
from .data import Settings, open_source
from .data.buckets import Size
from .data.cache import Estimate, estimate
from .data.plan import Plan, make_plan
from .data.settings import fingerprint, identity
from .disk import human_size
from .families.encoders import Encoders
from .loop import passes
from .memory_arithmetic import CAPTIONS, Need, drawing_need, encoding_needs
from .objective import TrajectoryDistillation
from .phases import trained_phases
from .random_data import RandomData, bytes_per_caption
from .recipe import EMBEDDED, Recipe
from .teacher_pairs import distillation, kept_bytes
from .timed_step import Step, guided_evaluation, n_bytes_of, one_step, share_of


def dry_run(recipe: Recipe, accelerator: Accelerator) -> str:
    """What a run of the recipe would take, as lines for people.

    Raises:
        ModelError, DataError: the model or the data can't be used.
        ValueError: 8-bit optimiser without bitsandbytes; a recipe that doesn't go with the model.
    """
    if recipe.family in EMBEDDED:
        return _of_embedded(recipe)
    family = families.build(recipe)
    family.device = accelerator.device
    hashing = _hashing(family)
    plan, cache = _planned(family)
    family.load()
    largest = max((row.bucket for row in plan.rows), key=lambda size: size.width * size.height)
    family.network.to(accelerator.device)
    family.data = RandomData(family, largest)
    drawing = _drawing(plan, family, accelerator)
    task = distillation(family, recipe).to(accelerator.device)
    step = one_step(task, accelerator)
    return "\n".join(
        [
            f"Dry run of the recipe {recipe.name}; nothing is written.",
            *_section("model", _model(family, task) | hashing),
            *_section("data", _data(plan, recipe, accelerator)),
            *_section(f"memory on the device ({accelerator.device})", _memory(step, task, accelerator)),
            *_section("memory before and beside it, worked out", _memory_besides(family, largest, step)),
            *_section("disk", _disk(task, cache, estimate(plan, bytes_per_caption(family)), step)),
            *_section("time", _time(step, drawing, recipe, accelerator)),
        ]
    )


def _of_embedded(recipe: Recipe) -> str:
    phases = ", ".join(phase.name for phase in trained_phases(recipe))
    teacher, student = recipe.teacher, recipe.training
    return (
        f"The recipe {recipe.name} downloads nothing and is made for a CPU: minutes, and less than 1 GB of memory.\n"
        f"{recipe.training_seeds} × a teacher of {teacher.steps} steps of {teacher.batch} samples, then {phases}: "
        f"{student.steps} steps of {student.batch} each. Nothing was written."
    )


def _hashing(family) -> dict[str, str]:
    """Hash the model's weights, or remember it; what that took, if it took long."""
    started = time.perf_counter()
    _ = family.found.fingerprint
    seconds = time.perf_counter() - started
    where = "the only thing that is kept of a dry run, in huggingface_hub's cache of assets"
    return {"weights hashed": f"in {seconds:.0f} s, once for this file ({where})"} if seconds > 1 else {}


# ---- data ----


def _planned(family) -> tuple[Plan, Path]:
    """What the data give and the cache lacks, and the cache's folder."""
    data, settings = family.recipe.data, Settings.of(family.recipe.data, family.resolution)
    mark = fingerprint(identity(settings, Encoders(family, family.device).fingerprint))
    folder = Path(data.cache or Path("outputs") / "cache") / mark
    return make_plan(open_source(data), settings, folder, mark, family.recipe.validation.prompts), folder


# ---- what is said ----


def _section(title: str, lines: Mapping[str, str]) -> list[str]:
    return ["", title, *(f"  {name:24}{said}" for name, said in lines.items())]


def _model(family, task: TrajectoryDistillation) -> dict[str, str]:
    recipe, trained = family.recipe, task.trainable()
    network = sum(p.numel() for n, p in task.student.network.named_parameters() if ".lora_" not in n)
    layers = sum(".lora_A." in name for name in trained)
    lora = f"LoRA of rank {recipe.student.rank} on {layers} layers"
    count = sum(p.numel() for p in trained.values())
    zero = ", zero terminal SNR" if family.zero_terminal_snr else ""
    return {
        "path": str(recipe.model.path),
        "family": f"{recipe.family} ({family.found.reason})",
        "prediction": f"{family.prediction}{zero}",
        "network": f"{network:,} parameters, {recipe.model.dtype}",
        "trained": f"{lora if layers else 'the whole network'}: {count:,} parameters, fp32",
    }


def _data(plan: Plan, recipe: Recipe, accelerator: Accelerator) -> dict[str, str]:
    training, epoch = recipe.training, sum(row.repeats for row in plan.rows)
    sizes: dict[Size, int] = {}
    for row in plan.rows:
        sizes[row.bucket] = sizes.get(row.bucket, 0) + row.repeats
    most = sorted(sizes.items(), key=lambda of: (-of[1], of[0]))
    shown = ", ".join(f"{size.width}×{size.height}: {count}" for size, count in most[:5])
    share, processes = share_of(recipe, accelerator), accelerator.num_processes
    split = f"{processes} processes × {passes(training.batch, training.accumulation, processes)} passes of {share}"
    return {
        "items": f"{len(plan.rows):,}, {epoch:,} with repeats, {len(plan.captions):,} captions; "
        f"{len(plan.skipped):,} skipped",
        "buckets": f"{len(sizes)} ({shown}{', …' if len(sizes) > 5 else ''})",
        "steps": f"{training.steps:,} of {training.batch} samples ({split})",
        "epochs": f"{training.steps * training.batch / epoch:,.1f}",
    }


def _memory(step: Step, task: TrajectoryDistillation, accelerator: Accelerator) -> dict[str, str]:
    recipe = task.recipe
    *parts, (_, activations) = step.memory.items()
    how = "at the peak, measured" if step.measured else "at the peak, of the tensors that lived; kernels' own on top"
    lines = {name: human_size(n_bytes) for name, n_bytes in parts}
    lines |= {"activations": f"{human_size(activations)} {how}", "together": human_size(sum(step.memory.values()))}
    if recipe.memory.shard:
        each = human_size(sum(held for _, held in parts) / accelerator.num_processes)
        lines["memory.shard"] = f"{each} in each of {accelerator.num_processes} processes, and the activations"
    if recipe.objective.pairs:
        kept = kept_bytes(recipe, task.family.data.latent_shape, accelerator.num_processes)
        lines["teacher pairs"] = f"{human_size(kept)} in main memory"
    return lines


def _memory_besides(family, largest: Size, step: Step) -> dict[str, str]:
    """What there is on a GPU while the data are encoded, and while validation pictures are decoded."""
    count = f"{family.recipe.data.encode_batch} of {largest.width}×{largest.height}"
    counts = {"captions": f"{CAPTIONS} captions", "pictures": count, "prompts": count}
    try:
        needs, grid = encoding_needs(family, largest), drawing_need(family)
    except Exception as error:  # torch promises nothing of tensors without values, and the rest stands without them
        return {"not known": f"this torch, {torch.__version__}, can't work it out ({type(error).__name__}: {error})"}
    lines = {f"encoding {name}": _needed(need, f"for {counts[name]}") for name, need in needs.items()}
    if family.recipe.validation.every:
        beside = sum(n for name, n in step.memory.items() if name not in ("gradients", "activations"))
        whole = human_size(sum(grid) + beside)
        lines["decoding a grid"] = f"{_needed(grid, 'for one picture')}; {whole} with what the training holds"
    return lines


def _needed(need: Need, what: str) -> str:
    weights, working = map(human_size, need)
    return f"{human_size(sum(need))}: weights {weights}, {working} {what}"


def _disk(task: TrajectoryDistillation, cache: Path, wanted: Estimate, step: Step) -> dict[str, str]:
    recipe, trained = task.recipe, task.trainable()
    state = checkpoint_bytes(task, step)
    value = 2 if recipe.student.dtype == "fp16" else 4
    file = sum(p.numel() for p in trained.values()) * value
    kept = recipe.checkpoint.keep
    missing = f"{wanted.pictures:,} pictures and {wanted.captions:,} captions are to be encoded"
    lines = {
        "cache": f"{human_size(wanted.n_bytes)} ({missing}) in {cache}",
        "checkpoints": f"{human_size(state * (kept + 1))} at most ({kept} kept and one being written, "
        f"{human_size(state)} each)",
    }
    if recipe.student.kind == "lora":
        lines["LoRAs"] = (
            f"{human_size(file * (kept + 1))} ({kept} at checkpoints and the last, {human_size(file)} each)"
        )
    else:
        lines["network"] = human_size(file)
    return lines


def checkpoint_bytes(task: TrajectoryDistillation, step: Step) -> int:
    """Of one checkpoint: weights, optimiser and averages."""
    averages = [average for average in (task.saved, task.target_ema) if average]
    held = sum(n_bytes_of(average.weights.values()) for average in averages)
    return held + step.memory["what is trained"] + step.memory["optimiser"]


class Drawing(NamedTuple):
    """What the teacher still has to draw of prompts: an evaluation's seconds, for how many pictures it is; the
    evaluations of a process; pictures of all together."""

    seconds: float
    batch: int
    evaluations: int
    pictures: int


def _drawing(plan: Plan, family, accelerator: Accelerator) -> Drawing | None:
    """What is missing in the cache of pictures that the teacher makes, one evaluation timed; None for others."""
    if not plan.generated:
        return None
    data, sizes = family.recipe.data, [len(block.keys) for block in plan.pictures]
    if not sizes:
        return Drawing(0.0, 0, 0, 0)
    batch = min(data.encode_batch, max(sizes))
    passes = sum(ceil(size / batch) for size in sizes[:: accelerator.num_processes])  # the first process has the most
    return Drawing(guided_evaluation(family, batch), batch, data.teacher_steps * passes, sum(sizes))


def _time(step: Step, drawing: Drawing | None, recipe: Recipe, accelerator: Accelerator) -> dict[str, str]:
    runs, steps = recipe.training_seeds * len(trained_phases(recipe)), recipe.training.steps
    anew = min(steps, recipe.objective.pairs or steps)
    total = (step.seconds * anew + step.again * (steps - anew)) * runs
    many = f" × {runs} students" if runs > 1 else ""
    lines = {"one step": f"{step.seconds:.3g} s, one timed on {accelerator.device}"}
    if anew < steps:
        lines["with its pairs kept"] = f"{step.again:.3g} s, all after the first {anew:,}"
    what = ""
    if drawing and drawing.pictures:
        took = drawing.seconds * drawing.evaluations
        lines["training"] = f"{_duration(total)} for {steps:,} steps{many}"
        lines["drawing the prompts"] = (
            f"{_duration(took)}, before it: {drawing.pictures:,} pictures that the cache lacks, {drawing.batch} at a "
            f"time in {recipe.data.teacher_steps} guided evaluations of {drawing.seconds:.3g} s, one timed"
        )
        total, what = total + took, " and the drawing"
    elif drawing:
        lines["drawing the prompts"] = "none, the cache has them all"
    return lines | {"in all": f"{_duration(total)} for {steps:,} steps{many}{what}; encoding and grids not counted"}


def _duration(seconds: float) -> str:
    minutes = ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
