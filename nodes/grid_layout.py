"""Where the cells and labels of a grid lie: sizes and places in pixels, no drawing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from .grid_settings import Words
from .lettering import Lettering

MAX_PIXELS = 64_000_000
SMALLEST_LETTERS = 12  # pixels
SHAPE = 1.5  # width / height that several blocks are arranged to come near


@dataclass(frozen=True)
class Layout:
    """A grid of blocks, each with column labels above its cells, row labels at their left, and a heading over it all.

    Attributes:
        height, width: of a cell.
        words: the labels.
    """

    height: int
    width: int
    words: Words

    @cached_property
    def letters(self) -> Lettering:
        """As large as can be read when the whole grid is on the screen, but no larger than a fifth of a cell."""
        rows, columns, blocks = len(self.words.rows), len(self.words.columns), len(self.words.blocks)
        whole = max(self.height * rows, self.width * columns) * math.sqrt(blocks)
        cell = min(self.height, self.width)
        return Lettering(max(SMALLEST_LETTERS, int(min(cell / 5, max(cell / 20, whole / 64)))))

    @property
    def gap(self) -> int:
        """Between cells."""
        return max(2, self.letters.size // 4)

    @property
    def margin(self) -> int:
        """Round the grid; twice that between blocks."""
        return self.letters.size

    @cached_property
    def slot(self) -> tuple[int, int]:
        """(height, width) from one cell to the next: labels next to cells smaller than they are get their room."""
        widest = max(self.letters.width(word) for word in self.words.columns) + self.letters.size // 3
        return max(self.height, self.letters.height) + self.gap, max(self.width, widest) + self.gap

    @cached_property
    def left(self) -> int:
        """Room for the row labels."""
        return max(self.letters.width(word) for word in self.words.rows) + self.letters.size // 2

    @cached_property
    def heading(self) -> int:
        """Room for the heading of a block."""
        return self.letters.height + self.letters.size // 2 if any(self.words.blocks) else 0

    @cached_property
    def top(self) -> int:
        """Room for the heading and the column labels."""
        return self.heading + self.letters.height + self.gap

    @cached_property
    def block(self) -> tuple[int, int]:
        """(height, width) of a block with its labels."""
        height = self.top + len(self.words.rows) * self.slot[0] - self.gap
        width = len(self.words.columns) * self.slot[1] - self.gap
        return height, self.left + max(width, *(self.letters.width(word) for word in self.words.blocks))

    @cached_property
    def across(self) -> int:
        """How many blocks stand side by side: so that the shape is near SHAPE, and few places stay empty."""
        return min(range(1, len(self.words.blocks) + 1), key=self._misfit)

    def _misfit(self, across: int) -> float:
        height, width = self._size(across)
        blocks = len(self.words.blocks)
        empty = -blocks % across
        return abs(math.log(width / height / SHAPE)) + empty / blocks

    def _size(self, across: int) -> tuple[int, int]:
        down = -(-len(self.words.blocks) // across)
        return tuple(
            2 * self.margin * count + side * count for side, count in zip(self.block, (down, across), strict=True)
        )

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) of the grid."""
        return self._size(self.across)

    def corner(self, block: int) -> tuple[int, int]:
        """(y, x) of a block, labels included."""
        down, across = divmod(block, self.across)
        step = 2 * self.margin
        return self.margin + down * (self.block[0] + step), self.margin + across * (self.block[1] + step)

    def place(self, block: int, row: int, column: int) -> tuple[int, int]:
        """(y, x) of a cell, in the middle of its slot."""
        y, x = self.corner(block)
        spare = (self.slot[0] - self.gap - self.height) // 2, (self.slot[1] - self.gap - self.width) // 2
        return y + self.top + row * self.slot[0] + spare[0], x + self.left + column * self.slot[1] + spare[1]


def fitted_layout(height: int, width: int, words: Words, longest: int) -> Layout:
    """The layout for pictures of this size, reduced where a side is over `longest` or the grid over MAX_PIXELS."""
    scale = min(1.0, longest / max(height, width))
    while True:
        layout = Layout(max(1, round(height * scale)), max(1, round(width * scale)), words)
        pixels = math.prod(layout.size)
        if pixels <= MAX_PIXELS or max(layout.height, layout.width) == 1:
            return layout
        scale *= 0.99 * math.sqrt(MAX_PIXELS / pixels)
