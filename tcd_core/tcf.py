"""Trajectory consistency functions f(x_t, t → s) (arXiv 2402.19159, section 4.2).

Every form here is one map, the exponential integrator's first-order step in data prediction

    f = (sigma_s / sigma_t) x + (alpha_s − alpha_t sigma_s / sigma_t) x̄                              (1)

with a first-order, midpoint- or history-corrected x̄ in place of x̂. It equals ``alpha_s x̂ + sigma_s ε̂``, the DDIM jump,
and the paper's ``(alpha_s/alpha_t) x − sigma_s (e^h − 1) ε̂``, but divides by neither alpha_t nor sigma_s: exact at
sigma_s = 0 (f = alpha_s x̂), where alpha_t = 0 (f = sigma_s x / sigma_t + alpha_s x̂) and at s = t (f = x, to the bit).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch

from .levels import Level, combine

Form = Literal["epsilon", "data"]
Denoiser = Callable[[torch.Tensor, Level, Level], torch.Tensor]  # model(x, t, s) -> x̂; only TCF(S+) networks use s


def jump_coefficients(t: Level, s: Level):
    """(k_x, k_0) of eq. (1), ``f = k_x x + k_0 x̄``; (1, 0) at s = t, also where sigma_t = 0.

    Raises:
        ValueError: sigma_t = 0 and s another level: from clean data there is nowhere to go.
    """
    if isinstance(t.sigma, torch.Tensor) or isinstance(s.sigma, torch.Tensor):
        sigma_t, sigma_s = torch.broadcast_tensors(torch.as_tensor(t.sigma), torch.as_tensor(s.sigma))
        ratio = torch.where(sigma_t == sigma_s, 1.0, sigma_s / sigma_t)
        return ratio, s.alpha - t.alpha * ratio
    if t.sigma == 0:
        if s.sigma == 0 and s.alpha == t.alpha:
            return 1.0, 0.0
        raise ValueError(f"cannot jump from time {t.t}, where sigma = 0, to time {s.t}: a trajectory runs from noise")
    ratio = s.sigma / t.sigma
    return ratio, s.alpha - t.alpha * ratio


def tcf1(x: torch.Tensor, x0: torch.Tensor, t: Level, s: Level) -> torch.Tensor:
    """TCF(1): eq. (1) with x̄ = x̂_θ(x, t), one network evaluation, local error O(h²).

    Args:
        x: latents at level t, any shape.
        x0: the network's data prediction at (x, t), same shape.
        t, s: levels of the jump, s ≤ t; floats, or tensors that broadcast against x.
    """
    return combine(*jump_coefficients(t, s), x, x0)


def tcf2(model: Denoiser, x: torch.Tensor, t: Level, s: Level, u: Level | None, form: Form = "epsilon") -> torch.Tensor:
    """TCF(2): with a second evaluation at u between t and s, local error O(h³).

    ``form="epsilon"`` is the paper's: ``f = (alpha_s/alpha_t) x − sigma_s (e^h − 1) [ε_t + (ε_u − ε_t)/(2r)]`` with
    ``x_u = (alpha_u/alpha_t) x − sigma_u (e^{rh} − 1) ε_t`` and ``r = (lambda_u − lambda_t)/h`` (½ at the exact
    midpoint). ``form="data"`` does the same to x̂ (its Eq. 16; DPM-Solver++(2S)): another map, as accurate.

    Args:
        model: ``model(x, t, s) -> x̂``.
        u: the midpoint, from ``schedule.midpoint(t, s)``; None, where there is none, takes the first-order step.
    """
    x0 = model(x, t, s)
    if u is None:
        return tcf1(x, x0, t, s)
    return tcf1(x, midpoint_x0(model, x, x0, t, u, s, midpoint_weight(t, u, s, form)), t, s)


def midpoint_x0(model: Denoiser, x: torch.Tensor, x0: torch.Tensor, t: Level, u: Level, s: Level, weight):
    """x̄ of TCF(2): the network again at u, where TCF(1) leads, and ``x̄ = x̂_t + w (x̂_u − x̂_t)``."""
    return correct(x0, model(tcf1(x, x0, t, u), u, s), weight)


def tcf_s_plus(model: Denoiser, x: torch.Tensor, t: Level, s: Level) -> torch.Tensor:
    """TCF(S+): TCF(1) of a network that is told the target time, ``x̂_θ(x, t, s)``; one evaluation."""
    return tcf1(x, model(x, t, s), t, s)


def midpoint_weight(t: Level, u: Level, s: Level, form: Form = "epsilon"):
    """w of ``x̄ = x̂_t + w (x̂_u − x̂_t)`` that makes eq. (1) the second-order form.

    Data prediction: ``w = 1/(2r)``. Noise prediction: substituting ``ε = (x − alpha x̂)/sigma`` and the first-order
    x_u, where ``ε_u − ε_t = (alpha_u/sigma_u)(x̂_t − x̂_u)``, gives ``w = e^{rh}/(2r)``.
    """
    if form not in ("epsilon", "data"):
        raise ValueError(f'form must be "epsilon" or "data", got {form!r}')
    h, rh = s.lam - t.lam, u.lam - t.lam
    weight = h / (2 * rh)
    return weight if form == "data" else weight * (u.alpha / u.sigma) * (t.sigma / t.alpha)


def multistep_weight(previous: Level, t: Level, n: Level) -> float:
    """w of ``x̄ = x̂_t + w (x̂_previous − x̂_t)``: DPM-Solver++(2M), ``w = −h / (2 h_previous)``, h in lambda.

    h is the step's own, from tau_i to tau_{i+1} = n, as in that solver's SDE form: a jump to s far beyond n would
    extrapolate far beyond what two evaluations tell (at gamma = 1 and 50 steps by a factor of 25, and diverge).
    0 (first order) where lambda is infinite at one of the three levels, and where h_previous is below h/5: two
    predictions so close together tell little but their rounding (sigmas 14.6, 14.5, 3 would give w = −115).
    """
    h, h_previous = n.lam - t.lam, t.lam - previous.lam
    if not (math.isfinite(h) and math.isfinite(h_previous)) or h_previous <= 0 or h_previous < h / 5:
        return 0.0
    return -h / (2 * h_previous)


def correct(x0: torch.Tensor, other: torch.Tensor, weight) -> torch.Tensor:
    """``x̄ = x̂ + w (x̂_other − x̂)``."""
    return torch.lerp(x0, other, weight)
