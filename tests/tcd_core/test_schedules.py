"""Noise schedules against diffusers' tables, and their round trips: t → lambda → t, VE ↔ VP, 50 entries → 1000."""

import math
from bisect import bisect

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, TCDScheduler
from diffusers_reference import alpha_bar
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, VE, VP, ZERO_SNR, distilled, gammas

from tcd_core import FlowSchedule, FlowVESchedule, Level, VESchedule, VPSchedule, shift_time

SIGMAS = ((1 - alpha_bar()) / alpha_bar()).sqrt()
HOST_SIGMAS = SIGMAS.float()  # a host's table is float32


# -- tables --------------------------------------------------------------------------------------------------------


def test_scaled_linear_is_the_references_table():
    np.testing.assert_allclose(VP.alpha_bar, alpha_bar(), rtol=1e-12)
    # the reference multiplies in float32: 1000 roundings of 6e-8, on average far fewer
    np.testing.assert_allclose(VP.alpha_bar, TCDScheduler().alphas_cumprod, rtol=5e-5)


def test_zero_terminal_snr_is_diffusers_rescaling():
    np.testing.assert_allclose(ZERO_SNR.alpha_bar, alpha_bar(zero_snr=True), rtol=1e-9, atol=1e-16)
    assert ZERO_SNR.alpha_bar[-1] == 0
    assert ZERO_SNR.alpha_bar[0] == pytest.approx(VP.alpha_bar[0], rel=1e-15)


def test_a_table_of_ve_sigmas_gives_the_alpha_bar_it_was_made_of():
    found = VPSchedule.from_ve_sigmas(HOST_SIGMAS.numpy())
    np.testing.assert_allclose(found.alpha_bar, alpha_bar(), rtol=1e-6)  # float32 sigmas
    assert list(found.network_times) == list(range(1000))


@pytest.mark.parametrize("kind", [VPSchedule, VESchedule])
def test_fifty_entries_restore_the_whole_table(kind):
    sigmas = SIGMAS.numpy()
    found = kind.from_ve_sigmas(sigmas[19::20], 1000)
    restored = np.sqrt((1 - found.alpha_bar) / found.alpha_bar)
    np.testing.assert_allclose(restored, sigmas, rtol=1e-6)
    np.testing.assert_allclose(restored[20:], sigmas[20:], rtol=2e-8)  # above the first entry, where cubics are centred
    assert type(found) is kind
    assert list(found.network_times) == list(range(19, 1000, 20))


def test_entries_of_a_short_table_are_kept():
    sigmas = SIGMAS.numpy()[19::20]
    found = VESchedule.from_ve_sigmas(sigmas, 1000)
    assert [found.level(t).sigma for t in range(19, 1000, 20)] == pytest.approx(list(sigmas), rel=1e-14)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: VPSchedule([[0.9, 0.5]]), r"at least two numbers, got shape \(1, 2\)"),
        (lambda: VPSchedule([0.9]), "at least two numbers"),
        (lambda: VPSchedule([0.9, 1.2]), r"must lie in \[0, 1\], got 0.9 … 1.2"),
        (lambda: VPSchedule([0.9, math.nan]), r"must lie in \[0, 1\]"),
        (lambda: VPSchedule([0.9, 0.5, 0.6]), "rises after t = 1"),
        (lambda: VPSchedule.from_ve_sigmas([0.0, 1.0]), "positive and finite"),
        (lambda: VPSchedule.from_ve_sigmas([1.0, math.inf]), "positive and finite"),
        (lambda: VPSchedule.from_ve_sigmas(HOST_SIGMAS[:30], 1000), "30 sigmas do not fit 1000"),
        (lambda: VPSchedule.from_ve_sigmas(HOST_SIGMAS, 50), "1000 sigmas do not fit 50"),
        (lambda: VP.level(1000), r"\[0, 999\], got 1000"),
        (lambda: VP.level(-0.5), r"\[0, 999\], got -0.5"),
        (lambda: VP.level(math.nan), "got nan"),
        (lambda: FLOW.level(1.01), r"\[0, 1\], got 1.01"),
        (lambda: FLOW.level(-1e-9), r"\[0, 1\]"),
    ],
)
def test_what_is_no_schedule_is_refused_with_its_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# -- levels and round trips ----------------------------------------------------------------------------------------


