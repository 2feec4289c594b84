"""Random draws keyed by (seed, stream, step): the same however a run is stopped, resumed or split over processes."""

from __future__ import annotations

import numpy as np
import torch
from torch.utils._pytree import tree_map

WHOLE = slice(None)  # the part of a batch that is all of it


def generator_for(seed: int, stream: str, step: int) -> torch.Generator:
    """A CPU generator for one step of one stream (a stream is a phase's name: "teacher", "tcd")."""
    words = np.random.SeedSequence([seed, step, *stream.encode()]).generate_state(2, np.uint32)
    return torch.Generator().manual_seed(int(words[0]) << 32 | int(words[1]))


def epoch_rows(step: int, count: int, total: int, seed: int, stream: str) -> torch.Tensor:
    """Which items of a dataset step's batch holds: each epoch a fresh permutation, each item once in it.

    Positions ``step · count … (step + 1) · count − 1`` of the endless sequence of permutations; shape (count,).
    """
    positions = np.arange(step * count, (step + 1) * count)
    rows = np.empty(count, dtype=np.int64)
    for epoch in np.unique(positions // total):
        order = torch.randperm(total, generator=generator_for(seed, f"{stream} epoch", int(epoch))).numpy()
        inside = positions // total == epoch
        rows[inside] = order[positions[inside] % total]
    return torch.from_numpy(rows)


def rows_of(batch, part: slice):
    """The samples ``part`` of a batch: of every tensor in it these rows."""
    return batch if part == WHOLE else tree_map(lambda tensor: None if tensor is None else tensor[part], batch)
