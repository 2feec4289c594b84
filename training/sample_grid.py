"""The sample grid: methods down, step counts across, each cell a tile of small pictures, pixel for pixel."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, UnidentifiedImageError

from .plot_style import DPI, WIDTH, save, styled

TOP, GAP, HAIR = 52, 26, 6  # pixels: for the heads, between cells, between the pictures of a cell
LETTER = 19  # pixels that a letter of a label takes at most
LONGEST = 24  # letters of a label's line; longer ones are cut

Pictures = np.ndarray | Sequence[Path]


def sample_grid(
    rows: Mapping[str, Mapping[int, Pictures]], path: Path, columns: int = 5, lines: int = 2, invert: bool = False
) -> None:
    """Methods down, step counts across; each cell shows the first ``columns × lines`` pictures there.

    Give every cell pictures of one seed and one order of classes, so that those at the same place can be compared. A
    missing cell stays white. Pixels are enlarged by a whole number, or pictures too large for it reduced by one.

    Args:
        rows: label → steps → pictures: (n, H, W), grey, or (n, 3, H, W), in [-1, 1], arrays or CPU tensors; or files,
            of which no more than one is held at full size. A label "name, note" stands in two lines.
        invert: show -1 white and 1 black, as ink on paper.

    Raises:
        ValueError: no pictures, of another shape, not all of one size, or a file that is none.
    """
    cells = {(name, int(n)): images[: columns * lines] for name, by in rows.items() for n, images in by.items()}
    sizes = {size for (name, _), images in cells.items() for size in _sizes(images, name)}
    if len(sizes) != 1:
        raise ValueError(f"a grid needs pictures, all of one size; got sizes {sorted(sizes)}")
    most = max(len(images) for images in cells.values())
    columns = min(columns, most)
    lines = min(lines, math.ceil(most / columns))
    (height, width), names, steps = sizes.pop(), list(rows), sorted({n for _, n in cells})
    left = GAP + LETTER * max(len(line) for name in rows for line in _lines(name))
    room = (WIDTH * DPI - left) / len(steps) - GAP - (columns - 1) * HAIR
    scale, shrink = max(1, int(room // (columns * width))), max(1, math.ceil(columns * width / room))
    high, wide = (n * (side // shrink * scale + HAIR) - HAIR for n, side in ((lines, height), (columns, width)))
    spare = int(WIDTH * DPI) - left - len(steps) * (wide + GAP)
    across, down = wide + GAP + min(max(0, spare // len(steps)), 2 * GAP), high + GAP
    canvas = np.full((TOP + len(names) * down, left + len(steps) * across, 3), 255, np.uint8)
    for (name, n), images in cells.items():
        y, x = TOP + names.index(name) * down, left + steps.index(n) * across
        canvas[y : y + high, x : x + wide] = _tile(_pictures(images, name, invert, scale, shrink), columns, lines)
    heads = {n: left + i * across + wide / 2 for i, n in enumerate(steps)}
    _labelled(canvas, left, heads, {name: TOP + i * down + high / 2 for i, name in enumerate(names)}, path)


def _sizes(images: Pictures, name: str) -> set[tuple[int, int]]:
    """(height, width) of a cell's pictures; files are only looked at."""
    if not hasattr(images, "shape"):
        found = set()
        for file in images:
            with _open(file) as image:
                found.add(image.size[::-1])
        return found
    if len(images.shape) == 3 or len(images.shape) == 4 and images.shape[1] in (1, 3):
        return {tuple(images.shape[-2:])}
    raise ValueError(f"pictures of {name!r} must be (n, H, W) or (n, 3, H, W), got {tuple(images.shape)}")


def _open(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except (UnidentifiedImageError, OSError) as error:
        raise ValueError(f"{path} is not a picture that can be shown ({error})") from error


def _pictures(images: Pictures, name: str, invert: bool, scale: int, shrink: int) -> np.ndarray:
    """(n, height, width, 3) in 0 … 255, at the size they are shown in."""
    if hasattr(images, "shape"):
        return _resize(_from_array(images, invert), scale, shrink)
    shown = []
    for file in images:
        with _open(file) as image:
            try:
                pixels = np.asarray(image.convert("RGB"))
            except OSError as error:
                raise ValueError(f"{file} is damaged ({error}): make it again") from error
        shown.append(_resize((255 - pixels if invert else pixels)[None], scale, shrink)[0])
    return np.stack(shown)


def _from_array(images: np.ndarray, invert: bool) -> np.ndarray:
    images = np.asarray(images, dtype=np.float32)
    images = images.transpose(0, 2, 3, 1) if images.ndim == 4 else images[..., None]
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
    line = " ".join(label.split())
    name, comma, note = line.rpartition(", ")
    return (_cut(name), _cut(note)) if comma else (_cut(line), "")


def _cut(line: str) -> str:
    return line if len(line) <= LONGEST else line[: LONGEST - 1] + "…"


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
