"""One step of the loop: its learning rate, its clipping, and the stop before a bad one is taken."""

import math

import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook
from training_support.line import Line, train_line
from training_support.tiny import differing, distilled

from training.loop import Curve
from training.stopping import TrainingDiverged

# ---- the learning rate ----


@pytest.mark.parametrize("warmup", [0, 4])
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_learning_rate_is_the_closed_form_at_each_step(schedule, warmup, tmp_path):
    task = Line()
    train_line(tmp_path, task, schedule=schedule, warmup=warmup, steps=12)
    moved = [a - b for a, b in zip([0.0, *task.seen], task.seen, strict=False)]
    expected = []
    for step in range(12):
        rise = min(1.0, (step + 1) / warmup) if warmup else 1.0
        decay = (1 + math.cos(math.pi * step / 12)) / 2 if schedule == "cosine" else 1.0
        expected.append(0.1 * rise * decay)
    assert moved == pytest.approx(expected, rel=1e-4)


def test_the_gradient_is_clipped_to_its_norm(tmp_path):
    norms = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, *_: norms.append(optimizer.param_groups[0]["params"][0].grad.abs().item())
    )
    try:
        for clip in (0.0, 2.0, 20.0):
            train_line(tmp_path / str(clip), Line(slope=7.0), clip=clip, steps=1)
    finally:
        hook.remove()
    assert norms == pytest.approx([7.0, 2.0, 7.0], rel=1e-5)


# ---- a loss beyond help ----


def spoilt(value, at):
    """A change of a task: from step ``at`` on (0-based), the first sample's data is ``value``."""

    def change(task):
        draw = task.draw

        def spoil(step, part):
            batch = draw(step, part)
            x0 = batch.x0.clone()
            x0[0] = value if step >= at else x0[0]
            return batch._replace(x0=x0)

        task.draw = spoil

    return change


def test_a_loss_that_is_no_number_stops_the_run_before_the_weights_change(tmp_path):
    tasks = []

    def change(task):
        spoilt(math.nan, at=3)(task)
        tasks.append(task)

    with pytest.raises(TrainingDiverged) as error:
        distilled(tmp_path / "run", change=change, every=1)
    good = tmp_path / "run" / "step_00000003.pt"
    after_three = torch.load(good, weights_only=True)["weights"]
    assert not differing(after_three, {name: p.detach() for name, p in tasks[0].trainable().items()})
    batch = tasks[0].draw(3, slice(None))
    words = str(error.value)
    assert "step 4" in words and "nan" in words and str(good) in words
    assert str(batch.rows.tolist()) in words
    assert str([int(t) for t in batch.teacher.t.t.flatten()])[1:-1].split(", ")[0] in words


def test_a_gradient_that_is_no_number_stops_the_run_before_the_weights_change(tmp_path):
    task = Line()

    def forward(batch):
        return task.w * torch.ones(8) + (0 * task.w).sqrt()  # value w, derivative 0 · ∞

    task.forward = forward
    with pytest.raises(TrainingDiverged, match="step 1: the gradient's norm is nan.*rows .0, 1, 2.*precision no"):
        train_line(tmp_path, task, clip=1.0)
    assert task.w.item() == 0 and not list(tmp_path.iterdir())


def test_an_exploding_loss_stops_the_run(tmp_path):
    task = Line(slope=-1.0)
    task.forward = lambda batch: 1.0 + 0 * task.w + batch["t"].t * 0 + (1e4 if batch["rows"][0] >= 8 * 25 else 0.0)
    with pytest.raises(TrainingDiverged, match="step 26: the loss is 1e\\+04, more than 1000 times"):
        train_line(tmp_path, task, steps=30)


# ---- the curve ----


def test_the_curve_is_each_steps_mean_loss(tmp_path):
    task = Line()
    curve = train_line(tmp_path, task, steps=5)
    assert curve.loss == pytest.approx([0.0, *task.seen[:-1]])


def test_a_long_curve_is_shown_as_means():
    shown = Curve([float(i) for i in range(10)]).shown(points=4)
    assert shown == {"step": [3, 6, 9, 10], "loss": [1.0, 4.0, 7.0, 9.0]}
    assert Curve([1.0, 2.0]).shown() == {"step": [1, 2], "loss": [1.0, 2.0]} and Curve().shown()["loss"] == []
