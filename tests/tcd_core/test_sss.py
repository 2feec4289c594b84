"""The plan of a run and its one step: levels, coefficients, who is noisier than whom, what is refused."""

import math
from dataclasses import replace

import pytest
import torch
from exact_models import latents
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, TIMES, VE, VP, ZERO_SNR, distilled, falling, gamma_schedules, gammas, runs

from tcd_core import GammaSchedule, Level, VPSchedule, diffuse_coefficients, plan, sss_step, target_level

orders = st.sampled_from(["1", "2", "2M"])


def levels(schedule=VP, times=TIMES):
    return [schedule.level(t) for t in times]


# -- levels of a plan ----------------------------------------------------------------------------------------------


@PROPERTY
@given(runs(), gammas | gamma_schedules, orders)
def test_a_plan_chains_its_levels_and_lands(run, gamma, order):
    schedule, taus = run
    steps = plan(schedule, taus, gamma, order)
    assert [step.t for step in steps] == taus
    assert [step.n for step in steps] == [*taus[1:], schedule.landing(taus[-1])]
    assert steps[-1].s == steps[-1].n and steps[-1].b == 0


@PROPERTY
@given(runs(), gammas)
def test_a_plan_that_does_not_land_stops_at_its_last_level(run, gamma):
    schedule, taus = run
    steps = plan(schedule, taus, gamma, lands=False)
    assert [(step.t, step.n) for step in steps] == list(zip(taus, taus[1:], strict=False))
    assert steps == plan(schedule, taus, gamma)[:-1]


@PROPERTY
@given(runs(), gammas, orders)
def test_the_target_is_never_noisier_than_the_next_level_and_every_number_is_finite(run, gamma, order):
    schedule, taus = run
    for step in plan(schedule, taus, gamma, order):
        assert step.s.lam >= step.n.lam
        assert step.s.t <= step.n.t
        assert step.b >= 0
        numbers = (step.weight, step.k_x, step.k_0, step.a, step.b)
        assert all(isinstance(number, float) and math.isfinite(number) for number in numbers)
        assert step.u is None or step.weight <= 2.5  # 1/(2r): a u near t would divide rounding by r


@PROPERTY
@given(runs())
def test_gamma_zero_aims_at_the_next_level_itself(run):
    schedule, taus = run
    for step in plan(schedule, taus, 0.0):
        assert step.s is step.n
        assert (step.a, step.b) == (1, 0)


@PROPERTY
@given(runs())
def test_gamma_one_aims_at_time_zero(run):
    schedule, taus = run
    for step in plan(schedule, taus, 1.0)[:-1]:
        clean = schedule.level(0)
        assert step.s == (clean if clean.lam > step.n.lam else step.n)


@PROPERTY
@given(falling(st.integers(1, 999)), gammas)
def test_the_target_is_the_table_time_below_one_minus_gamma(times, gamma):
    for step in plan(VP, levels(VP, times), gamma)[:-1]:
        exact = (1 - gamma) * step.n.t
        assert step.s.t == int(step.s.t)
        assert exact - 1 < step.s.t <= exact + 1e-4  # float32 may round up across an integer
        assert step.s == VP.level(step.s.t)


def test_a_target_between_table_times_is_not_rounded():
    off = VE.level_at_sigma(1.2345)
    assert off.t != int(off.t)
    assert target_level(VE, off, 0.3).t == pytest.approx(0.7 * off.t, abs=1e-12)
    assert target_level(FLOW, FLOW.level(0.5), 0.3) == FLOW.level(0.35)


def test_the_target_of_a_sigma_beyond_the_table_is_no_noisier():
    for sigma in (0.001, 0.02, 14.7, 20.0):
        n = VE.level_at_sigma(sigma)
        assert all(target_level(VE, n, gamma).sigma <= sigma for gamma in (0.0, 1e-9, 0.001, 0.3, 1.0))


def test_the_rounding_of_interpolated_times_makes_no_target_noisier():
    """At the smallest gammas s is n but for rounding; looked up again, its sigma may come out above n's."""
    for sigma in (0.05 * 1.01**i for i in range(550)):
        n = VE.level_at_sigma(sigma)
        assert all(target_level(VE, n, gamma).sigma <= sigma for gamma in (1e-16, 2e-16, 1e-15))


