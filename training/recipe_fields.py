"""The recipe of a distillation, field by field (arXiv 2402.19159's symbols).

A recipe is frozen and complete: every field has a value, and the fields alone determine the run. Times are in
training-time units, t ∈ {0 … N − 1}. A field's description says what it is and in which unit; its limits stand beside
it, and help, files and errors are written from both.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator, model_validator

from .recipe_model_fields import Data, Memory, Model, Validation
from .recipe_section import NUM_TRAIN_TIMESTEPS, Count, Section, Share

EMBEDDED = ("digits", "shapes")  # the families that train their own teacher and are measured at their run's end


class Teacher(Section):
    """The teacher φ of the embedded families, which is trained first."""

    steps: int = Field(900, ge=1, description="optimiser steps of the teacher's training")
    batch: int = Field(128, ge=1, description="samples per optimiser step")
    lr: float = Field(3e-3, gt=0, le=1, description="peak learning rate")
    prediction: Literal["epsilon", "v_prediction", "sample", "flow"] = Field(
        "v_prediction", description="what the network predicts: eps, v, x_0, or a rectified flow's eps − x_0"
    )
    zero_terminal_snr: bool = Field(False, description="rescale the VP schedule to alpha = 0 at t = N − 1")
    label_dropout: float = Field(
        0.1, ge=0, le=1, description="probability of training on the empty condition ∅, which guidance needs"
    )
    ema: float = Field(0.999, ge=0, lt=1, description="decay per step of the averaged weights that are kept, 0 = off")
    width: int = Field(64, ge=64, le=1024, multiple_of=32, description="channels of the network, groups of 32")

    @model_validator(mode="after")
    def _terminal_snr_has_a_prediction(self):
        if self.zero_terminal_snr and self.prediction not in ("v_prediction", "sample"):
            why = "is no VP schedule" if self.prediction == "flow" else "says nothing of x_0 where alpha = 0"
            raise ValueError(
                f"teacher.zero_terminal_snr needs teacher.prediction v_prediction or sample: {self.prediction} {why}"
            )
        return self


class Student(Section):
    """The student θ: the teacher's network, trained whole or through a LoRA."""

    kind: Literal["lora", "full"] = Field("lora", description="what is trained: a LoRA on the frozen teacher, or all")
    rank: int = Field(16, ge=1, le=1024, description="rank of the LoRA's matrices")
    alpha: float = Field(16.0, gt=0, description="LoRA's scale: its product is multiplied by alpha / rank")
    ema: float = Field(0.95, ge=0, lt=1, description="decay per step of the averaged weights that are saved, 0 = off")
    dtype: Literal["fp16", "fp32"] = Field("fp32", description="number format of the saved weights")


class Objective(Section):
    """The loss, E[ω d(f_θ(x_{n+k}, t_{n+k} → s), f_θ⁻(Φ(x_{n+k}), t_n → s))]."""

    form: Literal["tcf1", "tcf2", "tcf_s_plus"] = Field("tcf1", description="trajectory consistency function f")
    tcf2_form: Literal["epsilon", "data"] = Field("epsilon", description="TCF(2)'s integral: over eps or over x_0")
    solver: Literal["ddim", "dpm2"] = Field("ddim", description="the teacher's one-step solver Φ, t_{n+k} → t_n")
    skip: int = Field(
        50, ge=1, le=NUM_TRAIN_TIMESTEPS // 2, description="skipping step k, in training-time units, divides N = 1000"
    )
    guided: bool = Field(True, description="guide the solver: eps(c) + w (eps(c) − eps(∅)), Algorithm 2")
    w_min: float = Field(0.3, ge=0, description="least guidance w, drawn per sample, 0 = no guidance")
    w_max: float = Field(0.3, ge=0, description="greatest guidance w")
    pairs: int = Field(
        0, ge=0, description="batches to go through again and again, the teacher asked once; needs one w; 0 = ever new"
    )
    distance: Literal["l2", "pseudo_huber"] = Field("l2", description="d: squared L2, or sqrt(L2² + c²) − c")
    huber_c: float = Field(0.03, gt=0, description="pseudo-Huber's c, per element, in units of the data")
    weight: Literal["none", "min_snr"] = Field(
        "min_snr", description="ω: 1, or min(SNR, min_snr_clip), SNR + 1 but for eps"
    )
    min_snr_clip: float = Field(5.0, gt=0, description="greatest min-SNR weight, an SNR (alpha²/sigma²)")
    target: Literal["stop_gradient", "ema"] = Field("stop_gradient", description="target θ⁻: the student, or its EMA")
    target_ema: float = Field(0.95, ge=0, lt=1, description="decay μ per step of the EMA target")

    @field_validator("skip")
    @classmethod
    def _skip_divides_n(cls, skip: int) -> int:
        if NUM_TRAIN_TIMESTEPS % skip:
            near = min((k for k in range(1, 501) if NUM_TRAIN_TIMESTEPS % k == 0), key=lambda k: abs(k - skip))
            raise ValueError(f"objective.skip must divide N = {NUM_TRAIN_TIMESTEPS}, got {skip}: {near} does")
        return skip

    @model_validator(mode="after")
    def _guidance_is_a_span(self):
        if self.w_min > self.w_max:
            raise ValueError(
                f"objective.w_min must not exceed objective.w_max, got {self.w_min:g} and {self.w_max:g}: set both"
            )
        return self

    @model_validator(mode="after")
    def _kept_pairs_have_one_w(self):
        if self.pairs and self.guided and self.w_min < self.w_max:
            raise ValueError(
                "objective.pairs keeps what the teacher gives, which needs one w, and w is drawn from "
                f"[{self.w_min:g}, {self.w_max:g}]: set objective.w_min and objective.w_max to the same value, or "
                "objective.pairs to 0"
            )
        return self


