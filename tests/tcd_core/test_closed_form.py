"""Closed forms: exact marginals on a Gaussian, TCF(1)'s variance factor, the order of the local error."""

import math

import numpy as np
import pytest
import torch
from exact_models import Gaussian, Mixture, exact_trajectory, flow_level, latents, vp_level
from hypothesis import given
from run_strategies import FLOW, PROPERTY, VP, gammas, runs

from tcd_core import KeyedNoise, Level, VPSchedule, jump_coefficients, plan, sample, tcf1, tcf2

DATA = Gaussian(m=0.7, c=0.6)


# -- SSS with the exact trajectory map keeps every marginal ---------------------------------------------------------


def marginal_errors(data, steps):
    """Mean and variance of x at each tau_{i+1}, minus the forward process's, when f is the exact trajectory map."""
    mean, variance = steps[0].t.alpha * data.m, data.variance(steps[0].t)
    for step in steps:
        k = data.stretch(step.t, step.s)
        mean = step.s.alpha * data.m + k * (mean - step.t.alpha * data.m)
        mean, variance = step.a * mean, step.a**2 * k**2 * variance + step.b**2
        yield mean - step.n.alpha * data.m, variance / data.variance(step.n) - 1


@PROPERTY
@given(runs(), gammas)
def test_marginals_are_exact_at_every_time_for_every_gamma(run, gamma):
    schedule, levels = run
    for mean_error, variance_error in marginal_errors(DATA, plan(schedule, levels, gamma)):
        assert abs(mean_error) < 1e-12
        assert abs(variance_error) < 1e-12


@pytest.mark.parametrize(("schedule", "times"), [(VP, range(999, 0, -20)), (FLOW, np.linspace(1, 0.02, 50).tolist())])
@pytest.mark.parametrize("gamma", [0.0, 0.2, 0.3, 0.5, 1.0])
def test_marginals_stay_exact_over_fifty_steps(schedule, times, gamma):
    steps = plan(schedule, [schedule.level(t) for t in times], gamma)
    assert len(steps) == 50
    assert max(max(map(abs, errors)) for errors in marginal_errors(DATA, steps)) < 1e-12


@pytest.mark.parametrize(("schedule", "times"), [(VP, (999, 759, 499, 259)), (FLOW, (1.0, 0.75, 0.5, 0.25))])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_the_loop_with_the_exact_map_samples_the_data(schedule, times, gamma):
    """Monte Carlo on the real loop: 200,000 samples, five standard errors."""
    count, levels = 200_000, [schedule.level(t) for t in times]
    start = DATA.variance(levels[0]) ** 0.5 * latents(1, count, seed=7) + levels[0].alpha * DATA.m
    found = sample(DATA.consistent_x0, start, plan(schedule, levels, gamma), KeyedNoise(start, seed=3))
    end = schedule.landing(levels[-1])
    deviation = DATA.variance(end) ** 0.5
    assert abs(found.mean() - end.alpha * DATA.m) < 5 * deviation / math.sqrt(count)
    assert abs(found.std() / deviation - 1) < 5 / math.sqrt(2 * count)


# -- TCF(1) over a long jump shrinks the variance -------------------------------------------------------------------


def linear_factor(data, t, s):
    """The factor of x in TCF(1) on centred Gaussian data, read off its output on samples."""
    x = latents(100)
    found = tcf1(x, data.x0(x, t), t, s)
    factor = float(found[0] / x[0])
    torch.testing.assert_close(found, factor * x, rtol=1e-12, atol=0)  # it is linear
    return factor


@pytest.mark.parametrize(("t", "s", "printed"), [(759, 499, 0.90), (999, 0, 0.0095)])
def test_variance_factor_on_unit_variance_data(t, s, printed):
    """With c = 1, x̂ = alpha_t x and ε̂ = sigma_t x: the factor is cos² of the angle between the two levels."""
    t, s = VP.level(t), VP.level(s)
    angle = math.acos(t.alpha) - math.acos(s.alpha)
    found = linear_factor(Gaussian(0.0, 1.0), t, s) ** 2
    assert found == pytest.approx(math.cos(angle) ** 2, rel=1e-12)
    assert found == pytest.approx(printed, rel=0.01)  # as the paper's restatement prints it


@pytest.mark.parametrize("c", [0.3, 1.0, 2.0])
@pytest.mark.parametrize("levels", [(VP.level(759), VP.level(200)), (FLOW.level(1.0), FLOW.level(0.4))])
def test_variance_factor_for_any_data_variance_and_schedule(c, levels):
    """``(alpha_t alpha_s c² + sigma_t sigma_s)² / (V_t V_s)`` with ``V = alpha² c² + sigma²``; 1 only at s = t."""
    t, s, data = *levels, Gaussian(0.0, c)
    shrunk = linear_factor(data, t, s) ** 2 * data.variance(t) / data.variance(s)
    overlap = t.alpha * s.alpha * c**2 + t.sigma * s.sigma
    assert shrunk == pytest.approx(overlap**2 / (data.variance(t) * data.variance(s)), rel=1e-12)
    assert shrunk < 1


