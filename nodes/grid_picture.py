"""The grid as a picture: labels drawn once, cells put into it as they come."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from .grid_layout import MAX_PIXELS, Layout, fitted_layout
from .grid_settings import GridSettings, Run

PAPER, INK = 0.96, 0.1  # greys


def draw_grid(
    settings: GridSettings, items: Sequence[int], pictures_of: Callable[[Run], torch.Tensor], max_cell: int
) -> GridPicture:
    """The grid of all runs. Of the pictures only one run's are in memory at a time; the first tells their size."""
    runs = settings.runs()
    first = next(runs)
    pictures = pictures_of(first)
    height, width = pictures.shape[1:3]
    layout = fitted_layout(height, width, settings.words(items), max_cell)
    if layout.height < height and max(layout.height, layout.width) < max_cell:
        logging.warning(
            f"TCD Grid: cells of {width} × {height} are reduced to {layout.width} × {layout.height}, so that the grid "
            f"has no more than {MAX_PIXELS // 10**6} megapixels; fewer cells stay larger."
        )
    grid = GridPicture(layout)
    grid.put(first, pictures)
    del pictures
    for run in runs:
        grid.put(run, pictures_of(run))
    return grid


class GridPicture:
    """A grid under construction: the one large tensor there is, whatever the number of cells.

    Attributes:
        pixels: height × width × 3, float32 in [0, 1] on the CPU.
    """

    def __init__(self, layout: Layout):
        self.layout = layout
        self.pixels = torch.full((*layout.size, 3), PAPER)
        letters, words = layout.letters, layout.words
        for block, heading in enumerate(words.blocks):
            y, x = layout.corner(block)
            if heading:
                middle = x + layout.left + (len(words.columns) * layout.slot[1] - layout.gap) // 2
                self._write(heading, y, max(x, middle - letters.width(heading) // 2))
            for column, word in enumerate(words.columns):
                middle = layout.place(block, 0, column)[1] + layout.width // 2
                self._write(word, y + layout.heading, middle - letters.width(word) // 2)
            for row, word in enumerate(words.rows):
                middle = layout.place(block, row, 0)[0] + layout.height // 2
                right = x + layout.left - letters.size // 2
                self._write(word, middle - letters.height // 2, right - letters.width(word))

    def _write(self, word: str, y: int, x: int) -> None:
        ink = torch.from_numpy(self.layout.letters.ink(word))[..., None]
        self.pixels[y : y + ink.shape[0], x : x + ink.shape[1]] += ink * (INK - PAPER)

    def put(self, run: Run, pictures: torch.Tensor) -> None:
        """Put a run's pictures, items × height × width × channels in [0, 1], into their cells, a block for each item.

        They are reduced where the cells are smaller.
        """
        for item, picture in enumerate(pictures):
            cell = self._cell(run.group * len(pictures) + item, run.row, run.column)
            cell[0] = reduced(picture[..., :3], self.layout.height, self.layout.width)

    def cells(self) -> list[torch.Tensor]:
        """Every cell as an IMAGE, 1 × height × width × 3, block by block, row by row: views, which take no memory."""
        axes = (range(len(words)) for words in (self.layout.words.blocks, *self.layout.words[:2]))
        return [self._cell(*place) for place in itertools.product(*axes)]

    def _cell(self, block: int, row: int, column: int) -> torch.Tensor:
        y, x = self.layout.place(block, row, column)
        return self.pixels[None, y : y + self.layout.height, x : x + self.layout.width]


def reduced(picture: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """A picture, height × width × channels, at a smaller size; the very same one where the size is its own."""
    if tuple(picture.shape[:2]) == (height, width):
        return picture
    channels_first = picture.movedim(-1, 0)[None].float()
    smaller = F.interpolate(channels_first, size=(height, width), mode="bicubic", antialias=True)
    return smaller[0].movedim(0, -1).clamp(0, 1)