class EndTimes(Section):
    """The end time s = t_m of each pair, in [0, t_n]."""

    draw: Literal["integers", "grid", "exact"] = Field(
        "integers", description="s from all integers, from the grid, or the exact mean of the loss over all integers s"
    )
    draws: int = Field(1, ge=1, le=64, description="how many s are averaged per pair, for the same two outputs")
    lower_share: float = Field(
        0.25, ge=0, le=1, description="probability of the segment's lower end, s = 0 for one segment, 1 = LCM"
    )
    segments: tuple[Count, ...] = Field(
        (1,),
        min_length=1,
        description="segments of the trajectory, s staying in t_n's, one number for each of the run's equal stages: "
        "8 4 2 1 is TSCD's; with lower_share 1, PCM's phases",
    )


class Training(Section):
    """The optimiser's loop."""

    steps: int = Field(300, ge=1, description="optimiser steps of the distillation")
    batch: int = Field(
        64, ge=1, description="samples per optimiser step, over all processes and accumulation steps together"
    )
    accumulation: int = Field(
        1, ge=1, description="backward passes per optimiser step, over all processes; divides batch"
    )
    lr: float = Field(1e-3, gt=0, le=1, description="peak learning rate")
    weight_decay: float = Field(0.0, ge=0, le=1, description="AdamW's decoupled weight decay")
    warmup: int = Field(20, ge=0, description="steps of linear warm-up")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="learning rate after the warm-up")
    clip: float = Field(1.0, ge=0, description="greatest norm of the gradient, 0 = off")
    precision: Literal["no", "bf16", "fp16"] = Field("no", description="mixed precision of the network; TCF is fp32")
    explode: float = Field(1000.0, gt=1, description="loss over its running median that stops the run")

    @model_validator(mode="after")
    def _batch_is_shared_out(self):
        if self.batch % self.accumulation:
            raise ValueError(
                f"training.accumulation must divide training.batch, got {self.accumulation} and {self.batch}"
            )
        return self


class Checkpoint(Section):
    """What `--resume` goes on from."""

    every: int = Field(100, ge=0, description="optimiser steps between checkpoints, 0 = at a signal and at the end")
    keep: int = Field(2, ge=1, description="checkpoints kept")


