"""Sizes of nearly one area and many shapes, so that pictures are cropped little and a batch has one size."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import NamedTuple

from .items import DataError


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


class Fit(NamedTuple):
    """How a picture becomes its bucket's: scaled until it covers it, then cropped.

    Attributes:
        scaled: its size before the crop.
        left, top: the crop's corner in the scaled picture, pixels.
    """

    scaled: Size
    left: int
    top: int


@lru_cache
def buckets(resolution: int, step: int = 64, max_aspect: float = 2.0) -> tuple[Size, ...]:
    """Every size with sides that are multiples of ``step``, an area of at most resolution² and sides of a ratio of at
    most ``max_aspect``, unless another such size contains it; the square in any case. Widest last.

    Raises:
        DataError: the numbers leave none, or the step does not suit a VAE that makes 8 × 8 pixels one.
    """
    if step < 8 or step % 8:
        raise DataError(f"data.bucket_step must be a multiple of 8 pixels, got {step}: 64 suits Stable Diffusion")
    if resolution < step:
        raise DataError(f"model.resolution must be at least data.bucket_step = {step} pixels, got {resolution}")
    if not max_aspect >= 1:
        raise DataError(f"data.max_aspect must be at least 1, got {max_aspect}")
    area = resolution**2
    tallest = {}
    for width in range(step, int(math.sqrt(area * max_aspect)) + 1, step):
        height = int(min(area / width, max_aspect * width)) // step * step
        if height and width <= max_aspect * height:
            tallest[width] = height
    sizes = {Size(*sides) for w, h in tallest.items() for sides in ((w, h), (h, w))}
    inner = {a for a in sizes for b in sizes if a != b and a.width <= b.width and a.height <= b.height}
    return tuple(sorted(sizes - inner | {Size(*[resolution // step * step] * 2)}))


def bucket_for(width: int, height: int, sizes: tuple[Size, ...]) -> Size:
    """The bucket whose shape is nearest a picture's, the larger of two as near."""
    wanted = math.log(width / height)
    return min(sizes, key=lambda size: (round(abs(math.log(size.width / size.height) - wanted), 9), -math.prod(size)))


def fit(size: Size, bucket: Size, right: float = 0.5, down: float = 0.5) -> Fit:
    """Scale a picture until it just covers the bucket, and crop.

    Args:
        right, down: where the crop lies in what is too much, 0 … 1; 0.5 is the middle.
    """
    scale = max(bucket.width / size.width, bucket.height / size.height)
    scaled = Size(*(max(inner, round(side * scale)) for side, inner in zip(size, bucket, strict=True)))
    return Fit(scaled, round(right * (scaled.width - bucket.width)), round(down * (scaled.height - bucket.height)))


def sizes_record(size: Size, bucket: Size, crop: Fit) -> tuple[int, int, int, int, int, int]:
    """SDXL's size conditioning: original height and width, the crop's top and left, target height and width."""
    return size.height, size.width, crop.top, crop.left, bucket.height, bucket.width
