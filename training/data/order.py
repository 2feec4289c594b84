"""Which items a step's batch holds, from the step's number alone, when a batch must be of one size.

Each bucket has an endless sequence of its items: epoch after epoch, each a fresh permutation, an item once for each of
its repeats. A bucket's batches are cut from its own sequence, one after the other, so what is left of an epoch is not
lost but comes first in the next. After e epochs a bucket of n has given ⌊e n / count⌋ batches; which bucket's turn it
is within an epoch is drawn.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np
import torch

from ..draws import generator_for


class Order:
    """The order of batches over buckets.

    After e epochs every item has been given out e · repeats times, but for the fewer than ``count`` of each bucket
    that have not filled a batch yet. A bucket with fewer items than a batch gives one that holds some more than once.

    Args:
        rows: for each bucket, by its name, the items in it, each as often as it is to be seen in an epoch.
    """

    def __init__(self, rows: dict[Hashable, Sequence[int]]) -> None:
        self.rows = [np.asarray(of_bucket, dtype=np.int64) for _, of_bucket in sorted(rows.items()) if len(of_bucket)]
        if not self.rows:
            raise ValueError("an order needs at least one item")
        self.counts = np.array([len(of_bucket) for of_bucket in self.rows])
        self._turns = lru_cache(maxsize=4)(self._drawn_turns)
        self._permutation = lru_cache(maxsize=4 * len(self.rows))(self._drawn_permutation)

    def batch(self, step: int, count: int, seed: int, stream: str) -> np.ndarray:
        """The items of a step's batch, all of one bucket; shape (count,)."""
        epoch = self.epoch_of(step, count)
        turns = self._turns(epoch, count, seed, stream)
        turn = step - int(self._given(epoch, count).sum())
        bucket = int(turns[turn])
        number = int(self._given(epoch, count)[bucket]) + int((turns[:turn] == bucket).sum())
        return self._cut(bucket, number, count, seed, stream)

    def steps(self, epochs: int, count: int) -> int:
        """How many batches the first ``epochs`` epochs have."""
        return int(self._given(epochs, count).sum())

    def epoch_of(self, step: int, count: int) -> int:
        """The epoch, from 0, that a step is in."""
        epoch = step * count // int(self.counts.sum())  # never too late: an epoch has at most its share of batches
        while self.steps(epoch + 1, count) <= step:
            epoch += 1
        return epoch

    def _given(self, epochs: int, count: int) -> np.ndarray:
        """Batches that each bucket has given after some epochs."""
        return epochs * self.counts // count

    def _drawn_turns(self, epoch: int, count: int, seed: int, stream: str) -> np.ndarray:
        """The bucket of each batch of an epoch."""
        turns = np.repeat(np.arange(len(self.rows)), self._given(epoch + 1, count) - self._given(epoch, count))
        return turns[torch.randperm(len(turns), generator=generator_for(seed, f"{stream} turns", epoch)).numpy()]

    def _cut(self, bucket: int, number: int, count: int, seed: int, stream: str) -> np.ndarray:
        """A bucket's batch of some number, from its endless sequence."""
        places = np.arange(number * count, (number + 1) * count)
        epochs, inside = np.divmod(places, self.counts[bucket])
        order = {epoch: self._permutation(bucket, int(epoch), seed, stream) for epoch in np.unique(epochs)}
        return np.array([order[epoch][i] for epoch, i in zip(epochs, inside, strict=True)], dtype=np.int64)

    def _drawn_permutation(self, bucket: int, epoch: int, seed: int, stream: str) -> np.ndarray:
        generator = generator_for(seed, f"{stream} bucket {bucket}", epoch)
        return self.rows[bucket][torch.randperm(len(self.rows[bucket]), generator=generator).numpy()]
