"""Noise in place of a family's data: for steps that are timed, weighed or counted before there is a cache."""

from __future__ import annotations

import torch
from torch import Tensor

from .data.buckets import Size
from .draws import WHOLE
from .families.encoders import TOKENS
from .student import Condition


class RandomData:
    """In place of a family's ``data``: noise of the shapes that the cache would give.

    Attributes:
        latent_shape: of one item, (C, H, W).

    Args:
        size: of the pictures, px.
    """

    def __init__(self, family, size: Size) -> None:
        self.family, self.size = family, size
        self.latent_shape = (4, size.height // 8, size.width // 8)
        self.widths = text_widths(family)

    def __call__(self, step: int, count: int, seed: int, stream: str, part: slice = WHOLE) -> tuple:
        rows = torch.arange(count)[part]
        width, height = self.size.width, self.size.height
        sizes = torch.tensor([[height, width, 0, 0, height, width]]).expand(len(rows), 6)
        latents = torch.randn(len(rows), *self.latent_shape)
        return rows, latents, self._told(sizes), self._told(sizes)

    def _told(self, sizes: Tensor) -> Condition:
        shapes = {"encoder_hidden_states": (TOKENS,), "pooled": ()}
        texts = {name: torch.randn(len(sizes), *shapes[name], width) for name, width in self.widths.items()}
        return self.family.told(texts, sizes)


def text_widths(family) -> dict[str, int]:
    """Channels of what the network is told of a caption: per token, and of SDXL also as a whole."""
    config = family.found.configs["unet"]
    widths = {"encoder_hidden_states": config["cross_attention_dim"]}
    if family.spec.sized:
        widths["pooled"] = config["projection_class_embeddings_input_dim"] - 6 * config["addition_time_embed_dim"]
    return widths


def bytes_per_caption(family) -> int:
    """Of a caption's embeddings in the cache, which are in float16."""
    widths = text_widths(family)
    return 2 * (TOKENS * widths["encoder_hidden_states"] + widths.get("pooled", 0))
