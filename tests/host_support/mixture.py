"""A diffusion model in closed form: a Gaussian mixture under Stable Diffusion's schedule. Torch alone.

Imported by the tests and, in another process, by drivers under the host's interpreter, so that the reference and the
host evaluate one and the same network.
"""

from __future__ import annotations

from functools import cache

import torch

SHAPE = (2, 4, 8, 8)
COMPONENTS, VARIANCE = 6, 0.3


@cache
def alpha_bar(num_train_timesteps: int = 1000) -> torch.Tensor:
    """Stable Diffusion's scaled-linear ᾱ in float64."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, num_train_timesteps, dtype=torch.float64) ** 2
    return torch.cumprod(1 - betas, 0)


@cache
def means() -> torch.Tensor:
    """The mixture's means, (COMPONENTS, 4, 8, 8): smooth functions of the index, so that no generator is involved."""
    count = COMPONENTS * SHAPE[1] * SHAPE[2] * SHAPE[3]
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7).float().view(COMPONENTS, *SHAPE[1:]) * 1.4


def x0(x: torch.Tensor, t: int) -> torch.Tensor:
    """E[x_0 | x_t = x] in VP coordinates, with weights softened (by the dimension / 2) so that several means count."""
    a2 = float(alpha_bar()[t])
    a, v, m = a2**0.5, a2 * VARIANCE + 1 - a2, means().to(x)
    distance = (x[:, None] - a * m[None]).square().mean((2, 3, 4)) * 2
    weights = torch.softmax(-distance / (2 * v), 1)
    mean = (weights[:, :, None, None, None] * m[None]).sum(1)
    return mean + a * VARIANCE / v * (x - a * mean)


def network(x: torch.Tensor, t: int, prediction: str) -> torch.Tensor:
    """What an "epsilon" or "v_prediction" network returns at (x, t), x in VP coordinates."""
    a2 = float(alpha_bar()[t])
    a, s = a2**0.5, (1 - a2) ** 0.5
    clean = x0(x, t)
    eps = (x - a * clean) / s
    return eps if prediction == "epsilon" else a * eps - s * clean
