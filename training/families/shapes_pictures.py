"""Pictures of scenes: 32 × 32 px, RGB in 8 bits, drawn from signed distances, anti-aliased, the same from one seed.

What no caption says is drawn at random within bounds: places within ±0.8 px of their cell's middle (±2 px along the
free side of two objects), radii within their size's span, shades of the colours, the phase of stripes and dots.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .shapes_scenes import BACKGROUNDS, COLOURS, SHAPES, SIZES, SLOTS, TEXTURES, Scene

SIDE = 32
RGB = {
    "red": (0.86, 0.12, 0.12),
    "orange": (0.98, 0.52, 0.08),
    "yellow": (0.96, 0.88, 0.14),
    "green": (0.12, 0.62, 0.24),
    "blue": (0.14, 0.34, 0.90),
    "purple": (0.58, 0.16, 0.72),
    "white": (0.97, 0.97, 0.97),
    "grey": (0.55, 0.55, 0.55),
    "black": (0.05, 0.05, 0.05),
    "beige": (0.90, 0.80, 0.62),
}
RADII = {"small": (3.2, 3.6), "medium": (4.5, 4.9), "large": (6.0, 6.5)}  # px
CELLS = (8.6, 16.0, 23.4)  # px: middles of cells 0, 0.5 and 1
SHADE = 0.03  # of each colour channel, ±
DARK = 0.35  # a texture's second colour, times the first
PERIOD = 4.0  # px, of stripes and dots
CHUNK = 500  # scenes drawn at a time


def draw_pictures(scenes: list[Scene], seed: int) -> Tensor:
    """Pictures (n, 3, 32, 32), uint8, of scenes; the i-th depends on the seed, on i, and on its scene."""
    generator = np.random.default_rng([seed, *b"pictures"])
    parts = [scenes[i : i + CHUNK] for i in range(0, len(scenes), CHUNK)]
    return torch.cat([_render(*_placed(part, generator)).mul_(255).round_().byte() for part in parts])


def as_floats(pictures: Tensor) -> Tensor:
    """Pictures in [−1, 1] of pictures in 8 bits."""
    return pictures.float().div_(127.5).sub_(1)


def _placed(scenes: list[Scene], generator: np.random.Generator):
    """What `_render` is given, with the batch and the slots first; an absent object has radius 0."""
    n = len(scenes)
    jitter = generator.uniform(-1, 1, (n, SLOTS, 8)).astype(np.float32)
    numbers = np.zeros((n, SLOTS, 2), np.int64)  # shape, texture
    centre, radius, colour = np.zeros((n, SLOTS, 2)), np.zeros((n, SLOTS)), np.zeros((n, SLOTS, 3))
    ground = np.zeros((n, 3))
    for i, scene in enumerate(scenes):
        ground[i] = RGB[scene.background]
        for slot, ((x, y), thing) in enumerate(scene.in_order()):
            low, high = RADII[thing.size]
            radius[i, slot] = (low + high) / 2 + (high - low) / 2 * jitter[i, slot, 2]
            reach = [2.0 if at == 0.5 and len(scene.things) == 2 else 0.8 for at in (x, y)]
            centre[i, slot] = np.array([CELLS[int(2 * x)], CELLS[int(2 * y)]]) + reach * jitter[i, slot, :2]
            colour[i, slot] = RGB[thing.colour]
            numbers[i, slot] = SHAPES.index(thing.shape), TEXTURES.index(thing.texture)
    colour = (colour + SHADE * jitter[..., 3:6]).clip(0, 1)
    ground = (ground + SHADE * generator.uniform(-1, 1, (n, 3))).clip(0, 1)
    arrays = (centre, radius, colour, jitter[..., 6:8], ground)
    return (*(torch.from_numpy(np.asarray(a, np.float32)) for a in arrays), *torch.from_numpy(numbers).unbind(-1))


def _render(centre, radius, colour, phase, ground, shape, texture) -> Tensor:
    """Pictures (n, 3, H, W) in [0, 1]: each object over the ground, by how much of a pixel it covers."""
    pixels = torch.arange(SIDE) + 0.5
    x = pixels[None, None, None, :] - centre[..., 0, None, None]
    y = pixels[None, None, :, None] - centre[..., 1, None, None]
    inside = _covered(_among(_distances(x, y, radius[..., None, None]), shape)) * (radius > 0)[..., None, None]
    marked = _among(_textures(x + 0.5 * phase[..., 0, None, None], y + 0.5 * phase[..., 1, None, None]), texture)
    picture = ground[:, :, None, None].expand(-1, -1, SIDE, SIDE)
    for slot in range(SLOTS):
        own = colour[:, slot, :, None, None] * (1 - (1 - DARK) * marked[:, slot, None])
        picture = torch.lerp(picture, own, inside[:, slot, None])
    return picture


def _covered(distance: Tensor) -> Tensor:
    """How much of a pixel lies inside an edge at this signed distance from its middle, px; negative inside."""
    return (0.5 - distance).clamp(0, 1)


def _among(of_each: Tensor, number: Tensor) -> Tensor:
    """The entry ``number`` (n, slots) of values (kinds, n, slots, H, W)."""
    return of_each.gather(0, number[None, ..., None, None].expand(1, *of_each.shape[1:]))[0]


def _distances(x: Tensor, y: Tensor, r: Tensor) -> Tensor:
    """Signed distances from the edges of `SHAPES` of radius r, px, exact along straight edges."""
    x, y = torch.broadcast_tensors(x, y)
    ax, ay = x.abs(), y.abs()
    circle = (x.square() + y.square()).sqrt() - r
    square = torch.maximum(ax, ay) - 0.88 * r
    down = y - 0.2 * r  # an upright equilateral triangle's incircle, of radius 0.6 r, has its middle below the cell's
    triangle = torch.maximum(down, ax * 0.75**0.5 - down / 2) - 0.6 * r
    diamond = (ax + ay - 1.15 * r) * 0.5**0.5
    bar = torch.minimum(torch.maximum(ax - r, ay - 0.36 * r), torch.maximum(ax - 0.36 * r, ay - r))
    return torch.stack([circle, square, triangle, diamond, bar])


def _textures(x: Tensor, y: Tensor) -> Tensor:
    """How much of a pixel is of a texture's second colour, of `TEXTURES`."""
    x, y = torch.broadcast_tensors(x, y)
    stripes = _covered((torch.remainder(y, PERIOD) - PERIOD / 2).abs() - PERIOD / 4)
    nearest = [torch.remainder(v, PERIOD) - PERIOD / 2 for v in (x, y)]
    dots = _covered((nearest[0].square() + nearest[1].square()).sqrt() - 1.1)
    return torch.stack([torch.zeros_like(x), stripes, dots])


assert set(RGB) == {*COLOURS, *BACKGROUNDS} and tuple(RADII) == SIZES