# -- order of the local error ---------------------------------------------------------------------------------------

X = torch.linspace(-2, 2, 9, dtype=torch.float64)
HALVINGS = [0.2 / 2**i for i in range(4)]
MODEL = Mixture()


def fitted_order(errors):
    """Slope of log(error) over log(h), by least squares."""
    return float(np.polyfit(np.log(HALVINGS), np.log(errors), 1)[0])


def local_errors(jump, level, lambda_t=-0.3):
    """Largest error of jump(x, t, s, h) against the exact trajectory as h is halved."""
    for h in HALVINGS:
        t, s = level(lambda_t), level(lambda_t + h)
        x = X * math.hypot(t.alpha, t.sigma)
        yield float((jump(x, t, s, h) - exact_trajectory(MODEL, x, t, s)).abs().max())


@pytest.mark.parametrize("level", [vp_level, flow_level])
def test_tcf1_is_of_second_order_locally(level):
    errors = list(local_errors(lambda x, t, s, h: tcf1(x, MODEL.x0(x, t), t, s), level))
    assert fitted_order(errors) == pytest.approx(2, abs=0.1)
    assert errors[-2] / errors[-1] == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("form", ["epsilon", "data"])
@pytest.mark.parametrize("level", [vp_level, flow_level])
@pytest.mark.parametrize("r", [0.5, 0.3, 0.8])
def test_tcf2_is_of_third_order_locally_at_any_midpoint(form, level, r):
    """r ≠ ½ is what a discrete network's table gives."""

    def jump(x, t, s, h):
        return tcf2(MODEL.x0, x, t, s, level(-0.3 + r * h), form)

    errors = list(local_errors(jump, level))
    assert fitted_order(errors) == pytest.approx(3, abs=0.15)
    assert errors[-2] / errors[-1] == pytest.approx(8, rel=0.1)


@pytest.mark.parametrize("form", ["epsilon", "data"])
def test_a_schedules_own_midpoint_gives_third_order(form):
    """Snapped to a table of 20,000 times, and exact for a flow."""
    fine = VPSchedule.scaled_linear(20_000, 0.0000425, 0.0006)

    def on_the_table(lam):
        return fine.level(round(fine.time_at(lam)))

    for level, schedule in ((on_the_table, fine), (flow_level, FLOW)):
        errors = list(
            local_errors(lambda x, t, s, h: tcf2(MODEL.x0, x, t, s, schedule.midpoint(t, s), form), level)  # noqa: B023
        )
        assert fitted_order(errors) == pytest.approx(3, abs=0.2)


@pytest.mark.parametrize(
    ("order", "form", "expected"), [("1", "data", 1), ("2", "data", 2), ("2", "epsilon", 2), ("2M", "data", 2)]
)
def test_global_order_of_a_deterministic_run(order, form, expected):
    """Error at a fixed end as the number of steps doubles, in uniform steps of lambda."""
    first, last = flow_level(-1.5), flow_level(1.5)
    exact = exact_trajectory(MODEL, X, first, last, steps=400)
    errors = []
    for count in (10, 20, 40, 80):
        levels = [flow_level(lam) for lam in np.linspace(-1.5, 1.5, count + 1)]
        steps = plan(FLOW, levels, 0.0, order, lands=False, form=form)
        errors.append(float((sample(MODEL.x0, X, steps, None) - exact).abs().max()))
    slope = -float(np.polyfit(np.log([10, 20, 40, 80]), np.log(errors), 1)[0])
    assert slope == pytest.approx(expected, abs=0.25)


# -- exactness of one jump ------------------------------------------------------------------------------------------


def test_data_that_is_one_point_is_reached_in_one_jump():
    """With constant x̂ the trajectory is a straight line in the coefficients: TCF(1) is exact over any jump."""
    point = Gaussian(0.7, 0.0)
    for t, s in ((VP.level(999), VP.level(0)), (FLOW.level(1.0), FLOW.level(0.3)), (VP.level(40), Level(0, 1.0, 0.0))):
        x = latents(20)
        torch.testing.assert_close(tcf1(x, point.x0(x, t), t, s), point.carry(x, t, s), rtol=0, atol=1e-14)
        k_x, k_0 = jump_coefficients(t, s)
        assert k_x * t.alpha + k_0 == pytest.approx(s.alpha, abs=1e-15)
