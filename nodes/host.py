"""The host's noise schedules in tcd_core's terms: which schedule a model has, and the sigmas of TCD's times on it."""

from __future__ import annotations

import comfy.model_sampling as host_sampling
import torch

from ..tcd_core import FlowSchedule, VESchedule, explicit_times, inference_times


def schedule_for(model_sampling) -> VESchedule | FlowSchedule:
    """The schedule of a model's ``model_sampling`` object.

    The host passes its samplers VE coordinates for every variance-preserving model, and a flow's own for the rest.

    Raises:
        ValueError: EDM-type models, whose networks are conditioned on log sigma / 4 and have no time to take s from.
    """
    if isinstance(model_sampling, host_sampling.CONST):
        return FlowSchedule()
    if _is_edm(model_sampling):
        raise ValueError(
            f"TCD does not apply to this model ({_host_class(model_sampling)}): it is of the EDM type, trained over "
            "continuous sigmas, and has no diffusion time of which s = (1 - gamma) t could be taken. Use a "
            "Stable Diffusion (epsilon or v-prediction) or rectified flow model, or another sampler."
        )
    table, steps = _ve_table(model_sampling)
    return VESchedule.from_ve_sigmas(table.double().numpy(), steps)


def tcd_sigmas(model_sampling, steps: int, denoise: float = 1.0, original_steps: int = 50, times=()) -> torch.Tensor:
    """Sigmas of the reference's inference times on a model's schedule, then 0; float32 on the CPU.

    Args:
        model_sampling: the host's object.
        steps: exactly so many steps are run, whatever ``denoise`` (the reference's ``strength``). Where the grid has
            fewer points, a dense grid of all training times takes its place.
        original_steps: the reference's config field ``original_inference_steps``.
        times: explicit descending times; then ``steps`` is not used. A flow's may be given as t in (0, 1].

    Raises:
        ValueError: settings that fit no grid, see `inference_times` and `explicit_times`.
    """
    if denoise <= 0:
        return torch.FloatTensor([])
    schedule = schedule_for(model_sampling)
    is_flow = isinstance(schedule, FlowSchedule)
    total = len(model_sampling.sigmas) if is_flow else schedule.num_train_timesteps
    if is_flow and times and max(times) <= 1:
        return torch.FloatTensor([*explicit_times(times, num_train_timesteps=None, strength=denoise), 0.0])
    if times:
        chosen = explicit_times(times, num_train_timesteps=total, strength=denoise)
    else:
        if steps > (most := int(total * denoise)):
            raise ValueError(
                f"{steps} steps at denoise {denoise:g} are more than the {most} times the model has there: use fewer "
                "steps or a higher denoise (the stock KSampler asks for steps / denoise of them)"
            )
        chosen = inference_times(
            steps,
            num_train_timesteps=total,
            original_inference_steps=original_steps,
            strength=denoise,
            dense="when needed",
        )
    if is_flow:
        sigmas = [float(model_sampling.sigmas[t]) for t in chosen]
    else:
        sigmas = [schedule.level(t).sigma for t in chosen]
    return torch.FloatTensor([*sigmas, 0.0])


def tcd_scheduler(model_sampling, steps: int) -> torch.Tensor:
    """Scheduler `tcd` of the host's lists: the reference's times at strength 1."""
    return tcd_sigmas(model_sampling, steps)


def _is_edm(model_sampling) -> bool:
    continuous_vp = getattr(host_sampling, "ModelSamplingContinuousV", ())
    names = (
        "EDM",
        "ModelSamplingContinuousEDM",
        "ModelSamplingDiscreteEDM",
        "COSMOS_RFLOW",
        "ModelSamplingCosmosRFlow",
    )
    kinds = tuple(getattr(host_sampling, name) for name in names if hasattr(host_sampling, name))
    return isinstance(model_sampling, kinds) and not isinstance(model_sampling, continuous_vp)


def _host_class(model_sampling) -> str:
    """The name of the host's own class: nodes that patch a model derive nameless ones."""
    own = (kind.__name__ for kind in type(model_sampling).__mro__ if kind.__module__ == host_sampling.__name__)
    return next(own, type(model_sampling).__name__)


def _ve_table(model_sampling) -> tuple[torch.Tensor, int]:
    """(table of VE sigmas on the CPU, rising, even in the model's time; number of training times)."""
    sigmas = model_sampling.sigmas.detach().cpu()  # before any float64, which not every device has
    if isinstance(model_sampling, getattr(host_sampling, "ModelSamplingContinuousV", ())):
        # its table is even in log sigma, its network's time is (2/pi) atan sigma
        first, last = (float(model_sampling.timestep(v.double())) for v in (sigmas[0], sigmas[-1]))
        return model_sampling.sigma(torch.linspace(first, last, 1000, dtype=torch.float64)), 1000
    total = int(getattr(model_sampling, "num_timesteps", len(sigmas)))
    return sigmas, total if total % len(sigmas) == 0 else len(sigmas)
