"""How the networks are trained that pictures are judged by: always in the same way, from a seed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def train_classifier(
    make: Callable[[], nn.Module],
    loss: Callable[[nn.Module, Tensor], Tensor],
    count: int,
    seed: int,
    *,
    steps: int,
    batch: int,
    lr: float,
) -> nn.Module:
    """A network trained on ``batch`` of ``count`` items a step, AdamW, one cycle; in evaluation mode, frozen.

    Args:
        make: the fresh network.
        loss: ``loss(network, rows)`` of these items.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make().train().to(memory_format=torch.channels_last)  # twice as fast on a CPU
        optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=1e-2, fused=True)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
        for _ in range(steps):
            loss(model, torch.randint(count, (batch,))).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval().requires_grad_(False)


def convolution(before: int, after: int, stride: int = 1) -> list[nn.Module]:
    """3 × 3, normalised, rectified."""
    return [nn.Conv2d(before, after, 3, stride, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
