"""SSS against code that is not ours: diffusers' TCD, DDIM, LCM, DPM-Solver++ and flow schedulers, and Algorithm 4."""

import diffusers_reference as reference
import numpy as np
import paper_formulas as paper
import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, FlowMatchEulerDiscreteScheduler, LCMScheduler
from exact_models import Mixture, latents
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, VE, VP, ZERO_SNR, falling, gammas

from tcd_core import VPSchedule, plan, sample, to_x0, vp_to_ve

MODEL = Mixture()
GAMMAS = (0.0, 0.2, 0.3, 0.5, 1.0)
STRENGTHS = (1.0, 0.8, 0.5, 0.3)


def relative(found, expected):
    return float((found - expected).norm() / expected.norm())


def ours(schedule, times, gamma, x, noise, prediction="sample", **options):
    """The final latents of our loop on the mixture, through a network of that kind."""

    def model(x, t, s):
        return to_x0(MODEL.network(x, t, prediction), x, t, prediction)

    steps = plan(schedule, [schedule.level(t) for t in times], gamma, **options)
    return sample(model if prediction != "sample" else MODEL.x0, x, steps, noise)


# -- the reference itself -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("steps", [1, 2, 4, 8, 20, 50])
def test_final_latents_are_the_references(prediction, gamma, steps):
    x = latents(2, 4, 3, 3)
    made = reference.scheduler(prediction)
    for strength in STRENGTHS:
        if steps > int(50 * strength):
            continue  # the reference raises
        made.set_timesteps(steps, strength=strength)
        expected = reference.run(made, lambda x, t: MODEL.network(x, t, prediction), x, gamma)
        found = ours(VP, made.timesteps.tolist(), gamma, x, reference.noise(x), prediction)
        assert relative(found, expected) < 1e-10, strength  # both float64, up to 50 steps


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("steps", [1, 4, 50])
def test_final_latents_are_those_of_the_reference_as_it_is(gamma, steps):
    """Its float32 table is itself 3e-5 away from float64 at gamma 1 and 50 steps."""
    x = latents(2, 4, 3, 3, dtype=torch.float32)
    made = reference.scheduler("epsilon", double=False)
    made.set_timesteps(steps)
    expected = reference.run(made, lambda x, t: MODEL.network(x, t, "epsilon"), x, gamma)
    found = ours(VP, made.timesteps.tolist(), gamma, x, reference.noise(x), "epsilon")
    assert relative(found, expected) < 5e-5


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("steps", [1, 4, 8])
def test_zero_terminal_snr_is_the_references(gamma, steps):
    x = latents(2, 4, 3, 3)
    made = reference.scheduler("v_prediction", zero_snr=True)
    made.set_timesteps(steps)
    assert made.alphas_cumprod[made.timesteps[0]] == 0
    expected = reference.run(made, lambda x, t: MODEL.network(x, t, "v_prediction"), x, gamma)
    found = ours(ZERO_SNR, made.timesteps.tolist(), gamma, x, reference.noise(x), "v_prediction")
    assert relative(found, expected) < 1e-10


@PROPERTY
@given(falling(st.integers(1, 999)), gammas)
def test_any_times_and_gamma_are_the_references(times, gamma):
    x = latents(3, 2)
    made = reference.scheduler("epsilon")
    made.set_timesteps(timesteps=times)
    expected = reference.run(made, lambda x, t: MODEL.network(x, t, "epsilon"), x, gamma)
    assert relative(ours(VP, times, gamma, x, reference.noise(x)), expected) < 1e-10


def test_ve_coordinates_give_the_references_latents():
    """The host's coordinates: y = x / alpha; the run ends in VP coordinates."""
    made = reference.scheduler("sample")
    x = latents(2, 4, 3, 3)
    for gamma in GAMMAS:
        made.set_timesteps(8)
        expected = reference.run(made, MODEL.x0, x, gamma)
        first = VP.level(made.timesteps[0].item())
        y = x / first.alpha
        noise = reference.noise(x)
        found = sample(
            lambda y, t, s: MODEL.x0(y, t), y, plan(VE, [VE.level(t) for t in made.timesteps.tolist()], gamma), noise
        )
        assert relative(found, expected) < 1e-10
        assert vp_to_ve(first) == VE.level(first.t)


# -- Algorithm 4, literally ----------------------------------------------------------------------------------------


