"""Distances d and weights ω of the distillation loss ``E[ω(t_{n+k}) d(f_θ, f_θ⁻)]`` (arXiv 2402.19159, section 4.2).

Each distance takes the residual r = f_θ − f_θ⁻, shape (B, …), and gives one number per sample, shape (B,), in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tcd_core import Level


def squared_l2(residual: Tensor) -> Tensor:
    """``‖r‖²`` averaged over a sample's elements."""
    return residual.float().square().flatten(1).mean(1)


def pseudo_huber(residual: Tensor, c: float) -> Tensor:
    """``sqrt(‖r‖² + c²) − c`` with ‖r‖² the mean over a sample's elements; ≈ ‖r‖²/(2c) below c, ‖r‖ above.

    Written as ``‖r‖² / (sqrt(‖r‖² + c²) + c)``, which loses nothing to cancellation for small r.
    """
    square = squared_l2(residual)
    return square / ((square + c**2).sqrt() + c)


def expected_squared_l2(delta_x0: Tensor, delta_eps: Tensor, moments: Tensor) -> Tensor:
    """The mean over end times s of TCF(1)'s ``‖alpha_s Δx̂ + sigma_s Δε‖²``, per element, in closed form.

    ``E[alpha_s²] ‖Δx̂‖² + 2 E[alpha_s sigma_s] ⟨Δx̂, Δε⟩ + E[sigma_s²] ‖Δε‖²``: TCF(1)'s network never sees s, so one
    evaluation of student and target tells the residual at every s.

    Args:
        delta_x0, delta_eps: differences of the two pairs' data and noise predictions, shape (B, …).
        moments: E[alpha_s²], E[alpha_s sigma_s], E[sigma_s²], shape (B, 3); see `end_time_moments`.
    """
    d, e = delta_x0.float().flatten(1), delta_eps.float().flatten(1)
    parts = torch.stack([d.square().mean(1), 2 * (d * e).mean(1), e.square().mean(1)], dim=1)
    return (moments.to(parts) * parts).sum(1)


def min_snr(t: Level, clip: float, at_zero: bool = False) -> Tensor:
    """``ω = min(SNR, clip)``, SNR = alpha_t²/sigma_t² at the student's start time (arXiv 2303.09556); shape (B,).

    Args:
        at_zero: ``min(SNR + 1, clip)``, on VP a squared velocity's weight, for networks that can start where alpha = 0
            (v- and x-prediction, flow): there the first would be 0 and the first jump of every run never learnt.
    """
    snr = (t.alpha.double() / t.sigma.double()).square().flatten()
    return (snr + float(at_zero)).clamp(max=clip).float()
