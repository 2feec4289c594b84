"""Trajectory consistency functions against the paper's formulas, DPM-Solver's and their boundary conditions."""

import math

import paper_formulas as paper
import pytest
import torch
from diffusers import DPMSolverSinglestepScheduler
from exact_models import Mixture, flow_level, latents, vp_level
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, VP, ZERO_SNR

from tcd_core import (
    Level,
    jump_coefficients,
    midpoint_weight,
    multistep_weight,
    tcf1,
    tcf2,
    tcf_s_plus,
    vp_to_ve,
)

MODEL = Mixture()
CLEAN = Level(0.0, 1.0, 0.0)
ROUNDING = dict(rtol=0, atol=1e-12)  # float64; the formulas' factors are at most a few hundred
lambdas = st.floats(-4.5, 3.5)


def eps(x, t):
    return (x - t.alpha * MODEL.x0(x, t)) / t.sigma


def jump(lambda_t, h, kind):
    t, s = {"VP": vp_level, "flow": flow_level, "VE": lambda lam: vp_to_ve(vp_level(lam))}[kind](lambda_t), None
    s = {"VP": vp_level, "flow": flow_level, "VE": lambda lam: vp_to_ve(vp_level(lam))}[kind](lambda_t + h)
    return t, s


kinds = st.sampled_from(["VP", "VE", "flow"])


# -- the paper's formulas ------------------------------------------------------------------------------------------


@PROPERTY
@given(lambdas, st.floats(0.01, 4), kinds)
def test_tcf1_is_the_papers_and_the_ddim_jump(lambda_t, h, kind):
    t, s = jump(lambda_t, h, kind)
    x = latents(5) * math.hypot(t.alpha, t.sigma)
    found = tcf1(x, MODEL.x0(x, t), t, s)
    torch.testing.assert_close(found, paper.tcf1(eps, x, t, s), **ROUNDING)
    torch.testing.assert_close(found, s.alpha * MODEL.x0(x, t) + s.sigma * eps(x, t), **ROUNDING)


@PROPERTY
@given(lambdas, st.floats(0.05, 4), st.floats(0.05, 0.95), kinds)
def test_tcf2_is_the_papers_at_any_midpoint(lambda_t, h, r, kind):
    t, s = jump(lambda_t, h, kind)
    _, u = jump(lambda_t, r * h, kind)
    x = latents(5) * math.hypot(t.alpha, t.sigma)
    size = dict(rtol=1e-11, atol=1e-11)  # 1/(2r) and e^{rh} multiply rounding by up to 400
    torch.testing.assert_close(tcf2(MODEL.x0, x, t, s, u, "epsilon"), paper.tcf2_epsilon(eps, x, t, u, s), **size)
    torch.testing.assert_close(tcf2(MODEL.x0, x, t, s, u, "data"), paper.tcf2_data(MODEL.x0, x, t, u, s), **size)


def test_at_the_exact_midpoint_the_noise_form_is_one_jump_with_the_midpoints_noise():
    t, u, s = vp_level(-2.0), vp_level(-1.0), vp_level(0.0)
    x = latents(5)
    x_u = tcf1(x, MODEL.x0(x, t), t, u)
    expected = s.alpha / t.alpha * x - s.sigma * (math.exp(2.0) - 1) * eps(x_u, u)
    torch.testing.assert_close(tcf2(MODEL.x0, x, t, s, u), expected, **ROUNDING)


@pytest.mark.parametrize(("form", "algorithm"), [("data", "dpmsolver++"), ("epsilon", "dpmsolver")])
@pytest.mark.parametrize("times", [(999, 700, 499), (759, 400, 300), (259, 100, 0)])
def test_tcf2_is_dpm_solvers_singlestep_update(form, algorithm, times):
    t, u, s = (VP.level(time) for time in times)
    x = latents(2, 4)
    solver = DPMSolverSinglestepScheduler(algorithm_type=algorithm, final_sigmas_type="sigma_min", solver_order=2)
    solver.sigmas = torch.tensor([level.sigma / level.alpha for level in (t, u, s)], dtype=torch.float64)
    solver._step_index = 1
    x_u = u.alpha * MODEL.x0(x, t) + u.sigma * eps(x, t)
    predict = MODEL.x0 if form == "data" else eps
    expected = solver.singlestep_dpm_solver_second_order_update([predict(x, t), predict(x_u, u)], sample=x)
    torch.testing.assert_close(tcf2(MODEL.x0, x, t, s, u, form), expected, rtol=1e-11, atol=1e-11)