def noises_for(x, count):
    drawn = [latents(*x.shape, seed=100 + i) for i in range(count)]
    remaining = iter(drawn)
    return drawn, lambda n: next(remaining)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_vp_is_algorithm_4(gamma):
    times, x = [999, 640, 301, 90, 7], latents(4, 5)
    drawn, noise = noises_for(x, 5)
    expected = paper.algorithm_4_vp(
        lambda x, t: MODEL.network(x, t, "epsilon"), x, reference.alpha_bar().tolist(), times, gamma, drawn
    )
    assert relative(ours(VP, times, gamma, x, noise), expected) < 1e-12


@pytest.mark.parametrize("gamma", GAMMAS)
def test_ve_is_algorithm_4(gamma):
    times, y = [999, 640, 301, 90, 7], 14.6 * latents(4, 5)
    drawn, noise = noises_for(y, 5)
    a2 = reference.alpha_bar()
    expected = paper.algorithm_4_ve(MODEL.x0, y, lambda t: float(((1 - a2[t]) / a2[t]).sqrt()), times, gamma, drawn)
    expected = expected * float(a2[0].sqrt())  # it ends in VP coordinates
    assert relative(ours(VE, times, gamma, y, noise), expected) < 1e-12


@pytest.mark.parametrize("gamma", GAMMAS)
def test_flow_is_algorithm_4(gamma):
    times, x = [1.0, 0.9, 0.6, 0.25, 0.05], latents(4, 5)
    drawn, noise = noises_for(x, 5)
    expected = paper.algorithm_4_flow(lambda x, t: MODEL.network(x, t, "flow"), x, times, gamma, drawn)
    assert relative(ours(FLOW, times, gamma, x, noise, "flow"), expected) < 1e-12


# -- gamma 0 and gamma 1 -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 4, 10, 50])
def test_gamma_zero_is_ddim(steps):
    ddim = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, timestep_spacing="trailing",
    )  # fmt: skip
    ddim.alphas_cumprod = reference.alpha_bar()
    ddim.final_alpha_cumprod = ddim.alphas_cumprod[0]
    ddim.set_timesteps(steps)
    x = expected = latents(2, 4, 3, 3)
    for t in ddim.timesteps:
        output = MODEL.network(expected, VP.level(t.item()), "epsilon")
        expected = ddim.step(output, t, expected).prev_sample
    assert relative(ours(VP, ddim.timesteps.tolist(), 0.0, x, None), expected) < 1e-11


def clean_table():
    """SD's table with time 0 made free of noise: there the reference's time 0 is LCM's sigma = 0."""
    found = reference.alpha_bar()
    found[0] = 1.0
    return found


@pytest.mark.parametrize("steps", [1, 2, 4, 8, 50])
def test_gamma_one_is_multistep_consistency_sampling(steps):
    """LCM's scheduler; its boundary scaling of 1e-7 and less is switched off by an endless timestep_scaling."""
    lcm = LCMScheduler(timestep_scaling=1e9, prediction_type="sample", clip_sample=False)
    lcm.alphas_cumprod = clean_table()
    lcm.set_timesteps(steps)
    schedule, generator = VPSchedule(clean_table().numpy()), torch.Generator().manual_seed(4)
    x = expected = latents(2, 4, 3, 3)
    for t in lcm.timesteps:
        output = MODEL.x0(expected, schedule.level(t.item()))
        expected = lcm.step(output, t, expected, generator=generator).prev_sample
    found = ours(schedule, lcm.timesteps.tolist(), 1.0, x, reference.noise(x, 4))
    assert relative(found, expected) < 1e-11


def test_gamma_one_jumps_to_time_zero_and_keeps_its_noise():
    """On SD's table multistep consistency sampling ends at ᾱ_0: x_n = (alpha_n/alpha_0)(alpha_0 x̂ + sigma_0 ε) + …"""
    for step in plan(VP, [VP.level(t) for t in (999, 759, 499, 259)], 1.0):
        assert step.s == VP.level(0)
        assert step.s.sigma == pytest.approx(0.0292, abs=1e-4)


