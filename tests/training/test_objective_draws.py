"""What a batch of the objective is made of, and that LCM is a case of it."""

import pytest
import torch
from training_support import straight_line
from training_support.tiny import (
    TinyFamily,
    evaluations,
    tiny_task,
)

from training.objective import TrajectoryDistillation
from training.recipe import lcm_baseline

# ---- what is drawn ----


def test_w_is_drawn_per_sample_from_its_whole_span():
    task, _ = tiny_task(objective={"w_min": 2.0, "w_max": 14.0}, training={"batch": 2000})
    w = task.draw(0).w
    assert w.shape == (2000, 1, 1, 1) and w.min() >= 2 and w.max() <= 14
    counts = torch.histc(w.flatten(), 10, 2, 14)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi² of 9 degrees of freedom, p = .001
    fixed, _ = tiny_task(objective={"w_min": 7.5, "w_max": 7.5})
    assert set(fixed.draw(0).w.flatten().tolist()) == {7.5}


@pytest.mark.parametrize("draw", ["integers", "grid", "exact"])
def test_a_batch_is_drawn_from_seed_and_step_alone(draw):
    def drawn(step, seed=0):
        task, _ = tiny_task(seed=seed, end_times={"draw": draw})
        torch.manual_seed(torch.seed())
        batch = task.draw(step)
        return torch.cat(
            [batch.x0.flatten(), batch.eps.flatten(), batch.w.flatten(), batch.teacher.t.t.flatten()]
            + [pair[0].s.t.flatten() for pair in batch.jumps]
        )

    assert torch.equal(drawn(3), drawn(3))
    assert not torch.equal(drawn(3), drawn(4)) and not torch.equal(drawn(3), drawn(3, seed=1))


def test_the_adapters_start_from_the_seed_alone():
    def start(seed):
        torch.manual_seed(torch.seed())
        return tiny_task(seed=seed, scale=0.0, objective={"form": "tcf_s_plus"})[0].trainable()

    first, again, other = start(0), start(0), start(1)
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_every_row_of_the_data_is_seen_once_before_any_is_seen_twice():
    task, _ = tiny_task()
    rows = torch.cat([task.draw(step).rows for step in range(10)]).tolist()
    assert sorted(rows[:37]) == list(range(37)) and sorted(rows[37:74]) == list(range(37))
    assert rows[:37] != rows[37:74]
    batch = task.draw(2)
    assert torch.equal(batch.x0, task.family.pictures[batch.rows])


def test_stages_of_segments_follow_the_run():
    task, _ = tiny_task(end_times={"segments": [4, 1], "lower_share": 1.0}, training={"batch": 64, "steps": 10})
    for step, lower_ends in ((0, {0, 249, 499, 749}), (4, {0, 249, 499, 749}), (5, {0})):
        (pair,) = task.draw(step).jumps
        assert set(pair[0].s.t.flatten().tolist()) == lower_ends


# ---- LCM ----


def test_a_lower_share_of_one_is_lcm():
    """s = 0 for every pair, the loss that of two consistency functions; with the marginalised loss the same."""
    task, _ = tiny_task(end_times={"lower_share": 1.0}, objective={"weight": "none"})
    batch = task.draw(0)
    assert all((pair[0].s.t == 0).all() and (pair[1].s.t == 0).all() for pair in batch.jumps)
    losses, calls = evaluations(task, batch)
    at_zero, data = task.family.schedule.level(0), []
    for (x, _, output), level in zip(calls[-2:], (batch.teacher.s, batch.teacher.t), strict=True):
        x0, eps = straight_line.both(output, x, level, "epsilon")
        data.append(at_zero.alpha * x0 + at_zero.sigma * eps)
    expected = torch.where((batch.teacher.s.t == 0), calls[-2][0], data[0]) - data[1]
    torch.testing.assert_close(losses, expected.square().mean((1, 2, 3)), rtol=1e-3, atol=1e-6)
    exact, _ = tiny_task(end_times={"lower_share": 1.0, "draw": "exact"}, objective={"weight": "none"})
    same = exact.draw(0)._replace(eps=batch.eps, w=batch.w)
    torch.testing.assert_close(exact(same).detach(), losses, rtol=1e-3, atol=1e-6)


def test_the_baseline_sees_the_same_draws_but_for_s():
    task, _ = tiny_task(end_times={"draw": "exact"})
    lcm = TrajectoryDistillation(TinyFamily(), lcm_baseline(task.recipe))
    a, b = task.draw(4), lcm.draw(4)
    assert torch.equal(a.rows, b.rows) and torch.equal(a.teacher.t.t, b.teacher.t.t)
    assert all((pair[0].s.t == 0).all() for pair in b.jumps)
