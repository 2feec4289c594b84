"""diffusers' `TCDScheduler`, the reference, and its table in float64."""

import torch
from diffusers import TCDScheduler
from diffusers.schedulers.scheduling_tcd import rescale_zero_terminal_snr

from tcd_core import Level


def betas(n=1000):
    """SD's scaled-linear betas, float64."""
    return torch.linspace(0.00085**0.5, 0.012**0.5, n, dtype=torch.float64) ** 2


def alpha_bar(zero_snr=False):
    """ᾱ in float64, by diffusers' own recipe."""
    found = rescale_zero_terminal_snr(betas()) if zero_snr else betas()
    return torch.cumprod(1 - found, 0)


def scheduler(prediction="epsilon", zero_snr=False, double=True, **config):
    """The reference; with ``double`` its ᾱ table is replaced by the float64 one."""
    made = TCDScheduler(prediction_type=prediction, rescale_betas_zero_snr=zero_snr, **config)
    if double:
        made.alphas_cumprod = alpha_bar(zero_snr)
    return made


def run(made, network, x, gamma, seed=0):
    """The reference's loop on x; ``network(x, level)`` sees levels of its table. Noise comes from `noise(seed)`."""
    generator = torch.Generator().manual_seed(seed)
    for t in made.timesteps:
        a2 = made.alphas_cumprod[t].double()
        output = network(x, Level(int(t), float(a2.sqrt()), float((1 - a2).sqrt())))
        x = made.step(output, t, x, eta=gamma, generator=generator).prev_sample
    return x


def noise(x, seed=0):
    """``noise(n) -> z``: the very noises that `run` draws, in their order."""
    generator = torch.Generator().manual_seed(seed)
    return lambda n: torch.randn(x.shape, generator=generator, dtype=x.dtype)