def test_gamma_zero_on_a_flow_is_eulers_method():
    euler = FlowMatchEulerDiscreteScheduler()
    euler.set_timesteps(sigmas=[1.0, 0.75, 0.5, 0.25])
    x = expected = latents(2, 4, 3, 3, dtype=torch.float32)
    for t, sigma in zip(euler.timesteps, euler.sigmas, strict=False):
        output = MODEL.network(expected, FLOW.level(sigma.item()), "flow")
        expected = euler.step(output, t, expected).prev_sample
    assert relative(ours(FLOW, [1.0, 0.75, 0.5, 0.25], 0.0, x, None, "flow"), expected) < 1e-6  # float32


def test_gamma_one_on_a_flow_renoises_the_clean_prediction():
    x, z = latents(2, 4, seed=1), latents(2, 4, seed=2)
    (step, _) = plan(FLOW, [FLOW.level(0.8), FLOW.level(0.5)], 1.0)
    found = sample(MODEL.x0, x, [step], lambda n: z)
    torch.testing.assert_close(found, 0.5 * MODEL.x0(x, FLOW.level(0.8)) + 0.5 * z, rtol=0, atol=1e-15)


# -- 2M ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [(999, 759, 499, 259), (999, 900, 700, 650, 400, 200, 100, 50), (999, 500), (999,)])
def test_2m_at_gamma_zero_is_dpm_solver_multistep(times):
    """First order in the first step, and in the last as theirs is below 15 steps. Theirs computes in float32."""
    solver = DPMSolverMultistepScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        algorithm_type="dpmsolver++", solver_order=2, prediction_type="sample", final_sigmas_type="sigma_min",
    )  # fmt: skip
    solver.set_timesteps(timesteps=list(times))
    x = expected = latents(2, 4, 3, 3, dtype=torch.float32)
    for t in solver.timesteps:
        expected = solver.step(MODEL.x0(expected, VP.level(t.item())), t, expected).prev_sample
    found = ours(VP, times, 0.0, x, None, order="2M")
    assert relative(found, expected) < 1e-5
    if len(times) > 2:
        assert relative(ours(VP, times, 0.0, x, None), expected) > 1e-3  # and first order is something else


@pytest.mark.parametrize("gamma", [0.3, 1.0])
def test_2m_extrapolates_by_the_steps_own_length_whatever_gamma(gamma):
    """``x̄ = x̂ + (h / 2h_previous)(x̂ − x̂_previous)``, h from tau_i to tau_{i+1}; then the jump to s."""
    times, x = (999, 800, 500, 259), latents(3, 4)
    drawn, noise = noises_for(x, 3)
    lam = [VP.level(t).lam for t in times]
    expected, before = x, None
    for i, time in enumerate(times):
        t, last = VP.level(time), i == len(times) - 1
        n = VP.level(0 if last else times[i + 1])
        s = n if last else VP.level(np.floor(np.float32(1 - gamma) * np.float32(n.t)))
        clean = now = MODEL.x0(expected, t)
        if 0 < i and not last:
            clean = now + (lam[i + 1] - lam[i]) / (2 * (lam[i] - lam[i - 1])) * (now - before)
        x_s = s.alpha * clean + s.sigma * (expected - t.alpha * clean) / t.sigma
        ratio = n.alpha / s.alpha
        expected = x_s if last else ratio * x_s + np.sqrt(n.sigma**2 - ratio**2 * s.sigma**2) * drawn[i]
        before = now
    assert relative(ours(VP, times, gamma, x, noise, order="2M"), expected) < 1e-12


@pytest.mark.parametrize("form", ["epsilon", "data"])
@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0])
def test_order_2_is_the_papers_tcf2_then_the_diffuse_step(form, gamma):
    times, x = (999, 700, 300), latents(3, 4)
    drawn, noise = noises_for(x, 3)
    expected = x
    for i, time in enumerate(times):
        n_time = times[i + 1] if i < 2 else 0
        t, n = VP.level(time), VP.level(n_time)
        s = VP.level(int(np.floor(np.float32(1 - gamma) * np.float32(n_time))))
        u = VP.midpoint(t, s)
        if form == "data":
            x_s = paper.tcf2_data(MODEL.x0, expected, t, u, s)
        else:
            x_s = paper.tcf2_epsilon(lambda x, t: MODEL.network(x, t, "epsilon"), expected, t, u, s)
        ratio = n.alpha / s.alpha
        expected = ratio * x_s + np.sqrt(max(0, n.sigma**2 - ratio**2 * s.sigma**2)) * drawn[i]
    assert relative(ours(VP, times, gamma, x, noise, order="2", form=form), expected) < 1e-10
