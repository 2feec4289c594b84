"""A picture's noise follows from its prompt and its seed alone: not from its batch, place in the list, or process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tcd_core import KeyedNoise, Level

from .prompts import Prompt

_START = Level(-1.0, 0.0, 1.0)  # of the initial noise, which arrives at no time of a run


def noise_of(prompts: Sequence[Prompt], seed: int, shape: tuple[int, ...], device: torch.device) -> KeyedNoise:
    """Step noise z(n) of a batch, each row its prompt's own."""
    like = torch.empty((len(prompts), *shape), device=device)
    return KeyedNoise(like, seed, [prompt.key for prompt in prompts])


def start_of(noise: KeyedNoise) -> Tensor:
    """The initial noise of the same rows."""
    return noise(_START)


def generators_of(prompts: Sequence[Prompt], seed: int) -> list[torch.Generator]:
    """For schedulers that draw their own noise: a CPU generator for each row, the same wherever the row stands."""
    mixed = [(prompt.key + 0x9E3779B97F4A7C15 * (seed + 1)) % 2**63 for prompt in prompts]
    return [torch.Generator().manual_seed(number) for number in mixed]
