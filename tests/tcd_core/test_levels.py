"""Levels: half log-SNR and the way between VP and VE coordinates."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import PROPERTY, VP

from tcd_core import FlowSchedule, Level, half_log_snr, ve_to_vp, vp_to_ve


@PROPERTY
@given(st.floats(0, 999))
def test_ve_and_vp_are_inverse(t):
    level = VP.level(t)
    assert ve_to_vp(vp_to_ve(level)) == pytest.approx(level, abs=1e-15)


@PROPERTY
@given(st.floats(1e-3, 1e3))
def test_vp_and_ve_are_inverse(sigma):
    level = Level(5.0, 1.0, sigma)
    assert vp_to_ve(ve_to_vp(level)) == pytest.approx(level, rel=1e-14)


def test_a_flow_reaches_vp_coordinates_through_ve():
    there = ve_to_vp(vp_to_ve(FlowSchedule().level(0.25)))
    assert there.alpha**2 + there.sigma**2 == pytest.approx(1, abs=1e-15)
    assert there.sigma / there.alpha == pytest.approx(1 / 3, abs=1e-15)


def test_lambda_is_the_same_in_all_coordinates():
    level = VP.level(759)
    assert vp_to_ve(level).lam == pytest.approx(level.lam, abs=1e-14)
    assert level.lam == pytest.approx(0.5 * math.log(level.alpha**2 / level.sigma**2), abs=1e-14)


def test_lambda_is_infinite_at_the_ends():
    assert Level(0, 1.0, 0.0).lam == math.inf
    assert Level(1, 0.0, 1.0).lam == -math.inf


def test_lambda_of_tensors_is_that_of_floats():
    alpha, sigma = (
        torch.tensor([0.9, 0.0, 1.0], dtype=torch.float64),
        torch.tensor([0.4, 1.0, 0.0], dtype=torch.float64),
    )
    floats = [half_log_snr(float(a), float(s)) for a, s in zip(alpha, sigma, strict=True)]
    torch.testing.assert_close(half_log_snr(alpha, sigma), torch.tensor(floats, dtype=torch.float64))


def test_alpha_zero_has_no_ve_coordinates():
    with pytest.raises(ValueError, match="time 1.0 has alpha = 0.*keep x in VP"):
        vp_to_ve(FlowSchedule().level(1.0))
