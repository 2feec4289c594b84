"""Every cell's pictures, batch by batch, into files; what is there already is left.

A batch is the same prompts in the same order whatever is missing, and one shape, the last filled up with its own last
prompt: so a picture's bits do not depend on what was made before a kill, nor on how many processes share the batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor

from tcd_core import plan, sample, to_x0
from tcd_core.levels import Level

from ..samplers import Network, run_times, sample_reference, sample_solver
from . import pictures
from .cells import Cell
from .costs import Cost, append, counted, measured
from .model import Model, Student
from .noise import generators_of, noise_of, start_of
from .prompts import Prompt


@dataclass(frozen=True)
class Work:
    """What is to be made, where, and which part of it is this process's.

    Attributes:
        folder: holds ``pictures/<cell>/<number>.png`` and ``costs/<cell>.<process>.jsonl``.
        loras: name → file.
        batch: pictures at a time.
        w: the numerical solvers' guidance, ``ε_c + w (ε_c − ε_∅)``.
        process, processes: every ``processes``-th batch from the ``process``-th is this one's.
    """

    folder: Path
    prompts: Sequence[Prompt]
    cells: Sequence[Cell]
    loras: Mapping[str, Path]
    batch: int
    w: float
    process: int = 0
    processes: int = 1

    def path(self, cell: Cell, number: int) -> Path:
        return picture_path(self.folder, cell, number)

    @property
    def rows(self) -> list[range]:
        """This process's batches: their prompts' numbers."""
        count, size = len(self.prompts), self.batch
        starts = range(self.process * size, count, self.processes * size)
        return [range(start, min(start + size, count)) for start in starts]

    def missing(self, cell: Cell) -> list[range]:
        """Those batches of a cell of which a picture is not there yet."""
        folder = self.path(cell, 0).parent
        there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        return [rows for rows in self.rows if any(self.path(cell, i).name not in there for i in rows)]


def picture_path(folder: Path, cell: Cell, number: int) -> Path:
    """The file of a cell's picture of prompt ``number``."""
    return folder / "pictures" / cell.name / f"{number:05d}.png"


def generate(work: Work, model: Model, done: Callable[[int], None] = lambda count: None) -> None:
    """Make what is missing of this process's share.

    Args:
        done: called with the number of pictures after each batch of a cell.

    Raises:
        ValueError: a LoRA does not fit the model.  OutputError: no room on the disk.
    """
    (work.folder / "costs").mkdir(parents=True, exist_ok=True)
    for cell in work.cells:
        work.path(cell, 0).parent.mkdir(parents=True, exist_ok=True)
    for lora, group in groupby(sorted(work.cells, key=lambda cell: cell.method.lora), lambda cell: cell.method.lora):
        todo: dict[range, list[Cell]] = {}
        for cell in group:
            for rows in work.missing(cell):
                todo.setdefault(rows, []).append(cell)
        if todo:
            weights = model.student(work.loras[lora]) if lora else model.base()
            with torch.inference_mode():
                for rows in sorted(todo, key=lambda rows: rows.start):
                    for _ in _batch(work, model, weights, rows, todo[rows]):
                        done(len(rows))
            del weights


def _batch(work: Work, model: Model, weights, rows: range, cells: Sequence[Cell]) -> Iterator[Cell]:
    """One batch of prompts through every cell that lacks a picture of it."""
    filled = [*rows, *[rows[-1]] * (min(work.batch, len(work.prompts)) - len(rows))]
    prompts = [work.prompts[i] for i in filled]
    guided = not isinstance(weights, Student)
    condition, none = model.texts([prompt.text for prompt in prompts], empty=guided)
    for cell in cells:
        cost = Cost(rows.start // work.batch, len(filled))
        network = model.guided(weights, condition, none, work.w) if guided else weights.network(condition)
        network = counted(network, cost, 2 if guided else 1)
        with measured(cost, model.device):
            decoded = model.decode(_latents(cell, model, weights, network, prompts))
        cost.broken = [i for i, picture in zip(rows, decoded, strict=False) if not picture.isfinite().all()]
        made = pictures.to_bytes(decoded)
        for i, picture in zip(rows, made, strict=False):
            if not (path := work.path(cell, i)).exists():
                pictures.write(path, picture)
        append(work.folder / "costs" / f"{cell.name}.{work.process}.jsonl", cost)
        yield cell


def _latents(cell: Cell, model: Model, weights, network: Network, prompts: Sequence[Prompt]) -> Tensor:
    """A batch's latents at the end of the cell's sampler."""
    family, sampler, steps = model.family, cell.method.sampler, cell.steps
    noise = noise_of(prompts, cell.seed, family.latent_shape, model.device)
    x = start_of(noise)
    if sampler == "sss":
        return sample_sss(network, family, x, steps, cell.gamma, noise, weights.order, weights.form)
    if sampler in ("lcm", "tcd"):
        generators = generators_of(prompts, cell.seed)
        return sample_reference(sampler, network, family.prediction, family.schedule, x, steps, cell.gamma, generators)
    return sample_solver(sampler, network, family.prediction, family.schedule, x, steps)


def sample_sss(network: Network, family, x: Tensor, evaluations: int, gamma: float, noise, order, form) -> Tensor:
    """Algorithm 4 from x; order "2" takes two evaluations a step."""
    steps = evaluations // 2 if order == "2" else evaluations

    def model(x: Tensor, t: Level, s: Level) -> Tensor:
        return to_x0(network(x, t.t, s.t), x, t, family.prediction)

    return sample(model, x, plan(family.schedule, run_times(family.schedule, steps), gamma, order, form=form), noise)
