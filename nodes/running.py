"""One call of the host's sampling, and what a stage of a split run hands on to the next."""

from __future__ import annotations

import inspect
import logging
from dataclasses import dataclass

import comfy.sample
import comfy.utils
import latent_preview
import torch
from comfy_api.latest import io

from ..tcd_core.gamma import Gamma
from ..tcd_core.sss import Order
from .sampling import RunState, tcd_sampler

CARRY_KEY = "tcd_toolkit_carry"
SCALES = ("downscale_ratio_spacial", "downscale_ratio_temporal")  # how the host spells them


@dataclass(frozen=True)
class Carry:
    """What a stage of a split run hands on in the LATENT beside its samples, so that the next continues exactly.

    The host's own LATENT has only the noisy samples. Inpainting needs the clean picture and the run's first noise to
    fill the kept region in; order 2M needs the last prediction; the state itself skips a round of scaling.

    Attributes:
        samples: the LATENT's tensor this belongs to; a node that made another in between makes it void.
        sigma: the noise level of the state.
        latent_format: class of the model's latent space.
        clean, noise: the latent and initial noise the run began with.
        state: the sampler's state at its end.
    """

    samples: torch.Tensor
    sigma: float
    latent_format: type
    clean: torch.Tensor
    noise: torch.Tensor
    state: RunState

    @classmethod
    def at(
        cls, model, sigma, samples: torch.Tensor, clean: torch.Tensor, noise: torch.Tensor, state: RunState
    ) -> Carry:
        """A carry for these samples at a sigma; the state's tensors go where the samples are."""
        for name in ("x", "x0"):
            value = getattr(state, name)
            setattr(state, name, None if value is None else value.to(samples.device))
        return cls(samples, float(sigma), type(model.get_model_object("latent_format")), clean, noise, state)

    def fits(self, latent: dict, model, sigmas: torch.Tensor) -> bool:
        same_space = type(model.get_model_object("latent_format")) is self.latent_format
        return latent["samples"] is self.samples and same_space and float(sigmas[0]) == self.sigma


def fitted_samples(model, latent: dict) -> torch.Tensor:
    """The latent's samples; an empty latent's in the shape this model wants. Newer hosts know its scale too."""
    known = inspect.signature(comfy.sample.fix_empty_latent_channels).parameters
    scales = {name: latent[name] for name in SCALES if name in latent and name in known}
    return comfy.sample.fix_empty_latent_channels(model, latent["samples"], **scales)


def initial_noise(latent: dict, samples: torch.Tensor, seed: int) -> tuple[torch.Tensor, list[int]]:
    """(noise, item numbers): drawn item by item by the batch's index, so that item i is the same alone."""
    items = item_numbers(latent, samples)
    return comfy.sample.prepare_noise(samples, seed, items), items


def item_numbers(latent: dict, samples: torch.Tensor) -> list[int]:
    """The batch items' numbers, by which their noise is drawn: their places in the batch that they were cut out of."""
    items = latent.get("batch_index")
    items = range(samples.shape[0]) if items is None or len(items) != samples.shape[0] else items
    return [int(item) for item in items]


def continued(latent: dict, model, sigmas: torch.Tensor, samples: torch.Tensor, noise: torch.Tensor):
    """(clean samples, initial noise, state) of the run that this stage continues; the latent itself if unknown."""
    carry = latent.get(CARRY_KEY)
    if carry is not None and carry.fits(latent, model, sigmas):
        return carry.clean, carry.noise, carry.state
    if latent.get("noise_mask") is not None:
        logging.warning(
            "KSampler Advanced (TCD): a masked run is continued from a latent that does not come straight from "
            "KSampler Advanced (TCD): the clean picture is not known here and the masked-off region is lost."
        )
    return samples, torch.zeros_like(noise), None


def sample_whole(
    model, seed, cfg, positive, negative, latent: dict, sigmas: torch.Tensor, gamma: Gamma, order: Order, callback=None
) -> torch.Tensor:
    """The samples of a run over all of `sigmas`: what KSampler (TCD) gives, and every cell of TCD Grid."""
    samples = fitted_samples(model, latent)
    if len(sigmas) < 2:
        return samples
    noise, items = initial_noise(latent, samples, seed)
    sampler = tcd_sampler(gamma, order, batch_index=items)
    return run_sampler(model, seed, cfg, positive, negative, sampler, sigmas, latent, samples, noise, callback)


def run_sampler(model, seed, cfg, positive, negative, sampler, sigmas, latent, samples, noise, callback=None):
    """One call of the host's sampling with the latent's mask, and with progress and previews unless told otherwise."""
    return comfy.sample.sample_custom(
        model,
        noise,
        cfg,
        sampler,
        sigmas,
        positive,
        negative,
        samples,
        noise_mask=latent.get("noise_mask"),
        callback=callback or latent_preview.prepare_callback(model, len(sigmas) - 1),
        disable_pbar=not comfy.utils.PROGRESS_BAR_ENABLED,
        seed=seed,
    )


def output_latent(latent: dict, samples: torch.Tensor, carry: Carry | None = None) -> io.NodeOutput:
    out = {key: value for key, value in latent.items() if key not in (CARRY_KEY, *SCALES)}
    out["samples"] = samples
    if carry is not None:
        out[CARRY_KEY] = carry
    return io.NodeOutput(out)
