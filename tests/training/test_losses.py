"""Distances, weights, and the loss that is averaged over every end time in closed form."""

import math

import numpy as np
import pytest
import torch
from training_support.tiny import TinyFamily, randomise, tiny_recipe

from tcd_core import Level, tcf1, to_x0
from training.end_times import TimeGrid, end_time_moments
from training.losses import expected_squared_l2, min_snr, pseudo_huber, squared_l2
from training.objective import TrajectoryDistillation

# ---- distances ----


def test_squared_l2_is_a_mean_over_each_samples_elements_in_float32():
    residual = torch.tensor([[[1.0, 2.0]], [[3.0, 5.0]]], dtype=torch.bfloat16)
    loss = squared_l2(residual)
    assert loss.dtype == torch.float32 and loss.tolist() == [2.5, 17.0]


@pytest.mark.parametrize("size", [1e-12, 1e-6, 1e-3])
def test_pseudo_huber_of_a_small_residual_is_quadratic_without_cancellation(size):
    c, r = 0.03, torch.full((1, 4), size)
    exact = size**2 / (math.sqrt(size**2 + c**2) + c)
    assert pseudo_huber(r, c).item() == pytest.approx(exact, rel=1e-6)
    if size < 1e-5:
        assert pseudo_huber(r, c).item() == pytest.approx(size**2 / (2 * c), rel=1e-6)


def test_pseudo_huber_of_a_large_residual_is_its_norm_less_c():
    assert pseudo_huber(torch.full((1, 4), 1e4), 0.03).item() == pytest.approx(1e4 - 0.03, rel=1e-6)


def test_pseudo_huber_is_its_definition_per_sample():
    residual, c = torch.randn(5, 2, 3, 3, generator=torch.Generator().manual_seed(0)), 0.4
    expected = [math.sqrt(np.mean(np.square(r)) + c**2) - c for r in residual.double().numpy()]
    torch.testing.assert_close(pseudo_huber(residual, c), torch.tensor(expected, dtype=torch.float32))


def test_pseudo_huber_has_a_gradient_at_zero():
    residual = torch.zeros(2, 3, requires_grad=True)
    pseudo_huber(residual, 0.03).sum().backward()
    assert torch.equal(residual.grad, torch.zeros(2, 3))


# ---- weights ----


def column(*values):
    return torch.tensor(values).view(-1, 1, 1, 1)


def test_min_snr_is_the_snr_up_to_its_clip():
    alpha = column(0.999, 0.8, 0.6, 0.1)
    level = Level(column(0.0, 1.0, 2.0, 3.0), alpha, (1 - alpha**2).sqrt())
    np.testing.assert_allclose(min_snr(level, 5.0), [5, 0.64 / 0.36, 0.36 / 0.64, 0.01 / 0.99], rtol=1e-5)
    np.testing.assert_allclose(min_snr(level, 1.0), [1, 1, 0.36 / 0.64, 0.01 / 0.99], rtol=1e-5)


def test_min_snr_leaves_a_start_from_pure_noise_some_weight_where_asked():
    pure = Level(column(1.0), column(0.0), column(1.0))
    assert min_snr(pure, 5.0).item() == 0 and min_snr(pure, 5.0, at_zero=True).item() == 1
    almost_clean = Level(column(0.01), column(0.99), column(0.01))
    assert min_snr(almost_clean, 5.0, at_zero=True).item() == 5


# ---- the loss averaged over s ----


def test_the_closed_form_is_the_mean_of_the_squared_residuals():
    generator = torch.Generator().manual_seed(0)
    d, e = torch.randn(2, 3, 2, 4, 4, generator=generator, dtype=torch.float64)
    alpha = torch.rand(50, generator=generator, dtype=torch.float64)
    sigma = (1 - alpha**2).sqrt()
    moments = torch.stack([(alpha**2).mean(), (alpha * sigma).mean(), (sigma**2).mean()]).expand(3, 3)
    explicit = [(a * d + s * e).square().flatten(1).mean(1) for a, s in zip(alpha, sigma, strict=True)]
    torch.testing.assert_close(expected_squared_l2(d, e, moments), torch.stack(explicit).mean(0).float())


def explicit_mean(task, batch, seen, ends):
    """E over end times of ``‖f_θ(x_t, t → s) − f_θ⁻(x_{t_n}, t_n → s)‖²``, every s written out, shape (B,).

    ``seen`` are the network's evaluations of target and student; ``ends`` lists, per sample, (s, probability).
    """
    (x_tn, _, target_output), (x_t, _, student_output) = seen[-2:]
    losses = []
    for i in range(len(x_t)):
        t, t_n = ((Level(*(value[i].double() for value in level))) for level in (batch.teacher.t, batch.teacher.s))
        x, y = x_t[i].double(), x_tn[i].double()
        x0 = to_x0(student_output[i].double(), x, t, task.family.prediction)
        y0 = to_x0(target_output[i].double(), y, t_n, task.family.prediction)
        total = 0.0
        for s, probability in ends(t_n.t.item()):
            level = task.family.schedule.level(s)
            residual = tcf1(x, x0, t, level) - tcf1(y, y0, t_n, level)
            total += probability * residual.square().mean().item()
        losses.append(total)
    return torch.tensor(losses, dtype=torch.float32)


