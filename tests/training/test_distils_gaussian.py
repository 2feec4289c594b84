"""A teacher whose trajectories are known exactly, distilled: how far the student's jumps are from the truth."""

import random

import pytest
import torch
from training_support.gaussian import GaussianFamily, exact_jump, tcf_error
from training_support.tiny import fresh_accelerator, loop_settings, tiny_recipe

from tcd_core import VPSchedule, to_x0
from training.jumps import Jump, follow
from training.loop import train
from training.objective import TrajectoryDistillation

CASES = {
    # name: (prediction, objective, end times, factor to s = 0, factor to any s)
    "TCF(1)": ("epsilon", {}, {}, 5, 1.1),
    "TCF(1), every s": ("epsilon", {}, {"draw": "exact"}, 3.5, 1.1),
    "LCM": ("epsilon", {}, {"lower_share": 1.0}, 5, None),
    "TCF(S+)": ("v_prediction", {"form": "tcf_s_plus", "target": "ema", "target_ema": 0.8}, {}, 8, 2.5),
    "TCF(S+), DDIM": ("sample", {"form": "tcf_s_plus", "solver": "ddim"}, {}, 3, 2),
    "flow": ("flow", {}, {"draw": "exact"}, 2.2, 2),
}


def pairs(schedule):
    """Jumps from the grid's times to 0, and to any time on the way."""
    chance = random.Random(0)
    vp = isinstance(schedule, VPSchedule)
    starts = [i * 50 - vp for i in range(1, 21)] * 20
    unit = 1 if vp else 1000
    return [(t / unit, 0.0) for t in starts], [(t / unit, chance.randint(0, t) / unit) for t in starts]


@pytest.mark.parametrize(("prediction", "objective", "ends", "to_zero", "to_any"), CASES.values(), ids=CASES)
def test_distillation_brings_the_jumps_to_the_exact_trajectories(
    prediction, objective, ends, to_zero, to_any, tmp_path
):
    recipe = tiny_recipe(
        student={"kind": "full"},
        objective={"guided": False, "solver": "dpm2", **objective},
        end_times={"lower_share": 0.5, **ends},
        training={"steps": 200, "batch": 64, "warmup": 10},
    )
    task = TrajectoryDistillation(GaussianFamily(prediction), recipe)
    zero, anywhere = pairs(task.family.schedule)
    before = tcf_error(task, zero), tcf_error(task, anywhere)
    train(task, loop_settings(recipe), fresh_accelerator(), tmp_path / "checkpoints", "gaussian")
    after = tcf_error(task, zero), tcf_error(task, anywhere)
    assert after[0] < before[0] / to_zero
    assert to_any is None or after[1] < before[1] / to_any


def test_the_exact_map_is_what_small_steps_of_the_teacher_come_to():
    """The ground truth itself: the untouched teacher, stepped along every time of the table."""
    task = TrajectoryDistillation(GaussianFamily(), tiny_recipe(student={"kind": "full"}))
    assert tcf_error(task, [(999.0, 0.0)] * 8) > 0.3
    x = start = torch.randn(4, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    for t in range(999, 0, -1):
        step = Jump.of(task.family.schedule, [t] * 4, [t - 1] * 4)
        x = follow(lambda x, t, s: to_x0(task.student.teacher(x, t.t.flatten(), {}), x, t, "epsilon"), x, step)
    ends = Jump.of(task.family.schedule, [999] * 4, [0] * 4)
    torch.testing.assert_close(x, exact_jump(start, ends.t, ends.s), rtol=0, atol=5e-3)