class Measure(Section):
    """What is measured and drawn at the end."""

    steps: tuple[Count, ...] = Field((2, 4, 8, 20), min_length=1, description="sampling steps, one table column each")
    gamma: Share = Field(0.2, description="stochasticity γ of strategic stochastic sampling")
    gammas: tuple[Share, ...] = Field((0.0, 0.2, 0.5, 1.0), min_length=1, description="γ of the γ sweep")
    sampling_seeds: int = Field(3, ge=1, le=64, description="sampling seeds per student")
    w: float = Field(0.15, ge=0, description="guidance w of the numerical solvers; students carry theirs")
    against: Literal["held_out", "validation"] = Field(
        "held_out", description="real images compared with: held_out to report, validation to choose by"
    )
    fold: int = Field(0, ge=0, le=2, description="which validation split")

    @field_validator("steps", "gammas")
    @classmethod
    def _values_differ(cls, values: tuple, info) -> tuple:
        if len(set(values)) < len(values):
            raise ValueError(f"measure.{info.field_name} must not repeat a value, got {', '.join(map(str, values))}")
        return values


class Recipe(Section):
    """Everything that determines a run."""

    name: str = Field("digits", pattern=r"^[A-Za-z0-9_-]{1,64}$", description="the run's folder and file names")
    family: Literal["digits", "shapes", "sd15", "sd21", "sd21v", "sdxl"] = Field("digits", description="kind of model")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of weights, batches, times and noise")
    training_seeds: int = Field(1, ge=1, le=16, description="whole runs, at seed, seed + 1, …")
    baseline: bool = Field(True, description="also train LCM, on the same budget: lower_share 1, TCF(1)")
    comparisons: tuple[Literal["forms", "weights", "end_times", "segments", "guidance"], ...] = Field(
        (), description="tables of more students, each trained on the same budget as TCD, differing in one thing"
    )
    teacher: Teacher = Field(Teacher(), description=Teacher.__doc__)
    student: Student = Field(Student(), description=Student.__doc__)
    objective: Objective = Field(Objective(), description=Objective.__doc__)
    end_times: EndTimes = Field(EndTimes(), description=EndTimes.__doc__)
    training: Training = Field(Training(), description=Training.__doc__)
    checkpoint: Checkpoint = Field(Checkpoint(), description=Checkpoint.__doc__)
    measure: Measure = Field(Measure(), description=Measure.__doc__)
    model: Model = Field(Model(), description=Model.__doc__)
    data: Data = Field(Data(), description=Data.__doc__)
    memory: Memory = Field(Memory(), description=Memory.__doc__)
    validation: Validation = Field(Validation(), description=Validation.__doc__)

    @model_validator(mode="after")
    def _end_times_fit_the_objective(self):
        draw, draws, objective = self.end_times.draw, self.end_times.draws, self.objective
        if draw == "exact" and (objective.form, objective.distance) != ("tcf1", "l2"):
            raise ValueError(
                "end_times.draw exact needs objective.form tcf1 and objective.distance l2, whose mean is closed, "
                f"got {objective.form} and {objective.distance}: draw integers"
            )
        if draws > 1 and draw == "exact":
            raise ValueError(f"end_times.draws must be 1 where end_times.draw is exact, got {draws}: no s is drawn")
        if draws > 1 and objective.form != "tcf1":
            raise ValueError(
                f"end_times.draws must be 1 for objective.form {objective.form}, got {draws}: only tcf1's network "
                "output serves every s"
            )
        return self

    @model_validator(mode="after")
    def _what_is_shared_out_can_be(self):
        if self.memory.shard and self.student.kind != "full":
            raise ValueError(
                f"memory.shard needs student.kind full, got {self.student.kind}: of a LoRA there is little to share "
                "out, and every process needs the whole frozen network"
            )
        if self.memory.shard and self.memory.optimizer != "adamw":
            raise ValueError(
                f"memory.shard needs memory.optimizer adamw, got {self.memory.optimizer}, whose blocks of 8 bits are "
                "not shared out"
            )
        return self

    @model_validator(mode="after")
    def _segments_fit_the_run(self):
        if self.objective.pairs and len(self.end_times.segments) > 1:
            raise ValueError(
                "objective.pairs goes through the same batches again, end times included, and end_times.segments "
                f"changes them along the run: set segments to one number, got {self.end_times.segments}, or pairs to 0"
            )
        segments, points = self.end_times.segments, NUM_TRAIN_TIMESTEPS // self.objective.skip
        if len(segments) > self.training.steps:
            raise ValueError(f"end_times.segments has {len(segments)} stages for training.steps {self.training.steps}")
        if max(segments) > points:
            raise ValueError(
                f"end_times.segments must not exceed {points}, the grid's times at objective.skip "
                f"{self.objective.skip}, got {max(segments)}"
            )
        return self
