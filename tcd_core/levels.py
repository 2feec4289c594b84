"""Noise levels: what every formula of the paper is written in.

The forward process is linear and Gaussian, ``x_t = alpha_t x_0 + sigma_t eps`` with ``eps ~ N(0, I)``. A `Level` is one
point (alpha, sigma) of it. Variance preserving (alpha² + sigma² = 1), variance exploding (alpha = 1) and rectified flow
(alpha + sigma = 1) differ in nothing else, so one formula for a pair of levels serves all three.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch


class Level(NamedTuple):
    """A point of the forward process, ``x = alpha x_0 + sigma eps``.

    Attributes:
        t: time in its schedule's units (VP: 0 … N−1, may be fractional; flow: 0 … 1).
        alpha: factor of the data, dimensionless.
        sigma: standard deviation of the noise, in units of the data.

    In sampling the three are Python floats. In training they may be float tensors that broadcast against the latents,
    shape (B, 1, 1, 1): one level per sample.
    """

    t: float
    alpha: float
    sigma: float

    @property
    def lam(self):
        """``lambda = log(alpha / sigma)``, half the log signal-to-noise ratio; ±inf where sigma or alpha is 0."""
        return half_log_snr(self.alpha, self.sigma)


def half_log_snr(alpha, sigma):
    """``lambda = log(alpha / sigma)`` of floats or tensors; +inf where sigma = 0, −inf where alpha = 0."""
    if isinstance(alpha, torch.Tensor):
        return alpha.log() - sigma.log()
    if sigma == 0:
        return math.inf
    return math.log(alpha / sigma) if alpha > 0 else -math.inf


def vp_to_ve(level: Level) -> Level:
    """The same noise level in VE coordinates, ``y = x / alpha``: (1, sigma / alpha).

    Raises:
        ValueError: alpha = 0 (zero terminal SNR, a flow at t = 1): no VE coordinates there, start from x itself.
    """
    if level.alpha == 0:
        raise ValueError(f"time {level.t} has alpha = 0: it has no VE coordinates, keep x in VP coordinates there")
    return Level(level.t, 1.0, level.sigma / level.alpha)


def ve_to_vp(level: Level) -> Level:
    """The same noise level in VP coordinates, ``x = y / sqrt(1 + sigma²)``: (1, sigma) / sqrt(1 + sigma²)."""
    norm = math.hypot(level.alpha, level.sigma)
    return Level(level.t, level.alpha / norm, level.sigma / norm)


def combine(k_x, k_0, x: torch.Tensor, x0: torch.Tensor) -> torch.Tensor:
    """``k_x x + k_0 x0`` in a new tensor; two passes over memory where the factors are numbers."""
    if isinstance(k_x, torch.Tensor) or isinstance(k_0, torch.Tensor):
        return k_x * x + k_0 * x0
    return (x0 * k_0).add_(x, alpha=k_x)
