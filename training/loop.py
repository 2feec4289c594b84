"""The training loop, on accelerate: teachers and students are trained by the same lines.

A task is a module whose ``forward(batch)`` gives one loss per sample, with

- ``trainable() -> {name: parameter}``, what is optimised and checkpointed,
- ``draw(step, part) -> batch``, the samples ``part`` of the global batch, from the step's number alone,
- ``after_step()``, moving averages; ``extra_state()`` and ``load_extra_state(state)`` of them.

Since a step's batch depends on nothing but its number, resuming needs weights, optimiser and averages, and two
processes compute what one does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, send_to_device
from tqdm.auto import tqdm

from . import checkpoint
from .draws import WHOLE
from .sharding import prepared, shards_of
from .stopping import LossGuard, Stop


@dataclass(frozen=True)
class LoopSettings:
    """Optimisation of one phase; AdamW with warm-up, then constant or cosine to 0.

    Attributes:
        steps: optimiser steps.  batch: samples per step, over all processes and accumulation steps.
        accumulation: backward passes of a step, over all processes.
        every: steps between checkpoints, 0 for none but at a stop.  keep: how many are kept.
        explode: loss over its running median that stops the run.  clip: of the gradient's norm, 0 for none.
        optimizer: "adamw", or "adamw8bit" with moments of 8 bits.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    warmup: int = 0
    schedule: str = "cosine"
    clip: float = 1.0
    accumulation: int = 1
    every: int = 0
    keep: int = 2
    explode: float = 1000.0
    optimizer: str = "adamw"

    def lr_factor(self, step: int) -> float:
        """The learning rate's factor at a step: linear warm-up, times cosine decay."""
        rise = min(1.0, (step + 1) / self.warmup) if self.warmup else 1.0
        return rise * (0.5 + 0.5 * math.cos(math.pi * step / self.steps) if self.schedule == "cosine" else 1.0)


class Interrupted(Exception):
    """A signal stopped the run at a step's end; ``checkpoint`` is where it goes on."""

    def __init__(self, phase: str, step: int, path: Path) -> None:
        super().__init__(f"{phase} was stopped after step {step}; it goes on from {path} with --resume")
        self.checkpoint = path


class Hook(Protocol):
    """What looks on while a phase runs, on the processes that it is given to, which is the main one where the student
    is not in shards; it must leave weights and random states as they are."""

    def on_step(self, step: int, loss: float, lr: float, norm: float | None) -> None:
        """After ``step`` optimiser steps; the gradient's norm before clipping is None under fp16's scaler."""

    def on_checkpoint(self, step: int) -> None:
        """After a step's checkpoint was written."""


@dataclass
class Curve:
    """The mean loss of each step, and the seconds they took, over all the processes that a run was resumed in."""

    loss: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def shown(self, points: int = 200) -> dict[str, list[float]]:
        """Means over up to ``points`` stretches of equal length, for a plot: {"step": …, "loss": …}."""
        width = max(1, math.ceil(len(self.loss) / points))
        parts = [self.loss[i : i + width] for i in range(0, len(self.loss), width)]
        return {"step": [i * width + len(p) for i, p in enumerate(parts)], "loss": [sum(p) / len(p) for p in parts]}


def train(
    task: torch.nn.Module,
    settings: LoopSettings,
    accelerator: Accelerator,
    folder: Path,
    phase: str,
    stop: Stop | None = None,
    hooks: Sequence[Hook] = (),
) -> Curve:
    """Train a task to its last step, from its newest checkpoint in ``folder`` if there is one.

    Raises:
        ValueError: the batch can't be shared evenly; an optimiser that is not installed.
        Interrupted: ``stop`` was set by a signal; a checkpoint was written.
        TrainingDiverged: the loss is not finite or exploded.
        CheckpointError: a checkpoint could not be written; the ones before are intact.
    """
    check_shares(settings, accelerator.num_processes)
    folder.mkdir(parents=True, exist_ok=True)
    model = prepared(task, accelerator)
    optimizer = accelerator.prepare(make_optimizer(list(task.trainable().values()), settings))
    guard, curve = LossGuard(settings.explode), Curve()
    first, last_good = _restore(folder, task, optimizer, accelerator, guard, curve)
    shown = accelerator.is_main_process
    with tqdm(total=settings.steps, initial=first, desc=phase, unit="step", disable=not shown) as progress:
        for step in range(first, settings.steps):
            started = time.monotonic()
            loss, norm = _step(model, task, step, settings, accelerator, optimizer, guard, last_good)
            task.after_step()
            curve.loss.append(loss)
            curve.seconds += time.monotonic() - started
            progress.set_postfix(loss=f"{loss:.4g}", refresh=False)
            progress.update()
            done, stopped = step + 1, any_process(accelerator, stop is not None and stop.requested)
            for hook in hooks:
                hook.on_step(done, loss, settings.lr * settings.lr_factor(step), norm)
            if stopped or done == settings.steps or (settings.every and done % settings.every == 0):
                last_good = _save(folder, done, task, optimizer, accelerator, guard, curve, settings.keep)
                for hook in hooks:
                    hook.on_checkpoint(done)
            if stopped and done < settings.steps:
                raise Interrupted(phase, done, last_good)
    return curve


