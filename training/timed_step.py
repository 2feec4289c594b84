"""One optimiser step, timed and weighed on the device that it runs on, and one evaluation of the teacher, timed."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import nullcontext
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from .live_tensors import LiveTensors
from .loop import make_optimizer, passes
from .objective import TrajectoryDistillation
from .phases import student_settings
from .recipe import Recipe
from .samplers import guided


class Step(NamedTuple):
    """What one optimiser step took on one device.

    Attributes:
        seconds: of all its backward passes, the optimiser and the averages.
        memory: bytes on the device by what they are for, activations last: the peak beyond the rest.
        measured: whether the peak is the device's, or that of the tensors that lived.
        again: seconds where the teacher's share is known (objective.pairs).
    """

    seconds: float
    memory: dict[str, int]
    measured: bool
    again: float = 0.0


def one_step(task: TrajectoryDistillation, accelerator: Accelerator) -> Step:
    """Time an optimiser step, after a first one in which on a CPU the tensors that live are counted.

    Of the accumulation steps, which are alike, one is done and taken as many times; its gradients are added to others.
    """
    recipe, cuda = task.recipe, accelerator.device.type == "cuda"
    training = recipe.training
    count = passes(training.batch, training.accumulation, accelerator.num_processes)
    optimizer = make_optimizer(list(task.trainable().values()), student_settings(recipe))
    _zeros_as_gradients(task, count > 1)
    peak = _counted(task, accelerator)
    _update(task, optimizer)
    _zeros_as_gradients(task, count > 1)
    if cuda:
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    started = _now(cuda)
    _loss(task, accelerator, 1).backward()
    passed = _now(cuda)
    memory = device_bytes(task, optimizer)
    if cuda:
        activations = torch.cuda.max_memory_allocated(accelerator.device) - sum(memory.values())
    else:
        activations = peak - (memory["gradients"] if count == 1 else 0)
    _update(task, optimizer)
    rest = _now(cuda) - passed
    again = _again(task, accelerator) * count + rest if recipe.objective.pairs else 0.0
    seconds = (passed - started) * count + rest
    return Step(seconds, memory | {"activations": max(0, activations)}, cuda, again)


def _zeros_as_gradients(task: TrajectoryDistillation, there: bool) -> None:
    """Gradients of a pass before, where there is one in a step."""
    for parameter in task.trainable().values() if there else ():
        parameter.grad = torch.zeros_like(parameter)


def _counted(task: TrajectoryDistillation, accelerator: Accelerator) -> int:
    """A backward pass; on a CPU the most bytes that lived of what it made, without what a GPU would leave in main
    memory (memory.offload)."""
    with nullcontext() if accelerator.device.type == "cuda" else LiveTensors() as live:
        if live and task.recipe.memory.offload:
            task._saved_activations = live.offloading
        _loss(task, accelerator, 0).backward()
    vars(task).pop("_saved_activations", None)
    return live.peak if live else 0


def _again(task: TrajectoryDistillation, accelerator: Accelerator) -> float:
    """Seconds of a pass whose teacher pairs are known."""
    cuda = accelerator.device.type == "cuda"
    started = _now(cuda)
    _loss(task, accelerator, 0).backward()
    return _now(cuda) - started


def _loss(task: TrajectoryDistillation, accelerator: Accelerator, step: int) -> Tensor:
    share = send_to_device(task.draw(step, slice(0, share_of(task.recipe, accelerator))), accelerator.device)
    with accelerator.autocast():
        return task(share).mean()


def guided_evaluation(family, count: int) -> float:
    """Seconds of the teacher's second guided evaluation of ``count`` latents, as it draws prompts; its network is
    on the family's device."""
    _, x, condition, unconditional = send_to_device(family.data(0, count, 0, "drawing"), family.device)
    both = {name: torch.cat([c, unconditional[name]]) for name, c in condition.items()}
    teacher = guided(lambda x, times: family.output(family.network, x, times, both), family.recipe.data.teacher_w)
    cuda = family.device.type == "cuda"
    for _ in range(2):
        started = _now(cuda)
        with torch.no_grad():
            teacher(x, 500.0, 0.0)
        seconds = _now(cuda) - started
    return seconds


def share_of(recipe: Recipe, accelerator: Accelerator) -> int:
    """Samples of one backward pass on one device."""
    training, processes = recipe.training, accelerator.num_processes
    return max(1, training.batch // (passes(training.batch, training.accumulation, processes) * processes))


def _update(task: TrajectoryDistillation, optimizer: torch.optim.Optimizer) -> None:
    torch.nn.utils.clip_grad_norm_(task.trainable().values(), task.recipe.training.clip or float("inf"))
    optimizer.step()
    optimizer.zero_grad()
    task.after_step()


def _now(cuda: bool) -> float:
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter()


def device_bytes(task: TrajectoryDistillation, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes on the device, by what they are for, between a backward pass and the optimiser's step."""
    trained = list(task.trainable().values())
    frozen = [p for p in task.parameters() if not p.requires_grad]
    averages = [] if task.saved.offload else list(task.saved.weights.values())
    averages += task.target_ema.weights.values() if task.target_ema else []
    teacher = task.student.network.parameters() if task.recipe.student.kind == "full" else []  # as many in a copy
    moments = [of for state in optimizer.state.values() for of in state.values() if torch.is_tensor(of)]
    return {
        "frozen network": n_bytes_of([*frozen, *task.buffers(), *teacher]),
        "what is trained": n_bytes_of(trained),
        "gradients": n_bytes_of(p.grad for p in trained if p.grad is not None),
        "optimiser": n_bytes_of(moments),
        "averages (EMA)": n_bytes_of(averages),
    }


def n_bytes_of(tensors: Iterable[Tensor]) -> int:
    """What tensors take together, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
