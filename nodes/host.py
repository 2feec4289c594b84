"""The host's noise schedules in tcd_core's terms: which schedule a model has, and the sigmas of TCD's times on it."""

from __future__ import annotations

import comfy.model_sampling as host_sampling
import numpy as np
import torch

from ..tcd_core import FlowSchedule, FlowVESchedule, VESchedule, explicit_times, inference_times


def schedule_for(model_sampling) -> VESchedule | FlowSchedule:
    """The schedule of a model's ``model_sampling`` object, in the coordinates the host hands to its samplers.

    These are VE coordinates for every variance-preserving model and for Cosmos, a flow's own for the other flows.

    Raises:
        ValueError: EDM-type models, whose networks are conditioned on log sigma / 4 and have no time to take s from.
    """
    if isinstance(model_sampling, host_sampling.CONST):
        return FlowSchedule()
    if isinstance(model_sampling, _kinds("COSMOS_RFLOW", "ModelSamplingCosmosRFlow")):
        return FlowVESchedule()
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
        times: explicit descending times; then ``steps`` is not used. They count 0 … 999 on finer tables (Flux, Cascade)
            too; a flow's may also be given as t in (0, 1].

    Raises:
        ValueError: settings that fit no grid, see `inference_times` and `explicit_times`.
    """
    if denoise <= 0:
        return torch.FloatTensor([])
    schedule = schedule_for(model_sampling)
    total = _grid_size(model_sampling, schedule)
    if times and isinstance(schedule, FlowSchedule) and max(times) <= 1:
        chosen = explicit_times(times, num_train_timesteps=None, strength=denoise)
        if isinstance(schedule, FlowVESchedule):  # which ends below t = 1
            last = schedule.time_at_sigma(float(model_sampling.sigma_max))
            chosen = sorted({min(t, last) for t in chosen}, reverse=True)
        return torch.FloatTensor([*(schedule.level(t).sigma for t in chosen), 0.0])
    if times:
        finer = total // 1000 if total % 1000 == 0 else 1
        chosen = explicit_times(times, num_train_timesteps=total // finer, strength=denoise)
        chosen = [(t + 1) * finer - 1 for t in chosen]
    else:
        if steps > (most := int(total * denoise)):
            raise ValueError(
                f"{steps} steps at denoise {denoise:g} are more than the {most} times the model has there: use fewer "
                "steps or a higher denoise"
            )
        if original_steps > total:
            raise ValueError(f"original_steps must be at most {total}, the times of this model; got {original_steps}")
        chosen = inference_times(
            steps,
            num_train_timesteps=total,
            original_inference_steps=original_steps,
            strength=denoise,
            dense="when needed",
        )
    return torch.FloatTensor([*_grid_sigmas(model_sampling, schedule, chosen), 0.0])


def tcd_scheduler(model_sampling, steps: int) -> torch.Tensor:
    """Scheduler `tcd` of the host's lists: the reference's times at strength 1.

    For a low denoise the stock KSampler asks for steps / denoise times and takes the last few: more than the model has
    are spread evenly between its times.
    """
    schedule = schedule_for(model_sampling)
    total = _grid_size(model_sampling, schedule)
    if steps <= total:
        return tcd_sigmas(model_sampling, steps)
    spread = np.linspace(total, 0, steps, endpoint=False) - 1
    return torch.FloatTensor([*_grid_sigmas(model_sampling, schedule, np.maximum(spread, 0.0)), 0.0])


def _grid_size(model_sampling, schedule) -> int:
    """How many training times the model has."""
    return len(model_sampling.sigmas) if isinstance(schedule, FlowSchedule) else schedule.num_train_timesteps


def _grid_sigmas(model_sampling, schedule, indices) -> list[float]:
    """Sigmas at indices, also fractional, of the table of training times; a flow's is the host's, shifted."""
    if not isinstance(schedule, FlowSchedule):
        return [schedule.level(float(t)).sigma for t in indices]
    table = model_sampling.sigmas.detach().cpu().double().numpy()
    if isinstance(schedule, FlowVESchedule):  # the host's table is even in log sigma, its network's time is not
        last = float(schedule.time_at_sigma(table[-1]))
        table = np.array([schedule.level(last * i / len(table)).sigma for i in range(1, len(table) + 1)])
    return np.interp(indices, np.arange(len(table)), table).tolist()


def _kinds(*names: str) -> tuple[type, ...]:
    """Those of the host's classes that this version of it has."""
    return tuple(getattr(host_sampling, name) for name in names if hasattr(host_sampling, name))


def _is_edm(model_sampling) -> bool:
    edm = _kinds("EDM", "ModelSamplingContinuousEDM", "ModelSamplingDiscreteEDM")
    return isinstance(model_sampling, edm) and not isinstance(model_sampling, _kinds("ModelSamplingContinuousV"))


def _host_class(model_sampling) -> str:
    """The name of the host's own class: nodes that patch a model derive nameless ones."""
    own = (kind.__name__ for kind in type(model_sampling).__mro__ if kind.__module__ == host_sampling.__name__)
    return next(own, type(model_sampling).__name__)


def _ve_table(model_sampling) -> tuple[torch.Tensor, int]:
    """(table of VE sigmas on the CPU, rising, even in the model's time; number of training times)."""
    sigmas = model_sampling.sigmas.detach().cpu()  # before any float64, which not every device has
    if isinstance(model_sampling, _kinds("ModelSamplingContinuousV")):
        # its table is even in log sigma, its network's time is (2/pi) atan sigma
        first, last = (float(model_sampling.timestep(v.double())) for v in (sigmas[0], sigmas[-1]))
        return model_sampling.sigma(torch.linspace(first, last, 1000, dtype=torch.float64)), 1000
    total = int(getattr(model_sampling, "num_timesteps", len(sigmas)))
    return sigmas, total if total % len(sigmas) == 0 else len(sigmas)