def test_one_step_goes_straight_to_the_end():
    for schedule, time in ((VP, 999), (VE, 999), (FLOW, 1.0), (ZERO_SNR, 999)):
        (step,) = plan(schedule, levels(schedule, [time]), 0.5)
        assert (step.t, step.s, step.n) == (schedule.level(time), *[schedule.landing(step.t)] * 2)
        assert (step.a, step.b) == (1, 0)


def test_a_step_that_stands_still_gives_x_back():
    taus = [VP.level(500), VP.level(500), VP.level(200)]
    x = latents(9, dtype=torch.float32)
    for order in ("1", "2", "2M"):
        still = plan(VP, taus, 0.0, order)[0]
        assert torch.equal(sss_step(still, x, torch.randn(9), None), x)


# -- orders --------------------------------------------------------------------------------------------------------


def test_order_one_has_no_second_evaluation():
    assert all(step.u is None and step.weight == 0 for step in plan(VP, levels(), 0.3, "1"))


@pytest.mark.parametrize("schedule", [VP, VE, distilled()])
def test_order_two_evaluates_at_network_times_between_t_and_s(schedule):
    for step in plan(schedule, levels(schedule), 0.3, "2"):
        assert step.s.t < step.u.t < step.t.t
        assert step.u.t in schedule.network_times
        assert step.u == schedule.level(step.u.t)
        assert step.weight > 0


def test_order_two_takes_the_first_order_step_where_lambda_is_infinite():
    steps = plan(FLOW, levels(FLOW, (1.0, 0.6, 0.3)), 0.3, "2")
    assert [step.u is None for step in steps] == [True, False, True]
    steps = plan(ZERO_SNR, levels(ZERO_SNR), 0.3, "2")
    assert [step.u is None for step in steps] == [True, False, False, False]
    assert all(step.weight == 0 for step in steps if step.u is None)


def test_multistep_is_first_order_in_its_first_and_its_landing_step():
    steps = plan(VP, levels(), 0.3, "2M")
    assert [step.weight != 0 for step in steps] == [False, True, True, False]
    h = [VP.level(b).lam - VP.level(a).lam for a, b in ((999, 759), (759, 499), (499, 259))]
    assert [step.weight for step in steps[1:3]] == pytest.approx([-h[1] / (2 * h[0]), -h[2] / (2 * h[1])], abs=1e-14)