@pytest.mark.parametrize("share", [0.0, 0.3])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("target", ["stop_gradient", "ema"])
def test_the_marginalised_loss_is_the_average_over_all_s(prediction, share, target):
    family = TinyFamily(prediction)
    recipe = tiny_recipe(
        end_times={"draw": "exact", "lower_share": share}, objective={"weight": "none", "target": target}
    )
    task = TrajectoryDistillation(family, recipe)
    randomise(task.trainable(), 0.2)
    batch = task.draw(0)
    assert 0 < (batch.teacher.s.t > 0).sum() and batch.moments is not None
    family.calls = []
    loss = task(batch)

    def ends(t_n):
        uniform = [(s, (1 - share) / (t_n + 1)) for s in range(int(t_n) + 1)]
        return [*uniform, (0, share)]

    torch.testing.assert_close(loss.detach(), explicit_mean(task, batch, family.calls, ends), rtol=2e-4, atol=1e-7)


def test_the_marginalised_loss_stays_inside_its_segment():
    family = TinyFamily()
    recipe = tiny_recipe(end_times={"draw": "exact", "segments": [4], "lower_share": 0.3}, objective={"weight": "none"})
    task = TrajectoryDistillation(family, recipe)
    randomise(task.trainable(), 0.2)
    batch = task.draw(3)
    family.calls = []
    loss = task(batch)

    def ends(t_n):
        b = max(edge for edge in (0, 249, 499, 749) if edge <= t_n)
        return [*((s, 0.7 / (t_n - b + 1)) for s in range(b, int(t_n) + 1)), (b, 0.3)]

    torch.testing.assert_close(loss.detach(), explicit_mean(task, batch, family.calls, ends), rtol=2e-4, atol=1e-7)


def test_a_flows_marginalised_loss_is_the_integral_over_s_also_from_clean_data():
    family = TinyFamily("flow")
    recipe = tiny_recipe(
        end_times={"draw": "exact", "lower_share": 0.3}, objective={"weight": "none"}, training={"batch": 32}
    )
    task = TrajectoryDistillation(family, recipe)
    randomise(task.trainable(), 0.2)
    batch = task.draw(0)
    assert (batch.teacher.s.t == 0).any() and (batch.teacher.t.t == 1).any()
    family.calls = []
    loss = task(batch)
    nodes, weights = np.polynomial.legendre.leggauss(5)

    def ends(t_n):
        return [*((t_n * (1 + x) / 2, 0.7 * w / 2) for x, w in zip(nodes, weights, strict=True)), (0.0, 0.3)]

    torch.testing.assert_close(loss.detach(), explicit_mean(task, batch, family.calls, ends), rtol=2e-4, atol=1e-7)


def test_averaging_many_drawn_end_times_comes_near_the_marginalised_loss():
    losses = {}
    for draw, draws in (("exact", 1), ("integers", 64)):
        recipe = tiny_recipe(end_times={"draw": draw, "draws": draws}, training={"batch": 32})
        task = TrajectoryDistillation(TinyFamily(), recipe)
        randomise(task.trainable(), 0.2)
        batch = task.draw(0)
        losses[draw] = task(batch).mean().item()
        assert draws == len(batch.jumps)
    assert losses["integers"] == pytest.approx(losses["exact"], rel=0.05)


def test_every_drawn_end_time_is_averaged_for_two_evaluations_of_the_network():
    family = TinyFamily()
    recipe = tiny_recipe(end_times={"draws": 5}, objective={"weight": "none", "distance": "pseudo_huber"})
    task = TrajectoryDistillation(family, recipe)
    randomise(task.trainable(), 0.2)
    batch = task.draw(0)
    family.calls = []
    loss = task(batch)
    assert len(family.calls) == 3  # teacher, target, student
    each = [task(batch._replace(jumps=(pair,))) for pair in batch.jumps]
    torch.testing.assert_close(loss, torch.stack(each).mean(0))
    assert not torch.allclose(each[0], each[1])


def test_moments_follow_the_batchs_start_times():
    task = TrajectoryDistillation(TinyFamily(), tiny_recipe(end_times={"draw": "exact", "lower_share": 0.5}))
    batch, grid = task.draw(2), TimeGrid.of(task.family.schedule, 50)
    table = end_time_moments(task.family.schedule, grid, grid.lower_ends(1), 0.5)
    starts = np.searchsorted(grid.times, batch.teacher.t.t.flatten().numpy())
    np.testing.assert_allclose(batch.moments.numpy(), table[starts], rtol=1e-6)
