"""Strategic stochastic sampling, SSS (arXiv 2402.19159, Algorithm 4), for VP, VE and flow.

    for each inference time tau_i, tau_{i+1}:
        s        = (1 − gamma) tau_{i+1}
        denoise:   x_s = f(x_{tau_i}, tau_i → s)
        diffuse:   x_{tau_{i+1}} = a x_s + sqrt(sigma_{tau_{i+1}}² − a² sigma_s²) z,   a = alpha_{tau_{i+1}} / alpha_s

`plan` works a run out once, on the CPU, in float64, down to five Python numbers a step; `sample` is the loop, which
touches the device only to compute. gamma = 0: s = tau_{i+1}, no noise is added (DDIM). gamma = 1: s = 0 (multistep
consistency sampling). Both go through the same lines. A run "lands" when its last step goes to the end of the
trajectory, time 0, where no noise is added.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from .gamma import Gamma, gamma_per_step
from .levels import Level, combine
from .schedules import FlowSchedule, VPSchedule
from .tcf import Denoiser, Form, correct, jump_coefficients, midpoint_weight, midpoint_x0, multistep_weight

Schedule = VPSchedule | FlowSchedule  # or one of their views in VE coordinates
Order = Literal["1", "2", "2M"]
ORDERS = get_args(Order)


@dataclass(frozen=True)
class Step:
    """One step tau_i → tau_{i+1}, as numbers.

    Attributes:
        t, s, n: the levels of tau_i, of the denoising jump's target and of tau_{i+1}.
        gamma: the step's stochasticity.
        u: TCF(2)'s midpoint; None for first order and multistep.
        weight: w of ``x̄ = x̂ + w (x̂_other − x̂)``, other = at u, or the previous step's; 0 for first order.
        k_x, k_0: denoise, ``x_s = k_x x + k_0 x̄``.
        a, b: diffuse, ``x_n = a x_s + b z``.
    """

    t: Level
    s: Level
    n: Level
    gamma: float
    u: Level | None
    weight: float
    k_x: float
    k_0: float
    a: float
    b: float


def diffuse_coefficients(s: Level, n: Level) -> tuple[float, float]:
    """(a, b) of ``x_n = a x_s + b z``: ``a = alpha_n/alpha_s``, ``b = sqrt(sigma_n² − a² sigma_s²)``.

    The one formula is the paper's ``sqrt(1 − (alpha_n/alpha_s)²)`` for VP, ``sqrt(ς_n² − ς_s²)`` for VE and
    ``sqrt(n² − a² s²)`` for flow. (1, 0) at s = n.

    Raises:
        ValueError: s is noisier than n, where the forward process cannot lead from s to n.
    """
    if s == n:
        return 1.0, 0.0
    if s.alpha == 0:
        raise ValueError(f"cannot diffuse from time {s.t}: alpha is 0 there, x holds nothing of the data")
    if n.alpha * s.sigma > s.alpha * n.sigma * (1 + 1e-9):
        raise ValueError(f"cannot diffuse from time {s.t} to time {n.t}: s is noisier, adding noise removes none")
    a = n.alpha / s.alpha
    return a, math.sqrt(max(0.0, (n.sigma - a * s.sigma) * (n.sigma + a * s.sigma)))


def plan(
    schedule: Schedule,
    levels: Sequence[Level | float],
    gamma: Gamma = 0.3,
    order: Order = "1",
    *,
    lands: bool = True,
    form: Form = "data",
    previous_level: Level | None = None,
) -> list[Step]:
    """Work out a run's steps.

    Args:
        schedule: where s and u are looked up.
        levels: tau_0 … tau_{M−1}, falling: times, or `Level`s of noise levels off the table; with ``lands=False`` the
            last one is where the run stops, so that there are M levels for M − 1 steps.
        gamma: a number in [0, 1], a `GammaSchedule`, or one number per step.
        order: "1" TCF(1); "2" TCF(2), two evaluations a step; "2M" multistep, one evaluation, of first order in the
            first step and, as DPM-Solver++(2M) does where lambda runs off, in the one that lands.
        lands: end with a step from tau_{M−1} to the end of the trajectory, which adds no noise.
        form: TCF(2)'s form, see `tcf2`. "data" is the default here, since the noise form multiplies the difference of
            its two evaluations by e^{rh}, 22 for a jump 999 → 0; a network distilled with TCF(2) wants the form it saw.
        previous_level: for "2M", the level of an earlier run's last evaluation, which this run continues.

    Raises:
        ValueError: no levels, NaN in them or levels that do not fall; gamma outside [0, 1], or a list of the wrong
            length; unknown order.
    """
    if order not in ORDERS:
        raise ValueError(f'order must be "1", "2" or "2M" (a string), got {order!r}')
    levels = [v if isinstance(v, Level) else schedule.level(v) for v in levels]
    if not levels:
        raise ValueError("levels is empty: give the noise level, or the time, at which each step starts")
    for i, level in enumerate(levels):
        if math.isnan(level.alpha) or math.isnan(level.sigma):
            raise ValueError(f"noise level {i} is NaN: {level}")
    if any(b.lam < a.lam for a, b in zip(levels, levels[1:], strict=False)):
        raise ValueError(f"noise levels must fall along a run, got times {', '.join(f'{v.t:g}' for v in levels)}")
    ends = [*levels[1:], schedule.landing(levels[-1])] if lands else levels[1:]
    starts = levels[: len(ends)]
    gammas = gamma_per_step(gamma, [schedule.progress(t.t) for t in starts], lands)
    steps = []
    for i, (t, n, g) in enumerate(zip(starts, ends, gammas, strict=True)):
        last = lands and i == len(ends) - 1
        s = n if last else target_level(schedule, n, g)
        u, weight = None, 0.0
        if order == "2" and (u := schedule.midpoint(t, s)) is not None:
            weight = midpoint_weight(t, u, s, form)
        elif order == "2M" and previous_level is not None and not last:
            weight = multistep_weight(previous_level, t, n)
        steps.append(Step(t, s, n, g, u, weight, *jump_coefficients(t, s), *diffuse_coefficients(s, n)))
        previous_level = t
    return steps


def target_level(schedule: Schedule, n: Level, gamma: float) -> Level:
    """The level of s = (1 − gamma) tau_{i+1}; n itself where that is n's time, never a noisier level than n."""
    s = schedule.target_time(n.t, gamma)
    if s == n.t:
        return n
    level = schedule.level(s)
    return level if level.lam > n.lam else n