def test_the_two_second_order_forms_differ():
    t, u, s = vp_level(-2.0), vp_level(-1.0), vp_level(0.0)
    x = latents(5)
    difference = tcf2(MODEL.x0, x, t, s, u, "epsilon") - tcf2(MODEL.x0, x, t, s, u, "data")
    assert difference.abs().max() > 1e-2


def test_s_plus_tells_the_network_its_target():
    t, s, x = VP.level(759), VP.level(400), latents(5)
    told = []

    def model(x, t, s):
        told.append((t, s))
        return MODEL.x0(x, t) + s.sigma

    expected = tcf1(x, MODEL.x0(x, t) + s.sigma, t, s)
    torch.testing.assert_close(tcf_s_plus(model, x, t, s), expected, rtol=0, atol=0)
    assert told == [(t, s)]


def test_tcf2_evaluates_at_t_and_u_and_names_s_both_times():
    t, u, s, seen = VP.level(759), VP.level(600), VP.level(400), []

    def model(x, t, s):
        seen.append((t, s))
        return MODEL.x0(x, t)

    tcf2(model, latents(3), t, s, u)
    assert seen == [(t, s), (u, s)]


def test_without_a_midpoint_tcf2_is_tcf1():
    t, s, x = FLOW.level(1.0), FLOW.level(0.5), latents(5)
    found = tcf2(MODEL.x0, x, t, s, FLOW.midpoint(t, s))
    torch.testing.assert_close(found, tcf1(x, MODEL.x0(x, t), t, s), rtol=0, atol=0)


# -- boundary conditions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [*map(VP.level, (0, 1, 499, 999)), ZERO_SNR.level(999), FLOW.level(1.0), CLEAN])
@pytest.mark.parametrize("dtype", [torch.float16, torch.float32, torch.float64])
def test_at_s_equal_t_x_comes_back_to_the_bit(level, dtype):
    x, x0 = latents(50, seed=1, dtype=dtype), latents(50, seed=2, dtype=dtype)
    assert torch.equal(tcf1(x, x0, level, level), x)
    assert jump_coefficients(level, level) == (1, 0)


@pytest.mark.parametrize("t", [VP.level(999), VP.level(1), ZERO_SNR.level(999), FLOW.level(1.0), FLOW.level(0.1)])
def test_at_sigma_zero_only_the_data_prediction_is_left(t):
    x, x0 = latents(50, seed=1), latents(50, seed=2)
    assert torch.equal(tcf1(x, x0, t, CLEAN), x0)
    half = Level(0.0, 0.5, 0.0)
    assert torch.equal(tcf1(x, x0, t, half), 0.5 * x0)


@pytest.mark.parametrize(
    ("t", "s"),
    [(FLOW.level(1.0), FLOW.level(0.6)), (ZERO_SNR.level(999), ZERO_SNR.level(400)), (FLOW.level(1.0), CLEAN)],
)
def test_from_pure_noise_the_noise_is_x_itself(t, s):
    x, x0 = latents(50, seed=1), latents(50, seed=2)
    torch.testing.assert_close(tcf1(x, x0, t, s), s.alpha * x0 + s.sigma * x, rtol=0, atol=1e-15)


def test_from_clean_data_there_is_nowhere_to_go():
    with pytest.raises(ValueError, match="time 0.0, where sigma = 0, to time 500.0"):
        jump_coefficients(CLEAN, VP.level(500))


# -- weights -------------------------------------------------------------------------------------------------------


def test_midpoint_weight_is_one_at_the_middle_in_data_form():
    assert midpoint_weight(vp_level(-1), vp_level(0), vp_level(1), "data") == pytest.approx(1, abs=1e-14)
    assert midpoint_weight(vp_level(-1), vp_level(0), vp_level(1)) == pytest.approx(math.e, abs=1e-14)
    assert midpoint_weight(vp_level(-1), vp_level(-0.5), vp_level(1), "data") == pytest.approx(2, abs=1e-14)


def test_unknown_forms_are_named():
    with pytest.raises(ValueError, match='"epsilon" or "data", got \'noise\''):
        midpoint_weight(vp_level(-1), vp_level(0), vp_level(1), "noise")


def test_multistep_weight_extrapolates_in_lambda():
    assert multistep_weight(vp_level(-1), vp_level(0), vp_level(1)) == pytest.approx(-0.5, abs=1e-14)
    assert multistep_weight(vp_level(-1), vp_level(1), vp_level(2)) == pytest.approx(-0.25, abs=1e-14)


