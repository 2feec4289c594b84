"""Validation grids while a run goes on: fixed prompts and noise, the teacher beside the student at a few steps.

The student is sampled with the averaged weights, those that are saved. A run with grids trains to the same bits as one
without: random states and the networks' modes are put back, and the samplers' noise has generators of its own.
"""

from __future__ import annotations

import logging
import math
import random
import textwrap
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from torch import Tensor, nn

from tcd_core import FlowSchedule
from tcd_core.predictions import Prediction
from tcd_core.sss import Schedule

from .disk import OutputError
from .objective import TrajectoryDistillation
from .plot_style import DPI, save, styled
from .samplers import Network, guided, sample_solver, sample_sss, start_noise
from .student import Condition, Student

logger = logging.getLogger(__name__)

LEAST, MOST = 160, 512  # pixels: a picture's side in a grid, enlarged or reduced by a whole number
LEFT, TOP, GAP = 420, 52, 12  # pixels: for the prompts, for the heads, around each picture
LINE, LETTERS = 30, 25  # pixels of a prompt's line, letters in it


class Prompted(Protocol):
    """A family that can be asked for pictures of prompts.

    Attributes:
        latent_shape: of one picture, (C, H, W).
    """

    schedule: Schedule
    prediction: Prediction
    latent_shape: tuple[int, ...]

    def sample_condition(self, prompts: Sequence[str]) -> tuple[Condition, Condition]:
        """What the network is told of each prompt, and of none: tensors with the prompts first, on any device."""

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 1 or 3, H, W) in [−1, 1] of latents (B, C, H, W), given on the CPU: a whole grid at once.

        Whatever it loads to do that it frees again; its memory is to be that of one picture.
        """


@dataclass(frozen=True)
class ValidationSettings:
    """What a grid shows.

    Attributes:
        prompts: one row each; the noise of row i has seed ``seed + i``.
        every: optimiser steps between grids; 0 for one at the end alone.
        steps: the student's network evaluations, one column each.
        gamma: stochasticity γ that the student is sampled with.
        w: the teacher's guidance, ``ε_c + w (ε_c − ε_∅)``.
        teacher_steps: of the teacher's solver, DDIM (Euler for flows).
    """

    prompts: tuple[str, ...]
    every: int = 500
    steps: tuple[int, ...] = (2, 4, 8)
    gamma: float = 0.2
    w: float = 6.5
    teacher_steps: int = 25
    seed: int = 0


class Validation:
    """Draws a grid into ``folder/step_00000500.png`` every so many steps and at the last; on the main process alone.

    A grid that fails for want of memory or disk is told, and the run goes on: after the first failure for memory,
    without grids.

    A student in shards is evaluated by all processes together: each has a Validation, and all but the main one's only
    sample. What fails there ends the run, since the others wait.

    Args:
        task: what is trained; its family is `Prompted`.
        folder: where the pictures go; made when the first is drawn.
        last: the run's last step.
        shown: called with the step and the picture's file, for trackers.
        autocast: the context that the networks are evaluated in, as in training (``accelerator.autocast``).
        agree: whether any process says so, for a student in shards.
        draws: whether this process draws the grids, or only takes part in sampling them.
    """

    def __init__(
        self,
        task: TrajectoryDistillation,
        settings: ValidationSettings,
        folder: Path,
        last: int = 0,
        shown: Callable[[int, Path], None] = lambda step, path: None,
        autocast: Callable[[], AbstractContextManager] = nullcontext,
        agree: Callable[[bool], bool] = bool,
        draws: bool = True,
    ) -> None:
        self.task, self.settings, self.folder, self.last = task, settings, Path(folder), last
        self.shown, self.autocast, self.agree, self.draws = shown, autocast, agree, draws
        self.off = not settings.prompts
        self._teacher: list[Tensor] = []  # its latents, which never change

    def on_step(self, step: int, loss: float, lr: float, norm: float | None) -> None:
        """Draw a grid if one is due after this step."""
        due = step == self.last or (self.settings.every and step % self.settings.every == 0)
        if due and not self.agree(self.off):
            self.draw(step)

    def on_checkpoint(self, step: int) -> None:
        """Nothing: grids have steps of their own."""

    def draw(self, step: int) -> Path | None:
        """The grid's file; None, after a logged warning, if it could not be made."""
        path = self.folder / f"step_{step:08d}.png"
        latents = self._sampled() if self.task.shards else None
        if not self.draws:
            return None
        try:
            heads, pictures = self.pictures() if latents is None else self._decoded(latents)
            self.folder.mkdir(parents=True, exist_ok=True)
            draw_grid(pictures, self.settings.prompts, heads, path)
        except (torch.cuda.OutOfMemoryError, MemoryError):
            self.off = True
            logger.warning(
                "no validation pictures at step %d and after: too little memory beside the training. The training "
                "goes on; set validation.every 0, or a smaller resolution, to have no such attempt",
                step,
            )
            return None
        except (OutputError, OSError) as error:
            logger.warning("no validation picture at step %d, the training goes on: %s", step, error)
            return None
        finally:
            if torch.cuda.is_available():
                torch.cuda.empty_cache()  # other shapes than training's, the decoder's above all
        self.shown(step, path)
        return path

    def pictures(self) -> tuple[list[str], Tensor]:
        """The columns' heads, and their pictures (prompts, columns, 1 or 3, H, W) in [−1, 1], on the CPU."""
        return self._decoded(self._sampled())

    def _sampled(self) -> Tensor:
        """Latents (columns · prompts, C, H, W) on the CPU, the teacher's first."""
        family, settings, student = self.task.family, self.settings, self.task.student
        device = next(student.parameters()).device
        with _undisturbed(student), torch.no_grad():
            condition, unconditional = family.sample_condition(settings.prompts)
            rows = [(_row(condition, i, device), _row(unconditional, i, device)) for i in range(len(settings.prompts))]
            with self.autocast():
                own = [self._student_sample(i, row[0], n, device) for n in self._steps for i, row in enumerate(rows)]
                self._teacher = self._teacher or [self._teacher_sample(i, *row, device) for i, row in enumerate(rows)]
        return torch.cat([*self._teacher, *own])

    def _decoded(self, latents: Tensor) -> tuple[list[str], Tensor]:
        """`pictures` of latents."""
        settings = self.settings
        with _undisturbed(self.task.student), torch.no_grad():
            decoded = self.task.family.decode(latents).float().cpu().unflatten(0, (-1, len(settings.prompts)))
        heads = [f"teacher, {settings.teacher_steps} steps", *(f"{n} step{'s' * (n > 1)}" for n in self._steps)]
        return heads, decoded.transpose(0, 1)

    @property
    def _steps(self) -> list[int]:
        """The student's columns; a second-order step takes two evaluations."""
        return [n for n in self.settings.steps if not (self._second_order and n % 2)]

    # -- samples: one picture at a time, which needs the least memory --------------------------------------------------

    def _student_sample(self, i: int, condition: Condition, steps: int, device: torch.device) -> Tensor:
        """Strategic stochastic sampling of row i with the averaged weights; (1, C, H, W) on the CPU."""
        family, student, seed = self.task.family, self.task.student, self.settings.seed + i
        network = _averaged(student, self.task.saved.weights, condition)
        order = {"order": "2", "form": self.task.recipe.objective.tcf2_form} if self._second_order else {}
        x = start_noise((1, *family.latent_shape), seed).to(device)
        return sample_sss(
            network, family.prediction, family.schedule, x, steps, self.settings.gamma, seed, **order
        ).cpu()

    def _teacher_sample(self, i: int, condition: Condition, unconditional: Condition, device: torch.device) -> Tensor:
        """The teacher's guided sample of row i, from the same noise; (1, C, H, W) on the CPU."""
        family, settings = self.task.family, self.settings
        network = _guided(self.task.student, condition, unconditional, settings.w)
        solver = "euler" if isinstance(family.schedule, FlowSchedule) else "ddim"
        x = start_noise((1, *family.latent_shape), settings.seed + i).to(device)
        return sample_solver(solver, network, family.prediction, family.schedule, x, settings.teacher_steps).cpu()

    @property
    def _second_order(self) -> bool:
        return self.task.recipe.objective.form == "tcf2"


