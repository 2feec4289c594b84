"""Noise, velocity and data prediction: against diffusers' schedulers and back again."""

import math

import pytest
import torch
from diffusers import TCDScheduler
from diffusers_reference import alpha_bar
from exact_models import latents
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, VP, ZERO_SNR

from tcd_core import Level, from_x0, to_eps, to_x0

KINDS = ("epsilon", "v_prediction", "sample", "flow")


def reference_x0(prediction, output, x, t):
    """The data prediction inside `TCDScheduler.step`: with time 0 made free of noise, a jump to it returns x̂."""
    scheduler = TCDScheduler(prediction_type=prediction)
    scheduler.alphas_cumprod = alpha_bar()
    scheduler.alphas_cumprod[0] = 1.0
    scheduler.set_timesteps(timesteps=[t])
    return scheduler.step(output, t, x, eta=0.0).prev_sample


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("t", [19, 500, 999])
def test_data_prediction_is_the_references(prediction, t):
    x, output = latents(2, 4, seed=1), latents(2, 4, seed=2)
    expected = reference_x0(prediction, output, x, t)
    torch.testing.assert_close(to_x0(output, x, VP.level(t), prediction), expected, rtol=1e-11, atol=1e-11)


def test_flow_velocity_is_noise_minus_data():
    clean, eps, t = latents(3, seed=1), latents(3, seed=2), FLOW.level(0.3)
    x = 0.7 * clean + 0.3 * eps
    torch.testing.assert_close(to_x0(eps - clean, x, t, "flow"), clean, rtol=0, atol=1e-15)
    torch.testing.assert_close(from_x0(clean, x, t, "flow"), eps - clean, rtol=0, atol=1e-14)


def test_noise_prediction_is_the_noise_that_was_added():
    clean, eps = latents(3, seed=1), latents(3, seed=2)
    for t in (VP.level(700), FLOW.level(0.6), Level(0, 1.0, 3.0)):
        torch.testing.assert_close(to_eps(clean, t.alpha * clean + t.sigma * eps, t), eps, rtol=0, atol=1e-13)


@PROPERTY
@given(st.sampled_from(KINDS), st.integers(1, 998), st.integers(1, 5))
def test_conversions_are_inverse(prediction, t, rank):
    level = FLOW.level(t / 1000) if prediction == "flow" else VP.level(t)
    x, output = latents(*[2] * rank, seed=1), latents(*[2] * rank, seed=2)
    back = from_x0(to_x0(output, x, level, prediction), x, level, prediction)
    torch.testing.assert_close(back, output, rtol=0, atol=1e-12)  # 1 / alpha, 1 / sigma are at most 25


@pytest.mark.parametrize("prediction", KINDS)
def test_levels_of_a_whole_batch_agree_with_one_level_per_sample(prediction):
    x, output = latents(3, 4, 2, 2, seed=1), latents(3, 4, 2, 2, seed=2)
    levels = [FLOW.level(t) for t in (0.2, 0.5, 0.9)] if prediction == "flow" else [VP.level(t) for t in (9, 500, 999)]
    batch = Level(*[torch.tensor(part, dtype=torch.float64).view(3, 1, 1, 1) for part in zip(*levels, strict=True)])
    for convert in (to_x0, from_x0):
        singly = torch.cat([convert(output[i : i + 1], x[i : i + 1], levels[i], prediction) for i in range(3)])
        torch.testing.assert_close(convert(output, x, batch, prediction), singly, rtol=1e-14, atol=1e-14)


def test_velocity_and_data_prediction_work_where_alpha_is_zero():
    x, output, t = latents(4, seed=1), latents(4, seed=2), ZERO_SNR.level(999)
    torch.testing.assert_close(to_x0(output, x, t, "v_prediction"), -output, rtol=0, atol=0)  # v = −x_0 there
    torch.testing.assert_close(to_x0(output, x, FLOW.level(1.0), "flow"), x - output, rtol=0, atol=0)
    torch.testing.assert_close(to_x0(output, x, t, "sample"), output, rtol=0, atol=0)


def test_noise_prediction_where_alpha_is_zero_is_refused_with_the_way_out():
    with pytest.raises(ValueError, match="time 999.*alpha = 0.*use v-prediction"):
        to_x0(latents(4), latents(4), ZERO_SNR.level(999), "epsilon")


def test_no_noise_can_be_predicted_in_clean_data():
    clean = Level(0.0, 1.0, 0.0)
    with pytest.raises(ValueError, match="sigma = 0"):
        to_eps(latents(4), latents(4), clean)
    for prediction in ("epsilon", "v_prediction", "flow"):
        with pytest.raises(ValueError, match="sigma = 0"):
            from_x0(latents(4), latents(4), clean, prediction)
        assert math.isfinite(to_x0(latents(4), latents(4), clean, prediction).sum())


@pytest.mark.parametrize("convert", [to_x0, from_x0])
def test_unknown_predictions_are_named(convert):
    with pytest.raises(ValueError, match="epsilon, v_prediction, flow or sample, got 'eps'"):
        convert(latents(4), latents(4), VP.level(500), "eps")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_conversions_keep_the_dtype(dtype):
    x = torch.ones(2, dtype=dtype)
    for prediction in KINDS:
        assert to_x0(x, x, FLOW.level(0.5), prediction).dtype == dtype
        assert from_x0(x, x, FLOW.level(0.5), prediction).dtype == dtype
