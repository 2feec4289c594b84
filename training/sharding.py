"""Full fine-tuning in shards (FSDP): of weights, gradients, moments and averages each process holds its part.

A unit of the network (diffusers' own blocks, and the rest) has its weights gathered while it computes and no longer;
gradients come back as the mean over all processes, of each process's part. Optimiser and averages see nothing of it:
what they are given are plain parameters, the parts. Teacher, EMA target and averaged student need no network of their
own: their parts change places with the student's while they are evaluated.

Checkpoints and saved networks hold whole tensors, gathered by the main process: as those of one process.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator, init_empty_weights
from accelerate.utils import broadcast_object_list
from torch import Tensor, distributed, nn

from .recipe import Recipe


def mesh_of(recipe: Recipe, accelerator: Accelerator):
    """The processes that share a student, a `DeviceMesh` of one dimension; None where it is not shared out.

    Raises:
        ValueError: the installed torch has no `fully_shard`.
    """
    if not recipe.memory.shard or accelerator.num_processes == 1:
        return None
    check_torch()
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh(accelerator.device.type, (accelerator.num_processes,))


def check_torch() -> None:
    """Whether torch can do it; a ValueError if not."""
    try:
        from torch.distributed.fsdp import fully_shard  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f"memory.shard needs torch 2.6 or newer, this is {torch.__version__}: update torch, or leave it out"
        ) from error


def check_launch(accelerator: Accelerator) -> None:
    """Refuse accelerate's own ways of sharing a network out, which know nothing of teacher and averages, by a
    ValueError."""
    if (kind := accelerator.distributed_type.value) in ("FSDP", "DEEPSPEED", "MEGATRON_LM"):
        raise ValueError(
            f"accelerate was started with {kind}: start it without (accelerate launch --multi_gpu), and share full "
            "fine-tuning out by --memory.shard"
        )


def shards_of(task: nn.Module) -> Shards | None:
    """The shards of what a task trains; None where each process has it whole."""
    return getattr(task, "shards", None)


def prepared(task: nn.Module, accelerator: Accelerator) -> nn.Module:
    """The task as accelerate prepares it: one in shards has its device, and its gradients are averaged already."""
    if shards_of(task):
        return accelerator.prepare_model(task, device_placement=False, evaluation_mode=True)
    return accelerator.prepare(task)


class Shards:
    """The parts of some modules' parameters that this process holds; the modules are changed in place.

    Args:
        modules: by the names that their parameters' names begin with.
        mesh: the processes; the modules go to its device.

    Attributes:
        parts: by name, plain parameters, which are the network's own memory: what is optimised and averaged.
    """

    def __init__(self, modules: Mapping[str, nn.Module], mesh) -> None:
        for module in modules.values():
            _shard(module, mesh)
        self.mesh, self.rank = mesh, mesh.get_local_rank()
        named = [of for prefix, module in modules.items() for of in module.named_parameters(prefix=prefix)]
        self._shared = dict(named)  # DTensors, which the modules compute with
        self.parts = {name: nn.Parameter(_local(p)) for name, p in named}
        shapes = {name: p.shape for name, p in named}
        self._shapes = shapes | dict(enumerate(shapes.values()))  # an optimiser's state goes by positions

    def clip(self, limit: float, accelerator: Accelerator) -> float:
        """Take over the gradients from the network and scale them down to a norm of ``limit``; the norm before, of all
        processes' parts together. An fp16 scaler's optimiser is made to pass over the step in all or in none."""
        gradients = self._taken()
        square = torch.stack(torch._foreach_norm(gradients)).double().square().sum()
        norm = accelerator.reduce(square, "sum").sqrt().item()
        if accelerator.scaler:
            if not math.isfinite(norm):
                max(gradients, key=Tensor.numel).fill_(math.inf)
            norm /= accelerator.scaler.get_scale()
            accelerator.unscale_gradients()
        torch._foreach_mul_(gradients, min(1.0, limit / (norm + 1e-6)))
        return norm

    def _taken(self) -> list[Tensor]:
        for name, part in self.parts.items():
            shared = self._shared[name]
            part.data, part.grad = _local(shared), None if shared.grad is None else _local(shared.grad)
            shared.grad = None
        return [part.grad for part in self.parts.values() if part.grad is not None]

    @contextmanager
    def exchanged(self, weights: Mapping[str, Tensor]) -> Iterator[None]:
        """Within the block the network has other weights, and ``weights`` hold its own; afterwards both are what they
        were, to the bit. No graph may be recorded in it.

        Args:
            weights: parts by name, of the network's number format; parameters that are not in it stay.
        """
        pairs = [(_local(self._shared[name]), weight) for name, weight in weights.items()]
        _exchange(pairs)
        try:
            yield
        finally:
            _exchange(pairs)

    # ---- whole tensors for files, and back ----

    def gathered(self, state: Any) -> Any:
        """A state that all processes have, with whole tensors, in main memory, in place of parts; others than the main
        process get None in their place."""
        return self._with_parts(state, self._gather)

    def spread(self, state: Any) -> Any:
        """A state that the main process has, on all, with this process's parts in place of whole tensors.

        Args:
            state: plain values and tensors in dicts; processes other than the main one give None.
        """
        tensors: list[Tensor] = []

        def put_aside(tensor: Tensor, shape: torch.Size) -> _Sent:
            tensors.append(tensor)
            return _Sent(tensor.dtype)

        state = broadcast_object_list([self._with_parts(state, put_aside)])[0]
        waiting = iter(tensors)
        return self._with_parts(state, lambda sent, shape: self._scatter(next(waiting, None), sent.dtype, shape))

    def _with_parts(self, value: Any, change, shape: torch.Size | None = None) -> Any:
        """A state with what belongs to a parameter changed: a tensor of as many dimensions under its name or position,
        at any depth."""
        if isinstance(value, dict):
            return {name: self._with_parts(part, change, self._shapes.get(name, shape)) for name, part in value.items()}
        if shape is None or not (isinstance(value, _Sent) or (isinstance(value, Tensor) and value.ndim == len(shape))):
            return value
        return change(value, shape)

    @torch.no_grad()
    def _gather(self, part: Tensor, shape: torch.Size) -> Tensor | None:
        rows = -(-shape[0] // self.mesh.size())  # of each process, but for the last ones
        sent = torch.zeros(rows, *shape[1:], dtype=part.dtype, device=self.mesh.device_type)
        sent[: len(part)] = part
        received = [torch.empty_like(sent) for _ in range(self.mesh.size())] if self.rank == 0 else None
        distributed.gather(sent, received, 0, group=self.mesh.get_group())
        return torch.cat([of.cpu() for of in received])[: shape[0]].clone() if received else None

    def _scatter(self, tensor: Tensor | None, dtype: torch.dtype, shape: torch.Size) -> Tensor:
        device = self.mesh.device_type
        tensor = torch.empty(shape, dtype=dtype, device=device) if tensor is None else tensor.to(device).contiguous()
        distributed.broadcast(tensor, 0, group=self.mesh.get_group())
        rows = -(-shape[0] // self.mesh.size())
        return tensor[self.rank * rows : (self.rank + 1) * rows].clone()


@dataclass(frozen=True)
class _Sent:
    """Stands for a tensor in a state that is sent around: it follows by itself."""

    dtype: torch.dtype


def _shard(module: nn.Module, mesh) -> None:
    """Leave a process its part of each parameter, on the mesh's device. Units are the modules of the classes that
    diffusers keeps whole (`_no_split_modules`), those inside others first, then what is left."""
    from torch.distributed.fsdp import fully_shard

    names = getattr(module, "_no_split_modules", None) or ()
    units = [unit for unit in module.modules() if type(unit).__name__ in names]
    for unit in [*reversed(units), module]:
        # freed after each evaluation, the root too, since then its weights may change places
        fully_shard(unit, mesh=mesh, reshard_after_forward=True)


@torch.no_grad()
def _local(shared: Tensor) -> Tensor:
    """The part that this process holds, on the same memory."""
    return shared.to_local()


@torch.no_grad()
def _exchange(pairs: list[tuple[Tensor, Tensor]]) -> None:
    for one, other in pairs:
        held = one.clone()
        one.copy_(other)
        other.copy_(held)


def network_with(network: nn.Module, weights: Mapping[str, Tensor]) -> nn.Module:
    """A network of a sharded one's kind with whole weights, by their names in it; in main memory."""
    from torch.distributed.fsdp import FSDPModule

    kind = next(of for of in type(network).__mro__ if not issubclass(of, FSDPModule))
    with init_empty_weights():
        made = kind.from_config(network.config)
    made.load_state_dict(weights, assign=True)
    return made
