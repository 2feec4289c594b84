"""Teacher pairs that are kept: a run of N batches again and again, whose teacher steps are worked out once.

Step i trains on the batch of step i mod N: its data, noise, times and end times. While its guidance w is one number,
x̂_{t_n} of that batch is the same each time, and the teacher's two evaluations, a good third of a step's work, need not
be made again. What is kept, in main memory, are the teacher's data predictions; nothing of it is in a checkpoint: a
resumed run works out again what it comes to, from (seed, step), and several processes keep their own shares.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tcd_core import Level

from .draws import WHOLE
from .families import Family
from .objective import Batch, TrajectoryDistillation
from .recipe import Recipe


class KeptPairs(TrajectoryDistillation):
    """The objective over ``objective.pairs`` batches, each with the teacher asked once."""

    def __init__(self, family: Family, recipe: Recipe, *args, **options) -> None:
        super().__init__(family, recipe, *args, **options)
        self.pairs = recipe.objective.pairs
        self._known: dict[str, tuple[Tensor, ...]] = {}

    def draw(self, step: int, part: slice = WHOLE) -> Batch:
        """The samples ``part`` of the batch of step mod N, with the teacher's predictions if it was here before."""
        step %= self.pairs
        name = f"{step}: {part.start} to {part.stop}"
        return super().draw(step, part)._replace(name=name, predictions=self._known.get(name, ()))

    def _teacher(self, batch: Batch):
        if not batch.name:  # drawn by someone else
            return super()._teacher(batch)
        if batch.predictions:
            again = iter(batch.predictions)
            return lambda x, t, s: next(again)
        ask = super()._teacher(batch)
        self._known[batch.name] = ()

        def asked(x: Tensor, t: Level, s: Level) -> Tensor:
            x0 = ask(x, t, s)
            self._known[batch.name] += (x0.detach().to("cpu", torch.float32),)
            return x0

        return asked


def distillation(family: Family, recipe: Recipe, **options) -> TrajectoryDistillation:
    """The recipe's objective: with kept teacher pairs where it asks for them."""
    return (KeptPairs if recipe.objective.pairs else TrajectoryDistillation)(family, recipe, **options)


def kept_bytes(recipe: Recipe, latents: tuple[int, ...], processes: int = 1) -> int:
    """Main memory that a process's pairs take.

    Args:
        latents: shape of one sample's, without the batch.
    """
    objective = recipe.objective
    evaluations = 2 if objective.solver == "dpm2" else 1
    batches = min(objective.pairs, recipe.training.steps)
    return 4 * batches * evaluations * -(-recipe.training.batch // processes) * torch.Size(latents).numel()
