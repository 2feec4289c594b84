"""The sample grid: methods down, step counts across, each cell a tile of small pictures, pixel for pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from .plot_style import DPI, WIDTH, save, styled

TOP, GAP, HAIR = 52, 26, 6  # pixels: for the heads, between cells, between the pictures of a cell
LETTER = 19  # pixels that a letter of a label takes at most


def sample_grid(
    rows: Mapping[str, Mapping[int, np.ndarray]], path: Path, columns: int = 5, lines: int = 2, invert: bool = False
) -> None:
    """Methods down, step counts across; each cell shows the first ``columns × lines`` pictures there.

    Give every cell pictures of one seed and one order of classes, so that those at the same place can be compared. A
    missing cell stays white. Pixels are enlarged by a whole number, or pictures too large for it reduced by one.

    Args:
        rows: label → steps → pictures (n, H, W), grey, or (n, 3, H, W), in [-1, 1], arrays or CPU tensors. A
            label "name, note" stands in two lines.
        invert: show -1 white and 1 black, as ink on paper.

    Raises:
        ValueError: no pictures, of another shape, or not all of one size.
    """
    tiles = {
        (name, int(n)): _pictures(images, name, invert)[: columns * lines]
        for name, by in rows.items()
        for n, images in by.items()
    }
    sizes = {tile.shape[1:] for tile in tiles.values()}
    if len(sizes) != 1:
        raise ValueError(f"a grid needs pictures, all of one size; got sizes {sorted(sizes)}")
    (_, width, _), steps = sizes.pop(), sorted({n for _, n in tiles})
    left = GAP + LETTER * max(len(line) for name in rows for line in _lines(name))
    room = (WIDTH * DPI - left) / len(steps) - GAP - (columns - 1) * HAIR
    scale, shrink = max(1, int(room // (columns * width))), max(1, math.ceil(columns * width / room))
    tiles = {key: _tile(_resize(tile, scale, shrink), columns, lines) for key, tile in tiles.items()}
    _draw(tiles, list(rows), steps, left, path)


def _draw(tiles: Mapping[tuple[str, int], np.ndarray], names: list[str], steps: list[int], left: int, path: Path):
    """Paste the cells at their places, with words above and to the left."""
    height, width, _ = next(iter(tiles.values())).shape
    spare = int(WIDTH * DPI) - left - len(steps) * (width + GAP)
    across, down = width + GAP + min(max(0, spare // len(steps)), 2 * GAP), height + GAP
    canvas = np.full((TOP + len(names) * down, left + len(steps) * across, 3), 255, np.uint8)
    for (name, n), tile in tiles.items():
        y, x = TOP + names.index(name) * down, left + steps.index(n) * across
        canvas[y : y + height, x : x + width] = tile
    heads = {n: left + i * across + width / 2 for i, n in enumerate(steps)}
    _labelled(canvas, left, heads, {name: TOP + i * down + height / 2 for i, name in enumerate(names)}, path)


def _pictures(images: np.ndarray, name: str, invert: bool) -> np.ndarray:
    """(n, H, W, 3) in 0 … 255 from pictures in [-1, 1]."""
    images = np.asarray(images, dtype=float)
    if images.ndim == 4 and images.shape[1] in (1, 3):
        images = images.transpose(0, 2, 3, 1)
    elif images.ndim == 3:
        images = images[..., None]
    else:
        raise ValueError(f"pictures of {name!r} must be (n, H, W) or (n, 3, H, W), got {images.shape}")
    images = np.nan_to_num(-images if invert else images, nan=0.0)
    whole = np.rint((np.clip(images, -1, 1) + 1) * 127.5).astype(np.uint8)
    return np.broadcast_to(whole, (*whole.shape[:3], 3))


def _resize(pictures: np.ndarray, scale: int, shrink: int) -> np.ndarray:
    """Each pixel ``scale`` times as large, or the mean of ``shrink × shrink`` pixels."""
    if shrink == 1:
        return pictures.repeat(scale, axis=1).repeat(scale, axis=2)
    n, height, width = (pictures.shape[0], *(side // shrink for side in pictures.shape[1:3]))
    blocks = pictures[:, : height * shrink, : width * shrink].reshape(n, height, shrink, width, shrink, 3)
    return blocks.mean(axis=(2, 4)).astype(np.uint8)


def _tile(pictures: np.ndarray, columns: int, lines: int) -> np.ndarray:
    """Pictures in reading order with a hair of white between; places without one are white."""
    n, height, width, _ = pictures.shape
    full = np.full((columns * lines, height + HAIR, width + HAIR, 3), 255, np.uint8)
    full[:n, :height, :width] = pictures
    whole = full.reshape(lines, columns, *full.shape[1:]).swapaxes(1, 2)
    return whole.reshape(lines * full.shape[1], columns * full.shape[2], 3)[:-HAIR, :-HAIR]


def _lines(label: str) -> tuple[str, str]:
    name, _, note = label.partition(", ")
    return name, note


def _labelled(
    canvas: np.ndarray, left: int, heads: Mapping[int, float], names: Mapping[str, float], path: Path
) -> None:
    """The canvas pixel for pixel, with words at its top and left."""
    height, width, _ = canvas.shape
    with styled():
        figure = Figure(figsize=((width + 0.01) / DPI, (height + 0.01) / DPI), dpi=DPI)
        figure.figimage(canvas, origin="upper")
        for n, x in heads.items():
            words = f"{n} {'step' if n == 1 else 'steps'}"
            figure.text(x / width, 1 - 0.5 * TOP / height, words, ha="center", va="center", color="#222222")
        for key, y in names.items():
            name, note = _lines(key)
            place = dict(x=(left - 16) / width, ha="right")
            up = 15 / height if note else 0.0
            figure.text(y=1 - y / height + up, s=name, va="center", weight="bold", color="#222222", **place)
            figure.text(y=1 - y / height - 1.2 * up, s=note, va="center", size=8, color="#555555", **place)
        save(figure, path)