def _averaged(student: Student, weights: Mapping[str, Tensor], condition: Condition) -> Network:
    """The student with averaged weights, as the samplers call it."""
    live = student.trainable()
    weights = {name: weight.to(live[name].device, live[name].dtype) for name, weight in weights.items()}

    def network(x: Tensor, t: float, s: float) -> Tensor:
        times = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
        return student.target(weights, x, times, torch.full_like(times, s), condition).float()

    return network


def _guided(student: Student, condition: Condition, unconditional: Condition, w: float) -> Network:
    """The teacher with guidance, conditional and unconditional in one batch."""
    both = {name: torch.cat([c, unconditional[name]]) for name, c in condition.items()}

    return guided(lambda x, times: student.teacher(x, times, both), w)


def _row(condition: Condition, i: int, device: torch.device) -> dict[str, Tensor]:
    return {name: value[i : i + 1].to(device) for name, value in condition.items()}


@contextmanager
def _undisturbed(module: nn.Module) -> Iterator[None]:
    """The module without dropout; afterwards its modes and every random state are what they were."""
    modes = {part: part.training for part in module.modules()}
    python, numpy, device = random.getstate(), np.random.get_state(), next(module.parameters()).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            module.eval()
            yield
        finally:
            for part, training in modes.items():
                part.training = training
            random.setstate(python)
            np.random.set_state(numpy)