@PROPERTY
@given(st.floats(0, 999))
def test_vp_preserves_variance_at_and_between_times(t):
    for schedule in (VP, ZERO_SNR):
        level = schedule.level(t)
        assert level.alpha**2 + level.sigma**2 == pytest.approx(1, abs=4e-16)


def test_levels_on_the_table_are_its_square_roots():
    for t in (0, 1, 500, 999):
        a2 = float(alpha_bar()[t])
        assert VP.level(t) == pytest.approx((t, math.sqrt(a2), math.sqrt(1 - a2)), rel=1e-12)
        assert VE.level(t) == pytest.approx((t, 1, math.sqrt((1 - a2) / a2)), rel=1e-12)


def test_between_table_times_lambda_is_linear():
    low, high = VP.level(500).lam, VP.level(501).lam
    assert VP.level(500.25).lam == pytest.approx(0.75 * low + 0.25 * high, abs=1e-13)


@pytest.mark.parametrize("schedule", [VP, VE, distilled()])
def test_every_table_time_comes_back_from_its_lambda(schedule):
    assert [schedule.time_at(schedule.level(t).lam) for t in range(1000)] == list(range(1000))


@PROPERTY
@given(st.floats(0, 999))
def test_vp_times_between_come_back_from_their_lambda(t):
    assert VP.time_at(VP.level(t).lam) == pytest.approx(t, abs=1.1e-3)  # so near an integer it is that integer
    if abs(t - round(t)) > 2e-3:
        assert VP.time_at(VP.level(t).lam) == pytest.approx(t, abs=1e-9)


@PROPERTY
@given(st.floats(0, 1))
def test_flow_times_come_back_from_their_lambda(t):
    assert FLOW.time_at(FLOW.level(t).lam) == pytest.approx(t, abs=1e-15)


def test_a_hosts_float32_sigmas_are_table_times():
    assert [VE.time_at_sigma(float(sigma)) for sigma in HOST_SIGMAS] == list(range(1000))


def test_a_lambda_beyond_the_table_is_its_nearest_end():
    assert (VP.time_at(math.inf), VP.time_at(50.0)) == (0, 0)
    assert (VP.time_at(-math.inf), VP.time_at(-50.0)) == (999, 999)
    assert (FLOW.time_at(math.inf), FLOW.time_at(-math.inf)) == (0, 1)
    assert VE.time_at_sigma(0.0) == 0


def test_a_hosts_sigma_is_kept_as_it_is():
    for sigma in (20.0, 14.6, 3.14159, 0.001):
        assert VE.level_at_sigma(sigma)[1:] == (1.0, sigma)
    assert FLOW.level_at_sigma(0.3) == Level(0.3, 0.7, 0.3)


def test_zero_terminal_snr_ends_in_pure_noise():
    assert ZERO_SNR.level(999)[1:] == (0.0, 1.0)
    assert ZERO_SNR.level(998.5).alpha < ZERO_SNR.level(998).alpha
    assert ZERO_SNR.time_at(-math.inf) == 999


def test_time_shift_is_the_flow_matching_schedulers():
    for shift in (1.0, 3.0):
        reference = FlowMatchEulerDiscreteScheduler(shift=shift).sigmas
        unshifted = FlowMatchEulerDiscreteScheduler().sigmas.double()
        torch.testing.assert_close(shift_time(unshifted, shift), reference.double(), rtol=1e-6, atol=0)


# -- what strategic stochastic sampling asks -----------------------------------------------------------------------


def test_target_time_is_the_references_for_every_gamma_and_time():
    times, off_by_float64 = torch.arange(1000), 0
    for gamma in (i / 100 for i in range(101)):
        reference = torch.floor((1 - gamma) * times)  # what TCDScheduler.step writes: float32
        assert [VP.target_time(float(t), gamma) for t in range(1000)] == reference.tolist(), gamma
        off_by_float64 += int((torch.floor((1 - gamma) * times.double()) != reference).sum())
    assert off_by_float64 == 677  # so the float matters


def test_target_time_off_the_table_is_not_rounded():
    assert VE.target_time(90.5, 0.3) == pytest.approx(63.35, abs=1e-12)
    assert FLOW.target_time(0.75, 0.2) == pytest.approx(0.6, abs=1e-15)


