"""Trajectory consistency distillation's objective: Algorithm 1, and with guidance Algorithm 2 (arXiv 2402.19159).

    x_t    = alpha_t x_0 + sigma_t eps                                  start t = t_{n+k}, one grid step above t_n
    x̂_{t_n} = Φ(x_t, t → t_n; φ)                                        teacher's one-step solution, guided by w
    loss   = ω(t) d( f_θ(x_t, t → s),  f_{θ⁻}(x̂_{t_n}, t_n → s) )       s ∈ [0, t_n]

All that is random is drawn by `draw` from (seed, step) alone, on the CPU, for the whole batch of all processes: a run
is resumed by its step number, and the same whatever it is split over.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from tcd_core import Level, to_eps, to_x0
from tcd_core.levels import combine

from .draws import WHOLE, generator_for, rows_of
from .end_times import TimeGrid, draw_ends, draw_starts, end_time_moments, segments_at
from .families import Family
from .jumps import Jump, follow
from .losses import expected_squared_l2, min_snr, pseudo_huber, squared_l2
from .offload import activations_on_cpu
from .recipe import Recipe
from .sharding import Shards
from .student import Condition, Ema, Student


class Batch(NamedTuple):
    """One step's draws, each with the batch first.

    Attributes:
        x0, eps: data and noise, shape (B, C, H, W).
        condition, unconditional: what the network is told.
        w: guidance scale, shape (B, 1, 1, 1).
        teacher: the jump t → t_n.  student, target: (t → s, t_n → s), one pair for each of the end times averaged.
        moments: of the end times, shape (B, 3); only where they are marginalised exactly.
        rows: which items of the data.
        name, predictions: of a batch that comes again, what it is known by, and the teacher's data predictions on the
            way from t_{n+k} to t_n, in their order; none until they are known (`teacher_pairs`).
    """

    x0: Tensor
    eps: Tensor
    condition: Condition
    unconditional: Condition
    w: Tensor
    teacher: Jump
    jumps: tuple[tuple[Jump, Jump], ...]
    moments: Tensor | None
    rows: Tensor
    name: str = ""
    predictions: tuple[Tensor, ...] = ()


class TrajectoryDistillation(nn.Module):
    """The objective as a module: ``forward(batch) -> loss`` per sample, shape (B,).

    Its only trainable parameters are the student's, so that wrapping it (DDP) wraps one forward pass.

    Args:
        mesh: the processes that share the student and its averages; see `sharding`.

    Raises:
        ValueError: an ε-prediction teacher on a schedule whose alpha reaches 0.
    """

    def __init__(self, family: Family, recipe: Recipe, stream: str = "distil", mesh=None) -> None:
        super().__init__()
        self.family, self.recipe, self.stream = family, recipe, stream
        self.objective, self.ends = recipe.objective, recipe.end_times
        self.grid = TimeGrid.of(family.schedule, self.objective.skip)
        self._tables: dict[bytes, np.ndarray] = {}  # moments of end times, one table for each number of segments
        if family.prediction == "epsilon" and family.schedule.level(self.grid.times[-1]).alpha == 0:
            raise ValueError(
                "an epsilon-prediction teacher says nothing where alpha = 0, and this schedule ends there (zero "
                "terminal SNR, flow): use a teacher of another prediction type or a schedule without that"
            )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            self.student = Student(
                family.network,
                family.output,
                kind=recipe.student.kind,
                lora_targets=family.lora_targets,
                rank=recipe.student.rank,
                alpha=recipe.student.alpha,
                s_plus=self.objective.form == "tcf_s_plus",
                mesh=mesh,
            )
        trainable = self.student.trainable()
        self.saved = Ema(trainable, recipe.student.ema, warm_up=True, offload=recipe.memory.offload)
        self.target_ema = Ema(trainable, self.objective.target_ema) if self.objective.target == "ema" else None

    # -- draws -------------------------------------------------------------------------------------------------------

    def draw(self, step: int, part: slice = WHOLE) -> Batch:
        """The samples ``part`` of step's batch: data, noise, n, guidance and end times, from (seed, step) alone.

        Of the data only these samples are read; the rest is drawn for the whole batch.
        """
        recipe, schedule, count = self.recipe, self.family.schedule, self.recipe.training.batch
        generator = generator_for(recipe.seed, self.stream, step)
        rows, x0, condition, unconditional = self.family.data(step, count, recipe.seed, self.stream, part)
        starts = draw_starts(self.grid, count, generator)
        # these three first: every recipe of a seed has the same
        eps = torch.randn(count, *x0.shape[1:], generator=generator)
        w = torch.rand(count, 1, 1, 1, generator=generator)
        t, t_n = self.grid.times[starts], self.grid.times[starts - 1]
        lower = self.grid.lower_ends(segments_at(step / recipe.training.steps, self.ends.segments))
        moments, ends = None, []
        if self.ends.draw == "exact":
            key = lower.tobytes()
            if key not in self._tables:
                self._tables[key] = end_time_moments(schedule, self.grid, lower, self.ends.lower_share)
            table = self._tables[key]
            moments, ends = torch.from_numpy(table[starts]).float(), [t_n]
        else:
            on_grid = self.ends.draw == "grid"
            for _ in range(self.ends.draws):
                ends.append(draw_ends(self.grid, starts, lower[starts], self.ends.lower_share, on_grid, generator))
        form = self.objective.tcf2_form if self.objective.form == "tcf2" else None
        solver = "epsilon" if self.objective.solver == "dpm2" else None
        drawn = {
            "eps": eps,
            "w": self.objective.w_min + (self.objective.w_max - self.objective.w_min) * w,
            "teacher": Jump.of(schedule, t, t_n, solver),
            "jumps": tuple((Jump.of(schedule, t, s, form), Jump.of(schedule, t_n, s, form)) for s in ends),
            "moments": moments,
        }
        return Batch(x0=x0, condition=condition, unconditional=unconditional, rows=rows, **rows_of(drawn, part))

    # -- the algorithm -----------------------------------------------------------------------------------------------

    def forward(self, batch: Batch) -> Tensor:
        """Algorithm 1 / 2, lines 3 to 8; TCF arithmetic in float32 whatever the network computes in."""
        t = batch.teacher.t
        x_t = combine(t.alpha, t.sigma, batch.x0, batch.eps)
        with torch.no_grad():
            x_tn = follow(self._teacher(batch), x_t, batch.teacher)
        student, target = self._student(batch.condition), self._target(batch.condition)
        if batch.moments is not None:
            loss = self._marginalised(batch, student, target, x_t, x_tn)
        else:
            losses = []
            student, target = self._once(student), self._once(target)
            for to_s, from_tn in batch.jumps:
                with torch.no_grad():
                    f_target = follow(target, x_tn, from_tn)
                losses.append(self._distance(follow(student, x_t, to_s) - f_target))
            loss = torch.stack(losses).mean(0)
        return self._weight(t) * loss

    def _marginalised(self, batch: Batch, student, target, x_t: Tensor, x_tn: Tensor) -> Tensor:
        """The mean over all end times: TCF(1) jumps from (x̂, ε̂) to any s as ``alpha_s x̂ + sigma_s ε̂``."""
        t, t_n = batch.teacher.t, batch.teacher.s
        with torch.no_grad():
            clean = t_n.sigma == 0  # a flow's t_n = 0: the only s is 0 itself, where the target is x (boundary)
            x0_target = torch.where(clean, x_tn, target(x_tn, t_n, t_n))
            eps_target = torch.where(clean, 0.0, to_eps(x0_target, x_tn, t_n))
        x0 = student(x_t, t, t_n)
        return expected_squared_l2(x0 - x0_target, to_eps(x0, x_t, t) - eps_target, batch.moments)

    def _once(self, model):
        """A denoiser that evaluates once for several end times, where the network is not told them: TCF(1)."""
        if self.objective.form != "tcf1":
            return model
        known: list[Tensor] = []

        def cached(x: Tensor, t: Level, s: Level) -> Tensor:
            if not known:
                known.append(model(x, t, s))
            return known[0]

        return cached

    # -- the three networks, as data predictions ---------------------------------------------------------------------

    def _teacher(self, batch: Batch):
        """Data prediction of φ, guided: ``x̂_c + w (x̂_c − x̂_∅)``, both in one batch; the same as guiding ε (Alg. 2)."""

        def model(x: Tensor, t: Level, s: Level) -> Tensor:
            if not self.objective.guided:
                return self._to_x0(self.student.teacher(x, t.t.flatten(), batch.condition), x, t)
            both = {name: torch.cat([c, batch.unconditional[name]]) for name, c in batch.condition.items()}
            output = self.student.teacher(torch.cat([x, x]), torch.cat([t.t, t.t]).flatten(), both).float()
            x0_c, x0_u = (self._to_x0(part, x, t) for part in output.chunk(2))
            return x0_c + batch.w * (x0_c - x0_u)

        return model

    def _student(self, condition: Condition):
        def model(x: Tensor, t: Level, s: Level) -> Tensor:
            with self._saved_activations():
                return self._to_x0(self.student(x, t.t.flatten(), s.t.flatten(), condition), x, t)

        return model

    def _target(self, condition: Condition):
        weights = self.target_ema.weights if self.target_ema else None

        def model(x: Tensor, t: Level, s: Level) -> Tensor:
            return self._to_x0(self.student.target(weights, x, t.t.flatten(), s.t.flatten(), condition), x, t)

        return model

    def _saved_activations(self):
        """Where the backward pass finds the student's activations: on the device, or offloaded."""
        if not self.recipe.memory.offload:
            return nullcontext()
        return activations_on_cpu(() if self.shards else self.student.parameters())  # gathered weights do not stay

    def _to_x0(self, output: Tensor, x: Tensor, t: Level) -> Tensor:
        return to_x0(output.float(), x, t, self.family.prediction)

    # -- loss --------------------------------------------------------------------------------------------------------

    def _distance(self, residual: Tensor) -> Tensor:
        if self.objective.distance == "l2":
            return squared_l2(residual)
        return pseudo_huber(residual, self.objective.huber_c)

    def _weight(self, t: Level) -> Tensor | float:
        if self.objective.weight == "none":
            return 1.0
        return min_snr(t, self.objective.min_snr_clip, at_zero=self.family.prediction != "epsilon")

    def _apply(self, fn, recurse=True):
        """Moves to a device take the averages along."""
        for average in filter(None, (self.saved, self.target_ema)):
            average.apply(fn)
        return super()._apply(fn, recurse)

    # -- between steps -----------------------------------------------------------------------------------------------

    @property
    def shards(self) -> Shards | None:
        """The processes' parts of what is trained, where they share it."""
        return self.student.shards

    def trainable(self) -> dict[str, nn.Parameter]:
        """The student's trainable parameters, by their names in it."""
        return self.student.trainable()

    def after_step(self) -> None:
        """Follow the student with its averages: θ⁻ and the weights that are saved."""
        trainable = self.student.trainable()
        self.saved.update(trainable)
        if self.target_ema:
            self.target_ema.update(trainable)

    def extra_state(self) -> dict:
        """What a checkpoint holds besides the trainable weights and the optimiser."""
        return {
            "saved": self.saved.state_dict(),
            **({"target": self.target_ema.state_dict()} if self.target_ema else {}),
        }

    def load_extra_state(self, state: dict) -> None:
        self.saved.load_state_dict(state["saved"])
        if self.target_ema:
            self.target_ema.load_state_dict(state["target"])
