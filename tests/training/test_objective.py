"""Algorithms 1 and 2 against a second, straight-line writing of them, and against diffusers' solvers."""

import diffusers
import numpy as np
import pytest
import torch
from training_support import straight_line
from training_support.tiny import evaluations, tiny_task, tuned_copy

from tcd_core import VPSchedule, from_x0
from training.jumps import stack

ZERO_SNR = VPSchedule.scaled_linear().zero_terminal_snr()


def caller(network, time_scale=1.0, embedding=None):
    """A plain UNet, and perhaps an embedding of s, as (x, t, s, tokens) -> output, in float32."""

    def call(x, t, s, tokens):
        added = []
        if embedding is not None:
            frequencies = 10_000.0 ** (-torch.arange(16) / 16)
            angles = s * frequencies
            first, second = embedding
            hidden = torch.nn.functional.silu(first[0] @ torch.cat([angles.cos(), angles.sin()]) + first[1])
            added.append(second[0] @ hidden + second[1])
        hook = network.time_embedding.register_forward_hook(lambda m, a, emb: emb + sum(added))
        with torch.no_grad():
            output = network(x.float(), t * time_scale, encoder_hidden_states=tokens).sample.double()
        hook.remove()
        return output

    return call


def embedding_of(weights):
    if not any(name.startswith("target_embedding.") for name in weights):
        return None
    return [[weights[f"target_embedding.linear_{i}.{part}"] for part in ("weight", "bias")] for i in (1, 2)]


def expected_losses(task, base, batch, schedule):
    scale = task.family.time_scale
    student = task.trainable()
    target = task.target_ema.weights if task.target_ema else student
    return straight_line.losses(
        task.recipe,
        task.family.prediction,
        schedule,
        caller(base, scale),
        *(caller(tuned_copy(base, w), scale, embedding_of(w)) for w in (student, target)),
        batch,
    )


CASES = {
    "the default": ({}, {}),
    "unguided": ({}, {"guided": False}),
    "unweighted, Huber": ({}, {"weight": "none", "distance": "pseudo_huber"}),
    "EMA target": ({}, {"target": "ema", "target_ema": 0.5}),
    "DPM-Solver": ({}, {"solver": "dpm2"}),
    "k = 20": ({}, {"skip": 20, "solver": "dpm2"}),
    "TCF(2)": ({}, {"form": "tcf2", "solver": "dpm2", "target": "ema"}),
    "TCF(2) in data": ({}, {"form": "tcf2", "tcf2_form": "data", "weight": "none"}),
    "TCF(S+)": ({}, {"form": "tcf_s_plus"}),
    "TCF(S+), EMA target": ({}, {"form": "tcf_s_plus", "target": "ema", "distance": "pseudo_huber"}),
    "v": ({"prediction": "v_prediction"}, {"target": "ema"}),
    "v, zero SNR": ({"prediction": "v_prediction", "schedule": ZERO_SNR}, {"form": "tcf2", "solver": "dpm2"}),
    "x": ({"prediction": "sample"}, {"solver": "dpm2"}),
    "flow": ({"prediction": "flow"}, {"target": "ema"}),
    "flow, DPM-Solver, TCF(2)": ({"prediction": "flow"}, {"form": "tcf2", "solver": "dpm2"}),
    "flow, TCF(2) in data": ({"prediction": "flow"}, {"form": "tcf2", "tcf2_form": "data"}),
    "flow, TCF(S+)": ({"prediction": "flow"}, {"form": "tcf_s_plus", "guided": False}),
}


@pytest.mark.parametrize(("family", "objective"), CASES.values(), ids=CASES)
def test_the_loss_is_the_straight_line_algorithms(family, objective):
    ends = {"draw": "integers", "draws": 1, "lower_share": 0.2}
    if objective.get("form", "tcf1") == "tcf1":
        ends["draws"] = 2
    task, base = tiny_task(**family, objective=objective, end_times=ends)
    batch = task.draw(1)
    schedule = "flow" if task.family.prediction == "flow" else "zero_snr" if "schedule" in family else "vp"
    losses = task(batch).detach()
    expected = expected_losses(task, base, batch, schedule).float()
    assert losses.shape == (8,) and (expected > 1e-4).sum() >= 6
    torch.testing.assert_close(losses, expected, rtol=2e-3, atol=1e-6)


