"""One network in memory, three parts: teacher, student and target (arXiv 2402.19159, Algorithms 1 and 2).

With a LoRA the teacher is the frozen base with its adapters off, the student the base with adapters on, the target the
same adapters under no_grad or their moving average. With full fine-tuning the teacher is a frozen copy of the weights.
TCF(S+) adds an embedding of the target time s to the time embedding, after its MLP, of student and target.
In shards (`sharding`) other weights than the student's change places with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import contextmanager, nullcontext

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from torch.func import functional_call

from tcd_core.target_embedding import TargetTimeEmbedding

from .sharding import Shards

Condition = Mapping[str, Tensor]  # what a network is told besides x and t: tensors whose first dimension is the batch
NetworkOutput = Callable[
    [nn.Module, Tensor, Tensor, Condition], Tensor
]  # (network, x, times (B,), condition) -> output


class Student(nn.Module):
    """The network to be distilled, callable as student; `teacher` and `target` call the other two parts.

    Args:
        network: a diffusers UNet, pretrained; it is changed in place.
        output: how the family calls it: ``output(network, x, times, condition)``, times shape (B,), float32.
        kind: "lora" trains adapters on the frozen network, "full" the network itself.
        lora_targets, rank, alpha: which modules get an adapter, ΔW = (alpha / rank) B A.
        s_plus: add a `TargetTimeEmbedding`, trained with the rest.
        mesh: the processes that share all of it (kind "full"); None: this one has the whole.
    """

    def __init__(
        self,
        network: nn.Module,
        output: NetworkOutput,
        *,
        kind: str = "lora",
        lora_targets: list[str] | None = None,
        rank: int = 16,
        alpha: float = 16.0,
        s_plus: bool = False,
        mesh=None,
    ) -> None:
        super().__init__()
        self.output, self.kind = output, kind
        self.network = network.requires_grad_(kind == "full")
        if kind == "lora":
            config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=lora_targets, init_lora_weights=True)
            inject_adapter_in_model(config, network)
            for parameter in network.parameters():
                if parameter.requires_grad:  # adapters in float32 on any base: AdamW's steps are too small for bf16
                    parameter.data = parameter.data.float()
        self.target_embedding = TargetTimeEmbedding(*time_embedding_widths(network)) if s_plus else None
        self._target_time = TargetTime(network, self.target_embedding) if s_plus else None
        modules = {"network": network} | ({"target_embedding": self.target_embedding} if s_plus else {})
        self.shards = Shards(modules, mesh) if mesh is not None else None
        own = {name: p for name, p in self.named_parameters() if p.requires_grad}
        self._trainable = self.shards.parts if self.shards else own
        copied = {name: p for name, p in self._trainable.items() if kind == "full" and name.startswith("network.")}
        self._teacher = {name: p.detach().clone() for name, p in copied.items()}
        self._adapted = [module for module in network.modules() if isinstance(module, BaseTunerLayer)]

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name: adapters (or all weights, or this process's parts of them)
        and the embedding of s."""
        return self._trainable

    def forward(self, x: Tensor, times: Tensor, s: Tensor, condition: Condition) -> Tensor:
        """The student's output at (x, t) for target time s; times and s shape (B,)."""
        with self._target_time(s) if self._target_time else nullcontext():
            return self.output(self.network, x, times, condition)

    @torch.no_grad()
    def target(self, weights: Mapping[str, Tensor] | None, x: Tensor, times: Tensor, s: Tensor, c: Condition) -> Tensor:
        """The output with other trainable weights (a moving average) in place of the student's; None: its own."""
        if not weights:
            return self(x, times, s, c)
        if self.shards:
            with self.shards.exchanged(weights):
                return self(x, times, s, c)
        return functional_call(self, dict(weights), (x, times, s, c))

    @torch.no_grad()
    def teacher(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The teacher's output."""
        if self.shards:
            with self.shards.exchanged(self._teacher):
                return self.output(self.network, x, times, condition)
        if self.kind == "full":
            return functional_call(_Caller(self.network, self.output), self._teacher, (x, times, condition))
        with self._adapters_off():
            return self.output(self.network, x, times, condition)

    def _apply(self, fn, recurse=True):
        """Moves and casts (`to`, `half`, …) take the frozen copy of full fine-tuning along."""
        self._teacher = {name: fn(p) for name, p in self._teacher.items()}
        return super()._apply(fn, recurse)

    @contextmanager
    def _adapters_off(self):
        for layer in self._adapted:
            layer._disable_adapters = True  # enable_adapters() also walks all parameters, to set requires_grad
        try:
            yield
        finally:
            for layer in self._adapted:
                layer._disable_adapters = False


class TargetTime:
    """Adds a target time's embedding to a diffusers UNet's time embedding, after its MLP, inside ``with self(s):``.

    Args:
        network: a UNet2DConditionModel; it gets a hook, which does nothing outside the block.
        embedding: TCF(S+)'s module, of the network's widths.
    """

    def __init__(self, network: nn.Module, embedding: TargetTimeEmbedding) -> None:
        self.s: Tensor | None = None

        def add(module, arguments, emb: Tensor) -> Tensor:
            return emb if self.s is None else emb + embedding(self.s).to(emb.dtype)

        network.time_embedding.register_forward_hook(add)

    @contextmanager
    def __call__(self, s: Tensor):
        """Target times, shape (B,), in the schedule's units."""
        self.s = s
        try:
            yield
        finally:
            self.s = None


def time_embedding_widths(network: nn.Module) -> tuple[int, int]:
    """(width of the sinusoid, width of the time embedding) of a diffusers UNet."""
    return network.time_embedding.linear_1.in_features, network.time_embedding.linear_2.out_features


class _Caller(nn.Module):
    """A network and how it is called, as one module for `functional_call`."""

    def __init__(self, network: nn.Module, output: NetworkOutput) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        return self.output(self.network, x, times, condition)


class Ema:
    """Exponential moving average of named weights, ``m ← μ m + (1 − μ) θ``, in float32, never part of a graph.

    Args:
        weights: θ, by name; the average starts from them.
        decay: μ in [0, 1). 0 follows θ at once.
        warm_up: use ``min(μ, (1 + n) / (10 + n))`` at update n, so that the start is forgotten.
        offload: keep it in main memory, wherever θ is.
    """

    def __init__(
        self, weights: Mapping[str, Tensor], decay: float, warm_up: bool = False, offload: bool = False
    ) -> None:
        self.decay, self.warm_up, self.offload, self.updates = decay, warm_up, offload, 0
        self.weights = {name: self._mine(p.detach()).clone() for name, p in weights.items()}

    def _mine(self, weight: Tensor) -> Tensor:
        return weight.to("cpu" if self.offload else weight.device, torch.float32)

    @torch.no_grad()
    def update(self, weights: Mapping[str, Tensor]) -> None:
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warm_up else self.decay
        self.updates += 1
        torch._foreach_lerp_(list(self.weights.values()), [self._mine(weights[n]) for n in self.weights], 1 - decay)

    def apply(self, fn: Callable[[Tensor], Tensor]) -> None:
        """Move along with a module: what its `_apply` does to parameters."""
        if not self.offload:
            self.weights = {name: fn(weight) for name, weight in self.weights.items()}

    def state_dict(self) -> dict:
        return {"updates": self.updates, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.updates = state["updates"]
        for name, weight in self.weights.items():
            weight.copy_(state["weights"][name])