def make_optimizer(parameters: list[torch.nn.Parameter], settings: LoopSettings) -> torch.optim.Optimizer:
    """AdamW, its moments in 32 or 8 bits.

    Raises:
        ValueError: 8 bits are asked for and bitsandbytes is not installed.
    """
    options = {"lr": settings.lr, "weight_decay": settings.weight_decay, "betas": (0.9, 0.99)}
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, **options, fused=True)
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ValueError(
            f"memory.optimizer adamw8bit needs bitsandbytes, which can't be imported ({error}): pip install "
            "bitsandbytes, or use adamw"
        ) from error
    return AdamW8bit(parameters, **options)


def _step(model, task, step, settings, accelerator, optimizer, guard, last_good) -> tuple[float, float | None]:
    """One optimiser step over the global batch: its mean loss over all processes, and the gradient's norm."""
    for group in optimizer.param_groups:
        group["lr"] = settings.lr * settings.lr_factor(step)
    # for networks that draw themselves (dropout): a resumed run draws the same
    torch.manual_seed(step * accelerator.num_processes + accelerator.process_index)
    total = torch.zeros((), device=accelerator.device)
    parts = _parts(settings, accelerator)
    for part in parts:
        share = send_to_device(task.draw(step, part), accelerator.device, non_blocking=True)
        with nullcontext() if part is parts[-1] else accelerator.no_sync(model):
            loss = model(share).mean() / len(parts)
            accelerator.backward(loss)
        total += loss.detach()
    limit, shards = settings.clip or math.inf, shards_of(task)
    if shards:
        norm = shards.clip(limit, accelerator)
    else:
        norm = accelerator.clip_grad_norm_(list(task.trainable().values()), limit)
    norm = None if accelerator.scaler else float(norm)  # fp16's scaler skips a step whose gradient overflows
    mean = accelerator.reduce(total, "mean").item()
    guard.check(step + 1, mean, norm, lambda: _describe(task.draw(step, WHOLE)), last_good)
    optimizer.step()
    optimizer.zero_grad()
    return mean, norm


def passes(batch: int, accumulation: int, processes: int) -> int:
    """Backward passes of each process in a step: its share of ``accumulation``, or the next number that divides its
    share of the batch."""
    least = math.ceil(accumulation / processes)
    return next((n for n in range(least, batch // processes + 1) if batch % (processes * n) == 0), least)


def _parts(settings: LoopSettings, accelerator: Accelerator) -> list[slice]:
    """This process's parts of the global batch, one for each of its backward passes."""
    count = passes(settings.batch, settings.accumulation, accelerator.num_processes)
    size = settings.batch // (accelerator.num_processes * count)
    first = accelerator.process_index * size * count
    return [slice(start, start + size) for start in range(first, first + size * count, size)]


def check_shares(settings: LoopSettings, processes: int) -> None:
    """Refuse a batch that can't be shared evenly by the processes, with a ValueError."""
    count = passes(settings.batch, settings.accumulation, processes)
    if settings.batch % (processes * count):
        raise ValueError(
            f"a batch of {settings.batch} can't be shared evenly by {processes} processes × {count} "
            f"accumulation steps: use a multiple of {processes * count}"
        )


def _describe(batch) -> str:
    """A batch for an error message: which rows of the data, at which times."""
    fields = batch if isinstance(batch, dict) else batch._asdict()
    t = fields["t"] if "t" in fields else fields["teacher"].t
    return f"rows {fields['rows'].tolist()}, start times {[round(v, 4) for v in t.t.flatten().tolist()]}"


def any_process(accelerator: Accelerator, flag: bool) -> bool:
    """Whether any process has the flag set; the same answer on all, so that they stop at one step."""
    if accelerator.num_processes == 1:
        return flag
    return bool(accelerator.reduce(torch.tensor(float(flag), device=accelerator.device), "sum").item())


# -- checkpoints -----------------------------------------------------------------------------------------------------


def _save(folder, step, task, optimizer, accelerator, guard, curve, keep) -> Path | None:
    """Write a checkpoint on the main process, of what all have; all wait for it and are told its path."""
    state = {
        "weights": {name: p.detach() for name, p in task.trainable().items()},
        "optimizer": optimizer.state_dict(),
        "extra": task.extra_state(),
        "guard": guard.state_dict(),
        "loss": list(curve.loss),
        "seconds": curve.seconds,
        "scaler": accelerator.scaler.state_dict() if accelerator.scaler else {},
    }
    shards, path = shards_of(task), None
    if shards:
        state = shards.gathered(state)
    if accelerator.is_main_process:
        path = checkpoint.save(folder, step, state, keep)
    return broadcast_object_list([path])[0]


def _restore(folder, task, optimizer, accelerator, guard, curve) -> tuple[int, Path | None]:
    """Load the newest checkpoint into everything; (the step to go on with, its path)."""
    shards = shards_of(task)  # then one process alone reads it and has it whole
    found = None if shards and not accelerator.is_main_process else checkpoint.newest(folder)
    path, state = found or (None, None)
    if shards:
        path, state = broadcast_object_list([path])[0], shards.spread(state)
    if path is None:
        return 0, None
    with torch.no_grad():
        for name, p in task.trainable().items():
            p.copy_(state["weights"][name])
    optimizer.load_state_dict(state["optimizer"])
    task.load_extra_state(state["extra"])
    guard.load_state_dict(state["guard"])
    curve.loss[:], curve.seconds = state["loss"], state["seconds"]
    if accelerator.scaler and state["scaler"]:
        accelerator.scaler.load_state_dict(state["scaler"])
    return len(curve.loss), path