def sss_step(step: Step, x: torch.Tensor, x0: torch.Tensor, z: torch.Tensor | None) -> torch.Tensor:
    """Denoise ``x_s = k_x x + k_0 x̄``, then diffuse ``x_n = a x_s + b z``, in a new tensor; z may be None if b = 0."""
    x_s = combine(step.k_x, step.k_0, x, x0)
    if step.a != 1.0:
        x_s.mul_(step.a)
    return x_s.add_(z, alpha=step.b) if step.b else x_s


@torch.no_grad()
def sample(
    model: Denoiser,
    x: torch.Tensor,
    steps: Sequence[Step],
    noise: Callable[[Level], torch.Tensor],
    callback: Callable[[int, Step, torch.Tensor, torch.Tensor], None] | None = None,
    previous_x0: torch.Tensor | None = None,
) -> torch.Tensor:
    """Algorithm 4: carry x along the steps of a `plan`.

    Args:
        model: ``model(x, t, s) -> x̂``, the data prediction at level t (see `to_x0`); s is the jump's target, for
            TCF(S+) networks. Called with x in x's dtype.
        x: latents at steps[0].t, any shape. Half precision is carried in float32.
        noise: ``noise(n) -> z``, standard normal like x, for the step that arrives at n; see `KeyedNoise`.
        callback: called as (i, step, x, x̂) once a step, after the model; x̂ is the clean prediction. Must not write.
        previous_x0: for "2M", the data prediction that an earlier run ended with.

    Returns:
        Latents at steps[-1].n, like x.

    Raises:
        ValueError: the plan continues a "2M" run and ``previous_x0`` is missing.
    """
    if steps and steps[0].weight and steps[0].u is None and previous_x0 is None:
        raise ValueError("this plan continues a 2M run: give `previous_x0`, the prediction which that run ended with")
    dtype = x.dtype
    x = x.to(torch.promote_types(dtype, torch.float32))

    def predict(x, t, s):
        return model(x.to(dtype), t, s).to(x.dtype)

    for i, step in enumerate(steps):
        x0 = predict(x, step.t, step.s)
        if callback:
            callback(i, step, x, x0)
        x_bar = x0
        if step.u is not None:
            x_bar = midpoint_x0(predict, x, x0, step.t, step.u, step.s, step.weight)
        elif step.weight:
            x_bar = correct(x0, previous_x0, step.weight)
        x = sss_step(step, x, x_bar, noise(step.n) if step.b else None)
        previous_x0 = x0
    return x.to(dtype)
