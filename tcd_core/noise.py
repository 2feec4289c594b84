"""Step noise keyed by (seed, batch item, time): the same at a time, however a run is split, batched or computed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from .levels import Level

_STREAM = 0x54434453  # "TCDS" in ASCII: keeps these streams apart from any other use of the same seed


class KeyedNoise:
    """z ~ N(0, I) for the step that arrives at a level, drawn on the CPU in float32 and copied to the device.

    Each batch item has a stream of its own, seeded by (seed, item, time of arrival). So a run split in two draws what
    the whole run draws, item i of a batch draws the same alone, and CPU and GPU give the same picture.

    Args:
        like: a tensor of the latents' shape (B, …), dtype and device.
        seed: any integer; its lowest 64 bits count.
        items: the B items' numbers in the batch they belong to; 0 … B−1 if None.

    Raises:
        ValueError: as many items as the batch has are needed.
    """

    def __init__(self, like: torch.Tensor, seed: int, items: Sequence[int] | None = None) -> None:
        self.shape, self.dtype, self.device = like.shape, like.dtype, like.device
        self.seed = int(seed) & 0xFFFFFFFFFFFFFFFF
        self.items = list(range(like.shape[0])) if items is None else [int(i) for i in items]
        if len(self.items) != like.shape[0]:
            raise ValueError(f"{len(self.items)} item numbers given for a batch of {like.shape[0]}")

    def __call__(self, n: Level) -> torch.Tensor:
        """z for the step that arrives at level n, shape, dtype and device as ``like``."""
        z = torch.empty(self.shape, dtype=torch.float32, pin_memory=self.device.type == "cuda")
        for row, item in zip(z, self.items, strict=True):
            row.copy_(torch.from_numpy(self._draw(item, n, row.shape)))
        return z.to(self.device, self.dtype, non_blocking=self.device.type == "cuda")

    def _draw(self, item: int, n: Level, shape: torch.Size) -> np.ndarray:
        table, key = _time_key(n)
        words = [_STREAM, table, *_words(self.seed), *_words(item), *_words(key)]
        generator = np.random.Generator(np.random.SFC64(np.random.SeedSequence(words)))
        return generator.standard_normal(tuple(shape), dtype=np.float32)


def _time_key(n: Level) -> tuple[int, int]:
    """(0, t) on the table; elsewhere (1, lambda in 1/10000), far coarser than float32 rounding of sigma."""
    return (0, int(n.t)) if n.t == int(n.t) else (1, round(n.lam * 10_000))


def _words(number: int) -> tuple[int, int]:
    """A 64-bit integer as two 32-bit words: a fixed width, so that no two keys spell the same list."""
    return number & 0xFFFFFFFF, number >> 32 & 0xFFFFFFFF