@PROPERTY
@given(st.floats(0, 999) | st.integers(0, 999).map(float), gammas)
def test_target_time_lies_between_zero_and_the_next_time(t, gamma):
    assert 0 <= VP.target_time(t, gamma) <= t
    assert 0 <= FLOW.target_time(t / 999, gamma) <= t / 999


def test_progress_runs_from_zero_to_one():
    assert (VP.progress(999), VP.progress(0)) == (0, 1)
    assert VP.progress(249.75) == pytest.approx(0.75, abs=1e-15)
    assert (FLOW.progress(1.0), FLOW.progress(0.25), FLOW.progress(0.0)) == (0, 0.75, 1)


def test_a_run_lands_at_time_zero_with_its_remaining_noise():
    a0 = float(alpha_bar()[0])
    expected = pytest.approx((0, math.sqrt(a0), math.sqrt(1 - a0)), rel=1e-12)
    assert VP.landing(VP.level(259)) == expected
    assert VE.landing(VE.level(259)) == expected  # in VP coordinates, as the decoder expects
    assert FLOW.landing(FLOW.level(0.25)) == (0, 1, 0)


def test_a_run_whose_last_sigma_lies_below_the_table_lands_no_noisier():
    level = VE.level_at_sigma(0.01)
    assert level.sigma < VE.level(0).sigma
    assert VE.landing(level).lam == pytest.approx(level.lam, abs=1e-12)


@PROPERTY
@given(st.integers(0, 999), st.integers(0, 999))
def test_the_midpoint_is_a_network_time_next_to_the_middle_of_lambda(first, second):
    s, t = sorted((first, second))
    for schedule in (VP, VE, distilled()):
        u = schedule.midpoint(schedule.level(t), schedule.level(s))
        inside = [time for time in schedule.network_times if s < time < t]
        if not inside:
            assert u is None
            continue
        middle = 0.5 * (schedule.level(t).lam + schedule.level(s).lam)
        place = bisect([-schedule.level(time).lam for time in inside], -middle)
        assert u.t in inside[max(place - 1, 0) : place + 1]
        assert u == schedule.level(u.t)


def test_a_flows_midpoint_is_exact():
    t, s = FLOW.level(0.9), FLOW.level(0.2)
    assert FLOW.midpoint(t, s).lam == pytest.approx(0.5 * (t.lam + s.lam), abs=1e-14)


def test_there_is_no_midpoint_where_lambda_is_infinite():
    assert ZERO_SNR.midpoint(ZERO_SNR.level(999), ZERO_SNR.level(500)) is None
    assert FLOW.midpoint(FLOW.level(1.0), FLOW.level(0.5)) is None
    assert FLOW.midpoint(FLOW.level(0.5), FLOW.level(0.0)) is None
    assert FLOW.midpoint(FLOW.level(0.5), FLOW.level(0.5)) is None
    clean = VPSchedule(np.r_[1.0, VP.alpha_bar])
    assert clean.midpoint(clean.level(500), clean.level(0)) is None


def test_schedules_of_other_lengths_work():
    short = VPSchedule.scaled_linear(100)
    assert short.num_train_timesteps == 100
    assert short.progress(99) == 0
    np.testing.assert_allclose(short.alpha_bar, TCDScheduler(num_train_timesteps=100).alphas_cumprod, rtol=1e-5)
    assert FlowSchedule() == FLOW


def test_what_rounding_puts_above_a_flow_s_last_time_is_that_time():
    assert FlowSchedule().level_at_sigma(1.0000001192092896) == FlowSchedule().level(1.0)
    with pytest.raises(ValueError, match="must lie in"):
        FlowSchedule().level_at_sigma(1.001)


def test_a_flow_in_ve_coordinates_has_the_flow_s_signal_to_noise():
    for t in (0.1, 0.5, 0.9):
        level = FlowVESchedule().level(t)
        assert level.alpha == 1 and level.lam == pytest.approx(FlowSchedule().level(t).lam, abs=1e-12)
        assert FlowVESchedule().level_at_sigma(level.sigma).t == pytest.approx(t, abs=1e-12)
    assert FlowVESchedule().landing(level) == (0, 1, 0)
