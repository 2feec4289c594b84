"""``--dry_run``: what a run would take of memory, disk and time, told before it; nothing is written.

Parameters and bytes are counted on the network itself, time on one optimiser step over random latents and conditions of
the right shapes, so that no cache is needed.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from pathlib import Path

import torch
from accelerate import Accelerator
from torch import Tensor

from . import families
from .data import Settings, open_source
from .data.buckets import Size
from .data.cache import Estimate, estimate
from .data.plan import Plan, make_plan
from .data.settings import fingerprint, identity
from .disk import human_size
from .draws import WHOLE
from .families.encoders import TOKENS, Encoders
from .loop import passes
from .objective import TrajectoryDistillation
from .phases import student_phases
from .recipe import Recipe
from .student import Condition
from .timed_step import Step, n_bytes_of, one_step, share_of


def dry_run(recipe: Recipe, accelerator: Accelerator) -> str:
    """What a run of the recipe would take, as lines for people.

    Raises:
        ModelError, DataError: the model or the data can't be used.
        ValueError: 8-bit optimiser without bitsandbytes; a recipe that doesn't go with the model.
    """
    if recipe.family == "digits":
        return _of_digits(recipe)
    family = families.build(recipe)
    family.device = accelerator.device
    plan, cache = _planned(family)
    family.load()
    family.data = RandomData(family, max((row.bucket for row in plan.rows), key=lambda size: size.width * size.height))
    task = TrajectoryDistillation(family, recipe).to(accelerator.device)
    step = one_step(task, accelerator)
    return "\n".join(
        [
            f"Dry run of the recipe {recipe.name}; nothing is written.",
            *_section("model", _model(family, task)),
            *_section("data", _data(plan, recipe, accelerator)),
            *_section(f"memory on the device ({accelerator.device})", _memory(step, recipe)),
            *_section("disk", _disk(task, cache, estimate(plan, bytes_per_caption(family)), step)),
            *_section("time", _time(step, recipe, accelerator)),
        ]
    )


def _of_digits(recipe: Recipe) -> str:
    phases = ", ".join(phase.name for phase in student_phases(recipe))
    teacher, student = recipe.teacher, recipe.training
    return (
        f"The recipe {recipe.name} downloads nothing and is made for a CPU: minutes, and less than 1 GB of memory.\n"
        f"{recipe.training_seeds} × a teacher of {teacher.steps} steps of {teacher.batch} samples, then {phases}: "
        f"{student.steps} steps of {student.batch} each. Nothing was written."
    )


# ---- data ----


def _planned(family) -> tuple[Plan, Path]:
    """What the data give and the cache lacks, and the cache's folder."""
    data, settings = family.recipe.data, Settings.of(family.recipe.data, family.resolution)
    mark = fingerprint(identity(settings, Encoders(family, family.device).fingerprint))
    folder = Path(data.cache or Path("outputs") / "cache") / mark
    return make_plan(open_source(data), settings, folder, mark, family.recipe.validation.prompts), folder


class RandomData:
    """In place of a family's ``data``: noise of the shapes that the cache would give.

    Args:
        size: of the pictures, px.
    """

    def __init__(self, family, size: Size) -> None:
        self.family, self.size = family, size
        self.widths = text_widths(family)

    def __call__(self, step: int, count: int, seed: int, stream: str, part: slice = WHOLE) -> tuple:
        rows = torch.arange(count)[part]
        width, height = self.size.width, self.size.height
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(rows), 6)
        latents = torch.randn(len(rows), 4, height // 8, width // 8)
        return rows, latents, self._told(sizes), self._told(sizes)

    def _told(self, sizes: Tensor) -> Condition:
        shapes = {"encoder_hidden_states": (TOKENS,), "pooled": ()}
        texts = {name: torch.randn(len(sizes), *shapes[name], width) for name, width in self.widths.items()}
        return self.family.told(texts, sizes)


def text_widths(family) -> dict[str, int]:
    """Channels of what the network is told of a caption: per token, and of SDXL also as a whole."""
    config = family.found.configs["unet"]
    widths = {"encoder_hidden_states": config["cross_attention_dim"]}
    if family.spec.sized:
        widths["pooled"] = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return widths


def bytes_per_caption(family) -> int:
    """Of a caption's embeddings in the cache, which are in float16."""
    widths = text_widths(family)
    return 2 * (TOKENS * widths["encoder_hidden_states"] + widths.get("pooled", 0))


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


def _memory(step: Step, recipe: Recipe) -> dict[str, str]:
    *parts, (_, activations) = step.memory.items()
    if step.measured:
        how = "at the peak, measured"
    elif recipe.memory.offload:
        how = "saved ones wait in main memory (memory.offload)"
    else:
        how = "saved for the backward pass, counted; a layer's working memory comes on top"
    together = sum(step.memory.values())
    lines = {name: human_size(n_bytes) for name, n_bytes in parts}
    return lines | {"activations": f"{human_size(activations)} {how}", "together": human_size(together)}


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


def _time(step: Step, recipe: Recipe, accelerator: Accelerator) -> dict[str, str]:
    runs = recipe.training_seeds * len(student_phases(recipe))
    total = step.seconds * recipe.training.steps * runs
    many = f" × {runs} students" if runs > 1 else ""
    return {
        "one step": f"{step.seconds:.3g} s, one timed on {accelerator.device}",
        "in all": f"{_duration(total)} for {recipe.training.steps:,} steps{many}; encoding and grids not counted",
    }


def _duration(seconds: float) -> str:
    minutes = ceil(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