def test_full_fine_tuning_has_the_same_objective():
    task, base = tiny_task(student={"kind": "full"}, scale=0.02)
    batch = task.draw(1)
    torch.testing.assert_close(
        task(batch).detach(), expected_losses(task, base, batch, "vp").float(), rtol=2e-3, atol=1e-6
    )


# ---- the teacher's step ----


def teacher_step(task, batch):
    """(x_t, the teacher's raw outputs, x̂_{t_n}), read off what the network was asked."""
    _, calls = evaluations(task, batch)
    return calls[0][0], [call[2] for call in calls[:-2]], calls[-2][0]


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_ddim_is_diffusers(prediction):
    task, _ = tiny_task(prediction, objective={"guided": False}, training={"batch": 40})
    batch = task.draw(0)
    x_t, (output,), x_tn = teacher_step(task, batch)
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=prediction,
        timestep_spacing="trailing",
    )
    scheduler.set_timesteps(20)
    assert set(batch.teacher.t.t.flatten().tolist()) <= set(scheduler.timesteps.tolist())
    for i, t in enumerate(batch.teacher.t.t.flatten().long()):
        expected = scheduler.step(output[i], t, x_t[i]).prev_sample
        torch.testing.assert_close(x_tn[i], expected, rtol=1e-4, atol=2e-5)


def test_the_second_order_solver_is_diffusers_dpm_solver():
    task, _ = tiny_task(objective={"guided": False, "solver": "dpm2"}, training={"batch": 40})
    batch = task.draw(0)
    x_t, (first, second), x_tn = teacher_step(task, batch)
    scheduler = diffusers.DPMSolverSinglestepScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        solver_order=2,
        algorithm_type="dpmsolver",
        final_sigmas_type="sigma_min",
    )
    alpha_bar, compared = scheduler.alphas_cumprod.double(), 0
    for i in range(40):
        t, u, t_n = (int(level.t[i]) for level in (batch.teacher.t, batch.teacher.u, batch.teacher.s))
        if u != t:
            times = torch.tensor([t, u, t_n])
            scheduler.set_timesteps(2)
            scheduler.timesteps, scheduler.order_list = times[:2], [1, 2]
            scheduler.sigmas = ((1 - alpha_bar[times]) / alpha_bar[times]).sqrt()
            x_u = scheduler.step(first[i], t, x_t[i]).prev_sample
            expected = scheduler.step(second[i], u, x_u).prev_sample
            torch.testing.assert_close(x_tn[i], expected, rtol=1e-4, atol=2e-5)
            compared += 1
    assert compared > 30


def test_a_rectified_flows_step_is_eulers():
    task, _ = tiny_task("flow", objective={"guided": False})
    batch = task.draw(0)
    x_t, (velocity,), x_tn = teacher_step(task, batch)
    torch.testing.assert_close(x_tn, x_t - 0.05 * velocity, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("prediction", "schedule"),
    [("epsilon", None), ("v_prediction", None), ("v_prediction", ZERO_SNR), ("sample", None), ("flow", None)],
)
def test_guiding_the_noise_is_guiding_the_data_prediction(prediction, schedule):
    task, _ = tiny_task(prediction, schedule, objective={"w_min": 2.0, "w_max": 9.0})
    batch = task.draw(0)
    x_t, (output,), x_tn = teacher_step(task, batch)
    assert torch.equal(x_t[:8], x_t[8:])  # both conditions in one evaluation
    guided = (1 + batch.w) * output[:8] - batch.w * output[8:]
    x = x_t[:8]
    for i in range(8):
        t, t_n = (task.family.schedule.level(level.t[i].item()) for level in (batch.teacher.t, batch.teacher.s))
        x0, eps = straight_line.both(guided[i].double(), x[i].double(), t, prediction)
        expected = (t_n.alpha * x0 + t_n.sigma * eps).float()
        torch.testing.assert_close(x_tn[i], expected, rtol=1e-3, atol=2e-3 if prediction == "epsilon" else 1e-4)


