"""The sampler function, with the signature the host calls, and the SAMPLER object made of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import comfy.model_management
import comfy.samplers
import torch
from tqdm.auto import tqdm

from ..tcd_core import FlowSchedule, KeyedNoise, Level, VESchedule, plan, sample
from ..tcd_core.gamma import Gamma
from ..tcd_core.sss import Order
from ..tcd_core.tcf import Form
from .host import schedule_for
from .target_patch import TARGET_TIME

DEFAULT_GAMMA: float = 0.3
DEFAULT_ORDER: Order = "1"
DEFAULT_FORM: Form = "data"

# Keys of a patch in model_options["transformer_options"]. Numbers, text and value objects only: the host's merging of
# options extends lists.
GAMMA_KEY, ORDER_KEY, FORM_KEY = "tcd_gamma", "tcd_order", "tcd_form"


@dataclass
class RunState:
    """Where a run stands: written at its end, and read by a run that continues it; empty before the first step.

    Attributes:
        x: the sampler's own state, in the model's latent space.
        x0: the last clean prediction, and ``t`` its level (what order 2M extrapolates from).
    """

    x: torch.Tensor | None = None
    x0: torch.Tensor | None = None
    t: Level | None = None


def sample_tcd(
    model,
    x: torch.Tensor,
    sigmas: torch.Tensor,
    extra_args: dict | None = None,
    callback=None,
    disable: bool | None = None,
    noise_sampler=None,
    gamma: Gamma | None = None,
    order: Order | None = None,
    batch_index: Sequence[int] | None = None,
    start: RunState | None = None,
    state: RunState | None = None,
) -> torch.Tensor:
    """Strategic stochastic sampling (arXiv 2402.19159, Algorithm 4) over whatever sigmas the host hands over.

    A final sigma of 0 stands for the schedule's time 0, where the reference ends: ``(x̂ + ς_0 eps)/sqrt(1 + ς_0²)`` for
    VP models, x̂ for flows. Sigmas that stop above 0 leave the noise in, to be continued. Order "2" takes the form that
    the model is patched with (a LoRA distilled with TCF(2) says which), else the data-prediction form.

    Args:
        model, x, sigmas, extra_args, callback, disable: as the host passes them.
        noise_sampler: ``noise_sampler(sigma, sigma_next) -> z``; by default noise keyed by (seed, item, time).
        gamma, order: None takes the model's patch, else 0.3 and "1".
        batch_index: the batch items' numbers, for keyed noise.
        start: state of a run to continue, in place of x.
        state: filled in at the end.
    """
    if len(sigmas) < 2:
        return x
    extra_args = _with_own_transformer_options(extra_args or {})
    options = extra_args["model_options"]["transformer_options"]
    gamma = options.get(GAMMA_KEY, DEFAULT_GAMMA) if gamma is None else gamma
    order = options.get(ORDER_KEY, DEFAULT_ORDER) if order is None else order
    if start is not None and start.x is not None:
        x = start.x.to(x)
    start, state = start or RunState(), state or RunState()

    levels, lands, schedule = run_levels(model.inner_model.inner_model.model_sampling, sigmas)
    form = options.get(FORM_KEY, DEFAULT_FORM)
    steps = plan(schedule, levels, gamma, order, lands=lands, form=form, previous_level=start.t)
    index = 0

    def predict_x0(x, t, s):
        options[TARGET_TIME] = s.t
        return model(x, torch.full((x.shape[0],), t.sigma, dtype=torch.float32, device=x.device), **extra_args)

    def on_step(i, step, x, x0):
        nonlocal index
        index, state.x0, state.t = i, x0, step.t
        comfy.model_management.throw_exception_if_processing_interrupted()
        if callback is not None:
            callback({"x": x, "i": i, "sigma": sigmas[i], "sigma_hat": sigmas[i], "denoised": x0})
        progress.update()

    keyed = KeyedNoise(x, _seed(extra_args), batch_index)

    def noise(n):
        return keyed(n) if noise_sampler is None else noise_sampler(sigmas[index], sigmas[index + 1])

    with tqdm(total=len(steps), disable=disable) as progress:
        x = sample(predict_x0, x, steps, noise, on_step, None if start.x0 is None else start.x0.to(x))
    mask = extra_args.get("denoise_mask")
    if lands and mask is not None:
        # where the mask keeps the picture, x̂ is that picture exactly; elsewhere x keeps the noise of time 0
        x = torch.lerp(state.x0, x, mask.to(x))
    state.x = x
    return x


def run_levels(model_sampling, sigmas: torch.Tensor) -> tuple[list[Level], bool, VESchedule | FlowSchedule]:
    """(levels of a run over the host's sigmas, whether it lands at the end of the trajectory, the schedule)."""
    schedule = schedule_for(model_sampling)
    values = sigmas.tolist()
    if any(math.isnan(value) for value in values):
        raise ValueError("the sigmas hold NaN: their scheduler fails at so few steps; use more, or another")
    lands = values[-1] == 0
    return [schedule.level_at_sigma(v) for v in (values[:-1] if lands else values)], lands, schedule


def tcd_sampler(gamma: Gamma, order: Order, **options) -> comfy.samplers.KSAMPLER:
    """A SAMPLER of these settings; options go to `sample_tcd`."""
    return comfy.samplers.KSAMPLER(sample_tcd, {"gamma": gamma, "order": order, **options})


def _with_own_transformer_options(extra_args: dict) -> dict:
    """extra_args with a transformer_options dictionary that may be written to without the host's seeing it."""
    model_options = extra_args.get("model_options") or {}
    own = dict(model_options.get("transformer_options", {}))
    return {**extra_args, "model_options": {**model_options, "transformer_options": own}}


def _seed(extra_args: dict) -> int:
    """The host's seed; without one, a number from torch's own generator, so that torch.manual_seed still counts."""
    seed = extra_args.get("seed")
    return int(torch.randint(0, 2**63 - 1, ())) if seed is None else int(seed)
