"""Levels and jumps of a batch: one time per sample, worked out on the CPU in float64, float32 on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tcd_core import Level, midpoint_weight, tcf1
from tcd_core.sss import Schedule
from tcd_core.tcf import Denoiser, Form, midpoint_x0


class Jump(NamedTuple):
    """The jumps t → s of a batch, each entry's tensors of shape (B, 1, 1, 1).

    Attributes:
        t, s: levels of start and end.
        u: TCF(2)'s midpoint, t itself for a sample that has none; None for a first-order jump.
        weight: w of ``x̄ = x̂_t + w (x̂_u − x̂_t)``, 0 for a sample without a midpoint.
    """

    t: Level
    s: Level
    u: Level | None = None
    weight: Tensor | None = None

    @classmethod
    def of(cls, schedule: Schedule, t: Sequence[float], s: Sequence[float], second_order: Form | None = None) -> Jump:
        """Jumps between times; ``second_order`` names the form of the second-order step, None takes the first."""
        starts, ends = [schedule.level(v) for v in t], [schedule.level(v) for v in s]
        if second_order is None:
            return cls(stack(starts), stack(ends))
        middles = [schedule.midpoint(a, b) for a, b in zip(starts, ends, strict=True)]
        weights = [
            0.0 if u is None else midpoint_weight(a, u, b, second_order)
            for a, u, b in zip(starts, middles, ends, strict=True)
        ]
        u = stack([a if m is None else m for a, m in zip(starts, middles, strict=True)])
        return cls(stack(starts), stack(ends), u, _column(weights))


def follow(model: Denoiser, x: Tensor, jump: Jump) -> Tensor:
    """f(x, t → s): TCF(1), or TCF(2) where the jump has midpoints: one or two evaluations of ``model``."""
    x0 = model(x, jump.t, jump.s)
    if jump.u is not None:
        x0 = midpoint_x0(model, x, x0, jump.t, jump.u, jump.s, jump.weight)
    return tcf1(x, x0, jump.t, jump.s)


def stack(levels: Sequence[Level]) -> Level:
    """One Level of tensors (B, 1, 1, 1) from B Levels of numbers."""
    return Level(*(_column(values) for values in zip(*levels, strict=True)))


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).float().view(-1, 1, 1, 1)
