"""One optimiser step, timed and weighed on the device that it runs on."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

import torch
from accelerate import Accelerator
from accelerate.utils import send_to_device
from torch import Tensor

from .loop import make_optimizer, passes
from .objective import TrajectoryDistillation
from .phases import student_settings
from .recipe import Recipe


class Step(NamedTuple):
    """What one optimiser step took on one device.

    Attributes:
        seconds: of all its backward passes, the optimiser and the averages.
        memory: bytes on the device by what they are for, activations last.
        measured: whether the activations are the device's peak beyond the rest, or those saved for the backward pass.
    """

    seconds: float
    memory: dict[str, int]
    measured: bool


def one_step(task: TrajectoryDistillation, accelerator: Accelerator) -> Step:
    """Time an optimiser step, after a first one in which the saved activations are counted.

    Of the accumulation steps, which are alike, one is done and taken as many times.
    """
    recipe, cuda = task.recipe, accelerator.device.type == "cuda"
    optimizer = make_optimizer(list(task.trainable().values()), student_settings(recipe))
    with SavedActivations([*task.parameters(), *task.buffers()]) as saved:
        loss = _loss(task, accelerator, 0)
    loss.backward()
    _update(task, optimizer)
    if cuda:
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    started = _now(cuda)
    _loss(task, accelerator, 1).backward()
    passed = _now(cuda)
    memory = device_bytes(task, optimizer)
    _update(task, optimizer)
    training = recipe.training
    count = passes(training.batch, training.accumulation, accelerator.num_processes)
    seconds = (passed - started) * count + _now(cuda) - passed
    activations = saved.n_bytes
    if cuda:
        activations = torch.cuda.max_memory_allocated(accelerator.device) - sum(memory.values())
    elif recipe.memory.offload:
        activations = 0  # they wait in main memory
    return Step(seconds, memory | {"activations": activations}, cuda)


def _loss(task: TrajectoryDistillation, accelerator: Accelerator, step: int) -> Tensor:
    share = send_to_device(task.draw(step, slice(0, share_of(task.recipe, accelerator))), accelerator.device)
    with accelerator.autocast():
        return task(share).mean()


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


class SavedActivations(torch.autograd.graph.saved_tensors_hooks):
    """Counts what autograd saves inside the block: ``n_bytes`` of storages, each once, without those that are there.

    Args:
        there: tensors whose storages are not counted: weights.
    """

    def __init__(self, there: Iterable[Tensor]) -> None:
        self.n_bytes, self._seen = 0, {tensor.untyped_storage().data_ptr() for tensor in there}
        super().__init__(self._count, lambda tensor: tensor)

    def __enter__(self) -> SavedActivations:
        super().__enter__()
        return self

    def _count(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in self._seen:
            self._seen.add(storage.data_ptr())
            self.n_bytes += storage.nbytes()
        return tensor


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
