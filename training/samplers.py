"""Sampling for measurement: strategic stochastic sampling by `tcd_core`, the numerical solvers by diffusers.

Every method gets the same number of network evaluations (guided: of the guided network), from the same initial noise.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import diffusers
import numpy as np
import torch
from torch import Tensor

from tcd_core import FlowSchedule, KeyedNoise, Level, VPSchedule, inference_times, plan, sample, to_x0
from tcd_core.predictions import Prediction
from tcd_core.sss import Order, Schedule
from tcd_core.tcf import Form

Network = Callable[[Tensor, float, float], Tensor]  # (x, t, s) -> raw output; times in the schedule's units
Solver = Literal["euler", "ddim", "dpmpp_2s"]
SOLVERS: tuple[Solver, ...] = ("euler", "ddim", "dpmpp_2s")


def guided(both: Callable[[Tensor, Tensor], Tensor], w: float) -> Network:
    """A network with guidance, ``ε_c + w (ε_c − ε_∅)``, conditional and unconditional in one batch.

    Args:
        both: ``both(x, times)`` is the raw output for a batch of which the first half has its conditions, the second
            none.
    """

    def network(x: Tensor, t: float, s: float) -> Tensor:
        times = torch.full((2 * len(x),), t, dtype=torch.float32, device=x.device)
        c, u = both(torch.cat([x, x]), times).float().chunk(2)
        return c + w * (c - u)

    return network


def start_noise(shape: tuple[int, ...], seed: int) -> Tensor:
    """x at the first time: each item's own, the same for every method."""
    z = KeyedNoise(torch.empty(shape), seed)
    return z(Level(-1.0, 0.0, 1.0))


def run_times(schedule: Schedule, steps: int) -> list[float]:
    """tau_0 … tau_{M−1}: the reference's times; for a flow, 1 down in equal parts."""
    if isinstance(schedule, FlowSchedule):
        return (1 - np.arange(steps) / steps).tolist()
    return inference_times(steps, num_train_timesteps=schedule.num_train_timesteps, dense="when needed")


def sample_sss(
    network: Network,
    prediction: Prediction,
    schedule: Schedule,
    x: Tensor,
    steps: int,
    gamma: float,
    seed: int,
    order: Order = "1",
    form: Form = "data",
) -> Tensor:
    """Algorithm 4 with ``steps`` network evaluations, from noise x, shape (B, …); order "2" takes two of them a step.

    Raises:
        ValueError: order "2" and an odd number of evaluations.
    """
    if order == "2":
        if steps % 2:
            raise ValueError(f"order 2 takes two evaluations a step, {steps} is odd")
        steps //= 2

    def model(x: Tensor, t: Level, s: Level) -> Tensor:
        return to_x0(network(x, t.t, s.t), x, t, prediction)

    return sample(model, x, plan(schedule, run_times(schedule, steps), gamma, order, form=form), KeyedNoise(x, seed))


@torch.no_grad()
def sample_solver(
    solver: Solver, network: Network, prediction: Prediction, schedule: Schedule, x: Tensor, steps: int
) -> Tensor | None:
    """A numerical solver's sample after ``steps`` evaluations, by diffusers' scheduler; None where it has none.

    Euler and DDIM take their times from 999 downwards in equal parts ("trailing"), so that they start where the noise
    does; DPM++(2S) is the singlestep DPM-Solver++ of order 2, whose evaluations are all counted.
    """
    scheduler = _scheduler(solver, prediction, schedule)
    if scheduler is None:
        return None
    scheduler.set_timesteps(steps)
    scale = 1.0 if isinstance(schedule, FlowSchedule) else float(getattr(scheduler, "init_noise_sigma", 1.0))
    x = x * scale
    for t in scheduler.timesteps:
        seen = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        time = float(t) / 1000 if isinstance(schedule, FlowSchedule) else float(t)
        x = scheduler.step(network(seen, time, 0.0), t, x, return_dict=False)[0]
    return x


@torch.no_grad()
def sample_reference(
    kind: Literal["lcm", "tcd"],
    network: Network,
    prediction: Prediction,
    schedule: Schedule,
    x: Tensor,
    steps: int,
    gamma: float,
    generators: list[torch.Generator],
) -> Tensor:
    """A student's sample by diffusers' LCMScheduler or TCDScheduler, one evaluation a step, at most 50.

    Args:
        gamma: TCDScheduler's eta; LCMScheduler has none.
        generators: of the noise, one for each row of x.
    """
    common = {"trained_betas": _betas(schedule), "prediction_type": prediction}
    scheduler = (diffusers.LCMScheduler if kind == "lcm" else diffusers.TCDScheduler)(**common)
    scheduler.set_timesteps(steps)
    more = {"eta": gamma} if kind == "tcd" else {}
    for t in scheduler.timesteps:
        x = scheduler.step(network(x, float(t), 0.0), t, x, generator=generators, return_dict=False, **more)[0]
    return x


def _betas(schedule: VPSchedule) -> np.ndarray:
    """As diffusers' schedulers take them; they divide by alpha, so that zero terminal SNR would give NaN."""
    alpha_bar = np.maximum(schedule.alpha_bar, 2.0**-24)
    return (1 - alpha_bar / np.r_[1.0, alpha_bar[:-1]]).astype(np.float32)


def _scheduler(solver: Solver, prediction: Prediction, schedule: Schedule):
    if isinstance(schedule, FlowSchedule):
        if solver == "euler":
            return diffusers.FlowMatchEulerDiscreteScheduler()
        return (
            diffusers.DPMSolverSinglestepScheduler(
                prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0, solver_order=2
            )
            if solver == "dpmpp_2s"
            else None
        )
    common = {"trained_betas": _betas(schedule), "prediction_type": prediction}
    if solver == "euler":
        return diffusers.EulerDiscreteScheduler(**common, timestep_spacing="trailing")
    if solver == "ddim":
        return diffusers.DDIMScheduler(**common, timestep_spacing="trailing", clip_sample=False, set_alpha_to_one=False)
    return diffusers.DPMSolverSinglestepScheduler(
        **common, solver_order=2, algorithm_type="dpmsolver++", lower_order_final=True
    )