def test_multistep_uses_an_earlier_runs_last_evaluation_and_a_run_that_goes_on_its_last_step_too():
    steps = plan(VP, levels(), 0.3, "2M", lands=False, previous_level=VP.level(999 - 10))
    assert steps[0].weight == 0  # an evaluation at a lower time than the run's first is none to go by
    steps = plan(VP, levels(VP, TIMES[1:]), 0.3, "2M", lands=False, previous_level=VP.level(999))
    assert [step.weight for step in steps] == [step.weight for step in plan(VP, levels(), 0.3, "2M")[1:3]]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(order="3"), r"a string.*got '3'"),
        (dict(order=2), r"a string.*got 2"),
        (dict(gamma=1.5), r"gamma must lie in \[0, 1\], got 1.5"),
        (dict(gamma=math.nan), "got nan"),
        (dict(order="2", form="noise"), '"epsilon" or "data", got \'noise\''),
        (dict(levels=levels(VP, (499, 759))), "must fall along a run, got times 499, 759"),
        (dict(gamma=GammaSchedule("list", values=(0.1,))), "1 value, this run of 4 steps needs 3"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_the_reason(arguments, message):
    with pytest.raises(ValueError, match=message):
        plan(VP, **{"levels": levels(), **arguments})


# -- the diffuse step ----------------------------------------------------------------------------------------------


@PROPERTY
@given(st.floats(0, 999), st.floats(0, 999))
def test_diffusing_leads_from_one_levels_marginal_to_the_others(first, second):
    low, high = sorted((first, second))
    pairs = [(VP, low, high), (VE, low, high), (FLOW, low / 1000, high / 1000), (ZERO_SNR, low, high)]
    for schedule, s, n in pairs:
        s, n = schedule.level(s), schedule.level(n)
        a, b = diffuse_coefficients(s, n)
        assert a * s.alpha == pytest.approx(n.alpha, abs=1e-14)
        assert (a * s.sigma) ** 2 + b**2 == pytest.approx(n.sigma**2, rel=1e-12)


def test_diffuse_coefficients_are_the_papers():
    s, n = VP.level(300), VP.level(700)
    ratio = n.alpha / s.alpha
    assert diffuse_coefficients(s, n) == pytest.approx((ratio, math.sqrt(1 - ratio**2)), abs=1e-14)
    s, n = VE.level(300), VE.level(700)
    assert diffuse_coefficients(s, n) == pytest.approx((1, math.sqrt(n.sigma**2 - s.sigma**2)), abs=1e-14)
    a = 0.3 / 0.8
    assert diffuse_coefficients(FLOW.level(0.2), FLOW.level(0.7)) == pytest.approx(
        (a, math.sqrt(0.49 - (a * 0.2) ** 2)), abs=1e-15
    )
    assert diffuse_coefficients(FLOW.level(0.2), FLOW.level(1.0)) == (0, 1)


def test_noise_cannot_be_added_downwards():
    with pytest.raises(ValueError, match="from time 700.0 to time 300.0"):
        diffuse_coefficients(VP.level(700), VP.level(300))
    with pytest.raises(ValueError, match="is noisier"):
        diffuse_coefficients(VE.level_at_sigma(2.000001), VE.level_at_sigma(2.0))


def test_rounding_never_makes_the_root_negative():
    s = VP.level(500)
    for nudge in (1 - 1e-16, 1 - 1e-12, 1 - 5e-10):
        n = Level(500.0, s.alpha, s.sigma * nudge)
        assert diffuse_coefficients(s, n)[1] == 0


# -- one step ------------------------------------------------------------------------------------------------------


@PROPERTY
@given(runs(), gammas)
def test_a_step_is_denoise_then_diffuse(run, gamma):
    schedule, taus = run
    x, x0, z = (latents(7, seed=seed) for seed in range(3))
    for step in plan(schedule, taus, gamma):
        x_s = step.s.alpha * x0 + step.s.sigma * (x - step.t.alpha * x0) / step.t.sigma
        expected = step.n.alpha / step.s.alpha * x_s if step.s != step.n else x_s
        expected = expected + step.b * z
        scale = dict(rtol=1e-11, atol=1e-11 * max(1.0, step.t.alpha / step.t.sigma))
        torch.testing.assert_close(sss_step(step, x, x0, z), expected, **scale)


def test_a_step_writes_to_none_of_its_tensors():
    for gamma in (0.0, 0.3, 1.0):
        tensors = [latents(7, seed=seed) for seed in range(3)]
        kept = [tensor.clone() for tensor in tensors]
        sss_step(plan(VP, levels(), gamma)[0], *tensors)
        assert all(torch.equal(a, b) for a, b in zip(tensors, kept, strict=True))


def test_a_step_is_a_value_that_cannot_be_changed():
    step = plan(VP, levels(), 0.3)[0]
    assert step == plan(VP, levels(), 0.3)[0] != replace(step, gamma=0.4)
    with pytest.raises(AttributeError):
        step.b = 0.0


def test_a_table_that_starts_clean_is_a_target_too():
    clean = VPSchedule([1.0, 0.9, 0.5, 0.1])
    steps = plan(clean, levels(clean, (3, 2)), 1.0)
    assert [step.s for step in steps] == [Level(0.0, 1.0, 0.0)] * 2
    assert steps[0].k_x == 0 and steps[1].k_x == 0


def test_2m_goes_by_no_step_far_shorter_than_its_own():
    close = [VE.level_at_sigma(sigma) for sigma in (14.6, 14.5, 3.0, 0.05)]
    for run in (close, [VP.level(t) for t in (999, 998, 500, 100)]):
        assert all(abs(step.weight) <= 2.5 for step in plan(VE if run is close else VP, run, 0.3, "2M"))
        assert [step.weight for step in plan(VE if run is close else VP, run, 0.3, "2M")][1] == 0


def test_times_may_stand_for_levels():
    assert plan(VP, TIMES, 0.3) == plan(VP, levels(), 0.3)