@pytest.mark.parametrize(
    "levels",
    [
        (FLOW.level(1.0), FLOW.level(0.5), FLOW.level(0.25)),
        (FLOW.level(0.5), FLOW.level(0.25), CLEAN),
        (FLOW.level(0.5), FLOW.level(0.5), FLOW.level(0.25)),
    ],
)
def test_multistep_is_first_order_where_lambda_is_infinite_or_stands_still(levels):
    assert multistep_weight(*levels) == 0


# -- a level per sample, as in training ----------------------------------------------------------------------------

PAIRS = [(999, 19), (759, 0), (500, 500), (20, 3), (0, 0)]


def batched(levels, dtype=torch.float64):
    return Level(*[torch.tensor(part, dtype=dtype).view(-1, 1, 1, 1) for part in zip(*levels, strict=True)])


def per_sample(function, x, *levels):
    return torch.cat([function(x[i : i + 1], *at) for i, at in enumerate(zip(*levels, strict=True))])


def test_jump_coefficients_of_a_batch_are_those_of_its_samples():
    starts = [FLOW.level(t / 1000) for t, _ in PAIRS] + [FLOW.level(1.0)]
    ends = [FLOW.level(s / 1000) for _, s in PAIRS] + [CLEAN]
    found = jump_coefficients(batched(starts), batched(ends))
    expected = torch.tensor([jump_coefficients(t, s) for t, s in zip(starts, ends, strict=True)], dtype=torch.float64)
    torch.testing.assert_close(torch.stack(found).view(2, -1).T, expected, rtol=0, atol=1e-15)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 2e-6)])
def test_tcf1_of_a_batch_is_that_of_its_samples(dtype, tolerance):
    starts, ends = ([VP.level(time) for time in times] for times in zip(*PAIRS, strict=True))
    x, x0 = latents(5, 4, 3, 3, seed=1, dtype=dtype), latents(5, 4, 3, 3, seed=2, dtype=dtype)
    found = tcf1(x, x0, batched(starts, dtype), batched(ends, dtype))
    assert found.dtype == dtype
    expected = torch.cat([tcf1(x[i : i + 1], x0[i : i + 1], starts[i], ends[i]) for i in range(5)])
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)
    assert torch.equal(found[2], x[2])  # s = t, to the bit here too


@pytest.mark.parametrize("form", ["epsilon", "data"])
def test_tcf2_of_a_batch_is_that_of_its_samples(form):
    lambda_t, h, r = (-3.0, -1.0, 0.5), (2.0, 0.5, 3.0), (0.5, 0.3, 0.8)
    starts = [vp_level(lam) for lam in lambda_t]
    middles = [vp_level(lam + part * step) for lam, part, step in zip(lambda_t, r, h, strict=True)]
    ends = [vp_level(lam + step) for lam, step in zip(lambda_t, h, strict=True)]
    x = latents(3, 4, 2, 2)

    def model(x, t, s):  # linear in x with factors of t alone, so that it takes levels of both kinds
        return t.alpha * x + t.sigma * 0.3

    expected = per_sample(lambda x, t, u, s: tcf2(model, x, t, s, u, form), x, starts, middles, ends)
    found = tcf2(model, x, batched(starts), batched(ends), batched(middles), form)
    torch.testing.assert_close(found, expected, rtol=1e-13, atol=1e-13)


def test_a_gradient_reaches_the_prediction_through_a_batch_of_jumps():
    starts, ends = ([VP.level(time) for time in times] for times in zip(*PAIRS, strict=True))
    x, x0 = latents(5, 1, 1, 1, seed=1), latents(5, 1, 1, 1, seed=2).requires_grad_()
    tcf1(x, x0, batched(starts), batched(ends)).sum().backward()
    expected = [jump_coefficients(t, s)[1] for t, s in zip(starts, ends, strict=True)]
    torch.testing.assert_close(x0.grad.flatten().tolist(), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_inputs_are_not_written_to_and_the_dtype_stays(dtype):
    x, x0 = latents(9, seed=1, dtype=dtype), latents(9, seed=2, dtype=dtype)
    kept = x.clone(), x0.clone()
    assert tcf1(x, x0, VP.level(759), VP.level(400)).dtype == dtype
    assert torch.equal(x, kept[0]) and torch.equal(x0, kept[1])
