"""The objective where alpha or sigma is 0, and in mixed precision."""

import pytest
import torch
from training_support.tiny import (
    TinyFamily,
    evaluations,
    fresh_accelerator,
    tiny_recipe,
    tiny_task,
)

from tcd_core import FlowSchedule, VPSchedule
from training.objective import TrajectoryDistillation

ZERO_SNR = VPSchedule.scaled_linear().zero_terminal_snr()


# ---- the ends of the schedule ----


def test_an_epsilon_teacher_on_a_schedule_that_ends_in_pure_noise_is_refused():
    for schedule in (ZERO_SNR, FlowSchedule()):
        with pytest.raises(ValueError, match="epsilon-prediction teacher .* alpha = 0"):
            TrajectoryDistillation(TinyFamily("epsilon", schedule), tiny_recipe())


ENDS = [("integers", "tcf1"), ("grid", "tcf1"), ("exact", "tcf1"), ("integers", "tcf2"), ("grid", "tcf_s_plus")]


@pytest.mark.parametrize("solver", ["ddim", "dpm2"])
@pytest.mark.parametrize(("draw", "form"), ENDS)
@pytest.mark.parametrize(("prediction", "schedule"), [("flow", None), ("v_prediction", ZERO_SNR), ("sample", ZERO_SNR)])
def test_losses_and_gradients_are_finite_from_pure_noise_to_clean_data(prediction, schedule, draw, form, solver):
    task, _ = tiny_task(
        prediction,
        schedule,
        end_times={"draw": draw},
        objective={"form": form, "solver": solver, "tcf2_form": "data" if solver == "dpm2" else "epsilon"},
        training={"batch": 48},
    )
    batch = task.draw(0)
    assert (batch.teacher.t.alpha == 0).any() and (batch.teacher.s.t == 0).any()
    losses = task(batch)
    losses.mean().backward()
    assert losses.isfinite().all() and (losses > 0).all()
    assert all(p.grad.isfinite().all() for p in task.trainable().values())


def test_the_jump_to_t_n_zero_of_a_flow_is_learnt():
    """From the smallest start the target is the teacher's own step to the data, whatever the draw of s."""
    for draw in ("integers", "grid", "exact"):
        task, _ = tiny_task("flow", end_times={"draw": draw}, objective={"weight": "none"}, training={"batch": 48})
        batch = task.draw(0)
        losses, calls = evaluations(task, batch)
        smallest = (batch.teacher.s.t == 0).flatten()
        x_tn, (x_t, _, output) = calls[-2][0], calls[-1]
        x0 = x_t - batch.teacher.t.sigma * output
        expected = (x0 - x_tn).square().mean((1, 2, 3))
        torch.testing.assert_close(losses[smallest], expected[smallest], rtol=1e-3, atol=1e-7)


# ---- precision ----


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "flow"])
@pytest.mark.parametrize(("draw", "target"), [("integers", "ema"), ("exact", "stop_gradient")])
def test_in_bf16_the_network_alone_is_rounded(prediction, draw, target):
    """Whatever the network returns in bf16, all that is done with it is float32: the same losses from its outputs."""
    task, _ = tiny_task(prediction, end_times={"draw": draw}, objective={"target": target})
    batch = task.draw(0)
    exact, _ = evaluations(task, batch)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        task.family.calls = []
        rounded = task(batch)
    calls, task.family.calls = task.family.calls, None
    rounded.mean().backward()
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    assert {x.dtype for x, _, _ in calls} == {torch.float32} and {o.dtype for *_, o in calls} == {torch.bfloat16}
    assert all(p.grad is not None and p.grad.any() for p in task.trainable().values())

    outputs = iter([output.float() for *_, output in calls])
    with pytest.MonkeyPatch.context() as patch:
        for name in ("teacher", "target", "forward"):
            patch.setattr(task.student, name, lambda *arguments: next(outputs))
        again = task(batch)
    assert torch.equal(again, rounded.detach())


def test_accelerates_mixed_precision_reaches_the_network_alone():
    accelerator = fresh_accelerator(mixed_precision="bf16")
    task, _ = tiny_task()
    model, batch = accelerator.prepare(task), task.draw(0)
    task.family.calls = []
    losses = model(batch)
    assert losses.dtype == torch.float32 and task.family.calls[-1][2].dtype == torch.bfloat16
    accelerator.backward(losses.mean())
    assert all(p.grad.dtype == torch.float32 and p.grad.any() for p in task.trainable().values())
