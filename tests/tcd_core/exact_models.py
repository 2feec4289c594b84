"""Diffusion models in closed form, for any level of any schedule: what the tests sample from.

Written from the forward process ``x = alpha x_0 + sigma eps`` alone; nothing here uses `tcd_core`'s formulas.
"""

import math

import torch

from tcd_core import Level


class Gaussian:
    """Data N(m, c²) in each coordinate: the posterior mean and the probability flow's solution are affine."""

    def __init__(self, m, c):
        self.m, self.c = m, c

    def variance(self, t):
        """Of x at level t."""
        return (t.alpha * self.c) ** 2 + t.sigma**2

    def x0(self, x, t):
        """E[x_0 | x_t = x]."""
        return self.m + t.alpha * self.c**2 / self.variance(t) * (x - t.alpha * self.m)

    def stretch(self, t, s):
        """Factor k of the exact trajectory map ``x_s − alpha_s m = k (x_t − alpha_t m)``."""
        return math.sqrt(self.variance(s) / self.variance(t))

    def carry(self, x, t, s):
        """The exact trajectory map from t to s."""
        return s.alpha * self.m + self.stretch(t, s) * (x - t.alpha * self.m)

    def consistent_x0(self, x, t, s):
        """The data prediction with which TCF(1), ``alpha_s x̂ + sigma_s (x − alpha_t x̂)/sigma_t``, is that map."""
        return (self.carry(x, t, s) - s.sigma / t.sigma * x) / (s.alpha - t.alpha * s.sigma / t.sigma)


class Mixture:
    """Data Σ w_k N(m_k, c²) in each coordinate: smooth, curved trajectories, each coordinate on its own."""

    def __init__(self, means=(-1.2, 0.1, 0.9), weights=(0.3, 0.2, 0.5), c=0.4):
        self.means, self.weights, self.c = means, weights, c

    def x0(self, x, t, s=None):
        """E[x_0 | x_t = x], in x's dtype; computed in float32 at least. s is not used."""
        y = x.to(torch.promote_types(x.dtype, torch.float32))
        variance = (t.alpha * self.c) ** 2 + t.sigma**2
        posterior = [m + t.alpha * self.c**2 / variance * (y - t.alpha * m) for m in self.means]
        logits = [
            math.log(w) - (y - t.alpha * m) ** 2 / (2 * variance) for w, m in zip(self.weights, self.means, strict=True)
        ]
        responsibility = torch.softmax(torch.stack(logits), 0)
        return (responsibility * torch.stack(posterior)).sum(0).to(x.dtype)

    def network(self, x, t, prediction):
        """What a network of that kind returns at (x, t)."""
        x0 = self.x0(x, t)
        eps = (x - t.alpha * x0) / t.sigma
        outputs = {
            "epsilon": eps,
            "v_prediction": t.alpha * eps - t.sigma * x0,
            "sample": x0,
            "flow": eps - x0,
        }
        return outputs[prediction]


def vp_level(lam):
    """The VP level of a half log-SNR, exactly; its time is meaningless."""
    return Level(-lam, math.sqrt(1 / (1 + math.exp(-2 * lam))), math.sqrt(1 / (1 + math.exp(2 * lam))))


def flow_level(lam):
    """The flow's level of a half log-SNR."""
    sigma = 1 / (1 + math.exp(lam))
    return Level(sigma, 1 - sigma, sigma)


def exact_trajectory(model, x, t, s, steps=60):
    """The probability flow from t to s by Runge-Kutta's classical method in ς = sigma/alpha, ``dy/dς = (y − x̂)/ς``.

    Its own error is O(step⁴): with 60 steps below 1e-12 over jumps of 0.2 in lambda, the longest that the tests halve.
    """
    log_t, log_s = math.log(t.sigma / t.alpha), math.log(s.sigma / s.alpha)
    step = (log_s - log_t) / steps

    def slope(y, log_varsigma):
        varsigma = math.exp(log_varsigma)
        return y - model.x0(y, Level(0.0, 1.0, varsigma))

    y = x / t.alpha
    for i in range(steps):
        at = log_t + i * step
        k1 = slope(y, at)
        k2 = slope(y + step / 2 * k1, at + step / 2)
        k3 = slope(y + step / 2 * k2, at + step / 2)
        k4 = slope(y + step * k3, at + step)
        y = y + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return s.alpha * y


def latents(*shape, seed=0, dtype=torch.float64):
    """Standard normal latents."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
