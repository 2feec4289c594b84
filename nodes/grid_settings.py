"""What a grid compares: the settings of its runs, and the words at its rows, columns and blocks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from .number_lists import MAX_SEED, parse_integers, parse_numbers

MAX_STEPS = 10000
MAX_CELLS = 256  # where a cell is still 500 pixels wide in a grid of MAX_PIXELS


class Run(NamedTuple):
    """One run of the sampler: the place of its cell, where `group` counts the seeds, and its settings."""

    group: int
    row: int
    column: int
    seed: int
    steps: int
    gamma: float


class Words(NamedTuple):
    """The labels of a grid: of each row and column, and above each block, where a single one has an empty one."""

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    blocks: tuple[str, ...]


@dataclass(frozen=True)
class GridSettings:
    """Rows, columns and blocks: one run of the sampler for each combination.

    Attributes:
        steps: of each row.
        gammas: of each column.
        seeds: of each block, or of each group of blocks where the latent is a batch.
    """

    steps: tuple[int, ...]
    gammas: tuple[float, ...]
    seeds: tuple[int, ...]

    @classmethod
    def parse(cls, steps: str, gammas: str, seeds: str, seed: int) -> GridSettings:
        """From the texts of the node; `seed` where `seeds` is empty. ValueError says which text is wrong, and how."""
        settings = cls(
            tuple(parse_integers(steps, "steps", 1, MAX_STEPS)),
            tuple(parse_numbers(gammas, "gammas")),
            tuple(parse_integers(seeds, "seeds", 0, MAX_SEED)) or (seed,),
        )
        for name, example in (("steps", "2, 4, 8"), ("gammas", "0, 0.3, 1")):
            if not getattr(settings, name):
                raise ValueError(f"{name}: write at least one number, such as {example}")
        for gamma in settings.gammas:
            if not 0 <= gamma <= 1:
                raise ValueError(f"gammas: gamma must lie in [0, 1], got {gamma:g}")
        settings.check_size(1)
        return settings

    def check_size(self, items: int) -> None:
        """ValueError where this makes more than MAX_CELLS of a latent of so many batch items."""
        counts = (len(self.steps), len(self.gammas), len(self.seeds), items)
        if (cells := math.prod(counts)) > MAX_CELLS:
            named = zip(counts, ("steps", "gammas", "seeds", "batch items"), strict=True)
            factors = " × ".join(f"{count} {name}" for count, name in named if count > 1)
            raise ValueError(f"{factors} make {cells} cells, a grid holds {MAX_CELLS}: shorten a list or the batch")

    def runs(self) -> Iterator[Run]:
        """Every run, seed by seed, row by row."""
        axes = (enumerate(values) for values in (self.seeds, self.steps, self.gammas))
        for (group, seed), (row, steps), (column, gamma) in itertools.product(*axes):
            yield Run(group, row, column, seed, steps, gamma)

    def names(self, items: Sequence[int]) -> list[str]:
        """A name for each cell that files may bear, in the order block, row, column."""
        return [
            f"seed_{seed}{f'_item_{item}' if len(items) > 1 else ''}_steps_{steps}_gamma_{gamma:g}"
            for seed, item, steps, gamma in itertools.product(self.seeds, items, self.steps, self.gammas)
        ]

    def words(self, items: Sequence[int]) -> Words:
        """The labels for a latent with these batch items."""
        blocks = []
        for seed, item in itertools.product(self.seeds, items):
            parts = [f"seed {seed}"] if len(self.seeds) > 1 else []
            parts += [f"item {item}"] if len(items) > 1 else []
            blocks.append(", ".join(parts))
        rows = [f"{steps} step" if steps == 1 else f"{steps} steps" for steps in self.steps]
        return Words(tuple(rows), tuple(f"gamma {gamma:g}" for gamma in self.gammas), tuple(blocks))
