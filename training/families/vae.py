"""Stable Diffusion's VAE in as little memory as shows nothing: at most a million pixels at a time.

Pictures to train on are encoded in float32, large ones one by one. Pictures to look at are decoded one by one beside a
training, which leaves no memory for more, and else as many at a time as have `SMALL` pixels together; above 768 px in
bfloat16 (SDXL's VAE overflows in float16): half the memory, and nearer to float32 than tiles are, whose norms and
attention see their own part only. Tiles are for what is larger still, and for GPUs without bfloat16.
"""

from __future__ import annotations

import torch
from diffusers import AutoencoderKL
from torch import Tensor

PIXELS = 1024**2  # that go through the VAE at a time; in float32 the decoder takes SMALL
SMALL = 768**2


@torch.no_grad()
def encode(vae: AutoencoderKL, pixels: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1] → latents (B, 4, H/8, W/8): the posterior's mean, scaled."""
    count = max(1, PIXELS // pixels.shape[-2:].numel())
    means = [vae.encode(part).latent_dist.mean for part in pixels.split(count)]
    return torch.cat(means) * vae.config.scaling_factor


def decoding_dtype(latents: Tensor, device: torch.device, factor: int = 8) -> torch.dtype:
    """The number format in which pictures of these latents are decoded; ``factor`` is theirs to pixels."""
    large = latents.shape[-2:].numel() * factor**2 > SMALL
    return torch.bfloat16 if large and _has_bf16(device) else torch.float32


@torch.no_grad()
def decode(vae: AutoencoderKL, latents: Tensor, together: bool = False) -> Tensor:
    """Pictures (B, 3, H, W) in [−1, 1], float32 on the CPU, of scaled latents (B, 4, H/8, W/8).

    Args:
        vae: in `decoding_dtype`; it is left as it decodes these, in tiles or not.
        together: several small ones at a time, as many as have `SMALL` pixels together.
    """
    factor = 2 ** (len(vae.config.block_out_channels) - 1)
    most = SMALL if vae.dtype == torch.float32 else PIXELS
    vae.use_tiling = latents.shape[-2:].numel() * factor**2 > most
    if vae.use_tiling:
        vae.tile_latent_min_size = int(most**0.5) // factor
        vae.tile_sample_min_size = vae.tile_latent_min_size * factor
    scale = vae.config.scaling_factor
    count = max(1, SMALL // (latents.shape[-2:].numel() * factor**2)) if together else 1
    parts = (x.to(vae.device) / scale for x in latents.split(count))
    pictures = [vae.decode(x.to(vae.dtype)).sample.float().cpu() for x in parts]
    return torch.cat(pictures).clamp(-1, 1)


def _has_bf16(device: torch.device) -> bool:
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (8, 0)