# -- the picture -------------------------------------------------------------------------------------------------------


def draw_grid(pictures: Tensor, prompts: Sequence[str], heads: Sequence[str], path: Path) -> None:
    """Prompts down, columns across, in one PNG, written whole or not at all.

    Args:
        pictures: (prompts, columns, 1 or 3, H, W) in [−1, 1], on the CPU; what is not finite is shown grey.
        prompts, heads: the rows' and columns' words, as they are: no character has a meaning of its own.

    Raises:
        OutputError: it could not be written.
    """
    cells = _cells(pictures)
    rows, columns, height, width, _ = cells.shape
    canvas = np.full((TOP + rows * (height + GAP), LEFT + columns * (width + GAP), 3), 255, np.uint8)
    for i in range(rows):
        for j in range(columns):
            y, x = TOP + i * (height + GAP), LEFT + j * (width + GAP)
            canvas[y : y + height, x : x + width] = cells[i, j]
    down, across, _ = canvas.shape
    with styled(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph")  # a prompt may hold letters that the font has not: boxes
        figure = Figure(figsize=((across + 0.01) / DPI, (down + 0.01) / DPI), dpi=DPI)
        figure.figimage(canvas, origin="upper")
        place = {"va": "center", "color": "#222222", "parse_math": False}
        for j, head in enumerate(heads):
            x = (LEFT + j * (width + GAP) + width / 2) / across
            figure.text(x, 1 - 0.5 * TOP / down, head, ha="center", size=9 if width > 300 else 6, **place)
        for i, prompt in enumerate(prompts):
            y = 1 - (TOP + i * (height + GAP) + height / 2) / down
            words = figure.text(16 / across, y, _wrapped(prompt, height // LINE), size=8, linespacing=1.2, **place)
            words.set_clip_box(Bbox.from_extents(0, 0, LEFT - GAP, down))
        save(figure, path)


def _cells(pictures: Tensor) -> np.ndarray:
    """(rows, columns, H', W', 3) in 0 … 255, of a size to look at."""
    finite = torch.nan_to_num(pictures.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(-1, 1).flatten(0, 1)
    side = max(pictures.shape[-2:])
    shrink, grow = math.ceil(side / MOST), max(1, LEAST // side)
    bytes_ = ((torch.nn.functional.avg_pool2d(finite, shrink) + 1) * 127.5).round().byte()
    sized = bytes_.repeat_interleave(grow, -2).repeat_interleave(grow, -1).expand(-1, 3, -1, -1)
    return sized.permute(0, 2, 3, 1).unflatten(0, pictures.shape[:2]).numpy()


def _wrapped(prompt: str, lines: int) -> str:
    """A prompt in lines that fit beside its row."""
    words = " ".join(prompt.split()) or "(the empty prompt)"
    return "\n".join(textwrap.wrap(words, LETTERS, max_lines=max(2, lines), placeholder=" …"))