def test_the_guided_teacher_is_told_each_samples_condition_and_none():
    task, base = tiny_task()
    batch = task.draw(0)
    x_t, (output,), _ = teacher_step(task, batch)
    times = batch.teacher.t.t.flatten()
    for part, condition in ((output[:8], batch.condition), (output[8:], batch.unconditional)):
        with torch.no_grad():
            expected = base(x_t[:8], times, **condition).sample
        torch.testing.assert_close(part, expected, rtol=1e-4, atol=1e-5)


# ---- TCF(2) ----


def test_tcf2_evaluates_twice_at_a_time_of_the_table_nearest_the_middle_in_lambda():
    task, _ = tiny_task(objective={"form": "tcf2"}, training={"batch": 40})
    batch = task.draw(0)
    _, calls = evaluations(task, batch)
    assert len(calls) == 1 + 2 + 2  # teacher; target and student at both ends of their half jumps
    alpha_bar = straight_line.ALPHA_BAR["vp"].numpy()
    lam = np.log(np.sqrt(alpha_bar / (1 - alpha_bar)))
    (pair,) = batch.jumps
    for jump, asked in ((pair[0], calls[4][1]), (pair[1], calls[2][1])):
        assert torch.equal(asked, jump.u.t.flatten())
        for t, s, u, weight in zip(
            *(v.flatten().tolist() for v in (jump.t.t, jump.s.t, jump.u.t, jump.weight)), strict=True
        ):
            if t - s < 2:
                assert u == t and weight == 0
                continue
            assert u == int(u) and s < u < t
            inside = np.arange(int(s) + 1, int(t))
            misses = np.abs(lam[inside] - (lam[int(t)] + lam[int(s)]) / 2)
            step = np.abs(np.diff(lam))[max(int(u) - 1, 0) : int(u) + 1].max()
            assert abs(lam[int(u)] - (lam[int(t)] + lam[int(s)]) / 2) <= misses.min() + step / 2


def test_tcf2_without_a_middle_is_tcf1():
    for prediction in ("epsilon", "flow"):
        first, _ = tiny_task(prediction, end_times={"lower_share": 1.0}, training={"batch": 40})
        second, _ = tiny_task(
            prediction, objective={"form": "tcf2"}, end_times={"lower_share": 1.0}, training={"batch": 40}
        )
        batch = second.draw(0)
        none = (batch.jumps[0][0].weight == 0).flatten()
        assert none.all() if prediction == "flow" else not none.any()  # lambda is infinite at a flow's s = 0
        if prediction == "flow":
            torch.testing.assert_close(second(batch), first(first.draw(0)), rtol=1e-4, atol=1e-6)


def test_all_forms_are_the_same_loss_where_the_student_is_the_teacher_and_s_is_t_n():
    """At s = t_n the target is x̂_{t_n} itself: unguided, a student that is the teacher has no loss under DDIM."""
    for form in ("tcf1", "tcf_s_plus"):
        task, _ = tiny_task(scale=0.0, objective={"form": form, "guided": False})
        batch = task.draw(0)
        at_t_n = batch._replace(
            jumps=tuple((a._replace(s=batch.teacher.s), b._replace(s=batch.teacher.s)) for a, b in batch.jumps)
        )
        assert task(at_t_n).max() < 1e-9


# ---- the loss at its best ----


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample", "flow"])
def test_a_network_that_knows_the_only_picture_has_no_loss(prediction):
    """Data of one point: its trajectories are straight in (x̂, ε̂), every jump is exact, and so are all targets."""
    task, _ = tiny_task(prediction, objective={"weight": "none"}, end_times={"draws": 3})
    schedule = task.family.schedule

    def exact(x, times):
        levels = stack([schedule.level(t) for t in times.tolist()])
        output = from_x0(torch.full_like(x, 0.3), x, levels, prediction)
        return torch.where(levels.sigma == 0, -0.3, output)  # a flow at t = 0: there any output serves

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task.student, "teacher", lambda x, times, c: exact(x, times))
        patch.setattr(task.student, "target", lambda w, x, times, s, c: exact(x, times))
        patch.setattr(task.student, "forward", lambda x, times, s, c: exact(x, times))
        batch = task.draw(0)
        losses = task(batch._replace(x0=torch.full_like(batch.x0, 0.3)))
    assert losses.max() < 1e-9
