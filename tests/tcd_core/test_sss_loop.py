"""The loop: what it calls and how often, dtypes and shapes, split runs, and that every setting acts."""

import math
from itertools import combinations

import pytest
import torch
from exact_models import Mixture, latents
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, TIMES, VE, VP, ZERO_SNR, distilled, gamma_schedules, gammas, runs, shapes

from tcd_core import GammaSchedule, KeyedNoise, plan, sample

MODEL = Mixture()
ORDERS = ("1", "2", "2M")
orders = st.sampled_from(ORDERS)
EPSILON = {torch.float16: 2**-10, torch.bfloat16: 2**-7, torch.float32: 2**-23, torch.float64: 2**-52}


def levels(schedule=VP, times=TIMES):
    return [schedule.level(t) for t in times]


def start(taus, *shape, dtype=torch.float64, seed=0):
    """Latents of about the first level's size."""
    return (math.hypot(taus[0].alpha, taus[0].sigma) * latents(*shape, seed=seed)).to(dtype)


class Recorder:
    """Model, noise and callback of one run; keeps what each was given, as it was then and as the tensor itself."""

    def __init__(self, noise):
        self.noise, self.evaluated, self.drawn, self.reported, self.tensors = noise, [], [], [], []

    def model(self, x, t, s):
        x0 = MODEL.x0(x, t)
        self.evaluated.append((t, s))
        self.keep(x, x0)
        return x0

    def draw(self, n):
        self.drawn.append(n)
        z = self.noise(n)
        self.keep(z)
        return z

    def callback(self, i, step, x, x0):
        self.reported.append((i, step, x, x0))
        self.keep(x, x0)

    def keep(self, *tensors):
        self.tensors += [(tensor, tensor.clone()) for tensor in tensors]

    def run(self, x, steps):
        self.keep(x)
        return sample(self.model, x, steps, self.draw, self.callback)


# -- what the loop calls -------------------------------------------------------------------------------------------


@PROPERTY
@given(runs(), gammas, orders)
def test_the_model_is_evaluated_at_t_and_for_order_two_at_u(run, gamma, order):
    schedule, taus = run
    steps, x = plan(schedule, taus, gamma, order), start(taus, 1, 3)
    recorder = Recorder(KeyedNoise(x, 0))
    recorder.run(x, steps)
    expected = [[(step.t, step.s)] + [(step.u, step.s)] * (step.u is not None) for step in steps]
    assert recorder.evaluated == sum(expected, [])
    assert len(recorder.evaluated) == len(steps) or order == "2"
    assert len(recorder.evaluated) <= 2 * len(steps)


@PROPERTY
@given(runs(), gammas, orders)
def test_noise_is_drawn_for_the_steps_that_add_some_and_no_other(run, gamma, order):
    schedule, taus = run
    steps, x = plan(schedule, taus, gamma, order), start(taus, 1, 3)
    recorder = Recorder(KeyedNoise(x, 0))
    recorder.run(x, steps)
    assert recorder.drawn == [step.n for step in steps if step.b > 0]
    if gamma == 0:
        assert recorder.drawn == []


@pytest.mark.parametrize("order", ORDERS)
def test_the_callback_gets_the_step_its_latents_and_the_clean_prediction(order):
    steps, x = plan(VP, levels(), 0.3, order), latents(2, 4, 3, 3)
    recorder = Recorder(KeyedNoise(x, 0))
    recorder.run(x, steps)
    assert [(i, step) for i, step, _, _ in recorder.reported] == list(enumerate(steps))
    for i, (_, step, at, x0) in enumerate(recorder.reported):
        assert torch.equal(x0, MODEL.x0(at, step.t))  # at t: not the midpoint's, not the corrected one
        before = sample(MODEL.x0, x, steps[:i], KeyedNoise(x, 0)) if order != "2M" else at
        assert torch.equal(at, before)


@PROPERTY
@given(runs(), gammas, orders, shapes)
def test_no_tensor_is_written_to(run, gamma, order, shape):
    schedule, taus = run
    x = start(taus, *shape, dtype=torch.float32)
    recorder = Recorder(KeyedNoise(x, 0))
    recorder.run(x, plan(schedule, taus, gamma, order))
    assert len(recorder.tensors) >= 4 * len(taus)
    assert all(torch.equal(tensor, kept) for tensor, kept in recorder.tensors)


def test_the_loop_records_no_gradient():
    x = latents(1, 3).requires_grad_()
    assert not sample(MODEL.x0, x, plan(VP, levels(), 0.3), KeyedNoise(x, 0)).requires_grad


def test_an_error_in_the_callback_ends_the_run_within_the_step():
    """How a host interrupts."""
    evaluations = []

    def interrupt(i, *_):
        if i == 1:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        x = latents(1, 3)
        model = lambda x, t, s: evaluations.append(t) or MODEL.x0(x, t)  # noqa: E731
        sample(model, x, plan(VP, levels(), 0.3, "2"), KeyedNoise(x, 0), interrupt)
    assert len(evaluations) == 3  # two in the first step, one in the second


# -- shapes and dtypes ---------------------------------------------------------------------------------------------


@PROPERTY
@given(runs(), gammas, orders, shapes, st.sampled_from(list(EPSILON)))
def test_any_shape_and_dtype_comes_back_finite(run, gamma, order, shape, dtype):
    schedule, taus = run
    x = start(taus, *shape, dtype=dtype)
    found = sample(MODEL.x0, x, plan(schedule, taus, gamma, order), KeyedNoise(x, 0))
    assert (found.shape, found.dtype) == (x.shape, dtype)
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("order", ORDERS)
def test_video_latents_are_their_frames(order):
    """Rank 5 (B, C, T, H, W); the mixture works on each coordinate alone, so a reshaped run is the same run."""
    x, taus = latents(1, 4, 3, 2, 2), levels(FLOW, (1.0, 0.7, 0.4))
    z = KeyedNoise(x.view(1, 48), 5)
    found = sample(MODEL.x0, x, plan(FLOW, taus, 0.3, order), lambda n: z(n).view(x.shape))
    flat = sample(MODEL.x0, x.view(1, 48), plan(FLOW, taus, 0.3, order), z)
    torch.testing.assert_close(found.view(1, 48), flat, rtol=0, atol=1e-13)
    assert torch.equal(KeyedNoise(x, 5)(taus[1]).view(1, 48), z(taus[1]))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("order", ORDERS)
def test_half_precision_is_carried_in_float32(dtype, order):
    """With a model that does not look at x, fifty steps in half precision round once: at the end."""
    taus = levels(VP, range(999, 0, -20))
    x, noise = latents(1, 200, dtype=dtype), KeyedNoise(latents(1, 200, dtype=dtype), 0)

    def model(x, t, s):
        return torch.full_like(x, 0.5 if t.t > 500 else -0.25)

    steps = plan(VP, taus, 0.3, order)
    found = sample(model, x, steps, noise)
    assert torch.equal(found, sample(model, x.float(), steps, lambda n: noise(n).float()).to(dtype))


@PROPERTY
@given(runs(most=4), gammas, st.sampled_from([torch.float16, torch.bfloat16]))
def test_half_precision_agrees_with_float32_to_its_rounding(run, gamma, dtype):
    schedule, taus = run
    x = start(taus, 1, 50, dtype=dtype)
    noise, steps = KeyedNoise(x, 0), plan(schedule, taus, gamma)
    found = sample(MODEL.x0, x, steps, noise)
    expected = sample(lambda x, t, s: MODEL.x0(x.to(dtype), t).float(), x.float(), steps, lambda n: noise(n).float())
    assert torch.equal(found, expected.to(dtype))  # only the network works in half precision
    everything = sample(MODEL.x0, x.float(), steps, lambda n: noise(n).float())
    error = (found.float() - everything).norm() / everything.norm()
    assert error < 30 * EPSILON[dtype]  # a network rounded at each of four steps, its slope up to 5


def test_the_model_sees_the_latents_own_dtype_and_the_callback_float32():
    x, seen = latents(1, 5, dtype=torch.float16), []

    def model(x, t, s):
        seen.append(x.dtype)
        return MODEL.x0(x, t)

    reported = []
    sample(model, x, plan(VP, levels(), 0.3, "2"), KeyedNoise(x, 0), lambda i, step, x, x0: reported.append((x, x0)))
    assert set(seen) == {torch.float16}
    assert {tensor.dtype for pair in reported for tensor in pair} == {torch.float32}


# -- batches, and every setting ------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ORDERS)
def test_an_item_of_a_batch_is_the_same_alone(order):
    x, steps = latents(3, 4, 5, 5), plan(VP, levels(), 0.5, order)
    batch = sample(MODEL.x0, x, steps, KeyedNoise(x, 9))
    for i in range(3):
        alone = sample(MODEL.x0, x[i : i + 1], steps, KeyedNoise(x[i : i + 1], 9, [i]))
        torch.testing.assert_close(batch[i : i + 1], alone, rtol=0, atol=1e-12)  # exp() may differ by vector length


def settings():
    """A name and a run for each setting, all of them on the same VP latents."""
    x = latents(1, 64)

    def run(schedule=VP, times=TIMES, gamma=0.3, order="1", seed=0, **options):
        return sample(
            MODEL.x0, x, plan(schedule, levels(schedule, times), gamma, order, **options), KeyedNoise(x, seed)
        )

    return {
        "plain": run(),
        "gamma 0": run(gamma=0.0),
        "gamma 0.2": run(gamma=0.2),
        "gamma 1": run(gamma=1.0),
        "linear": run(gamma=GammaSchedule("linear", 0.3, 0.6)),
        "linear end": run(gamma=GammaSchedule("linear", 0.3, 0.9)),
        "cosine": run(gamma=GammaSchedule("cosine", 0.3, 0.9)),
        "power": run(gamma=GammaSchedule("power", 0.3, 0.9, exponent=3)),
        "list": run(gamma=GammaSchedule("list", values=(0.1, 0.5, 0.3))),
        "list, other order": run(gamma=GammaSchedule("list", values=(0.5, 0.1, 0.3))),
        "interpolated list": run(gamma=GammaSchedule("list", values=(0.1, 0.5, 0.3), interpolate=True)),
        "order 2": run(order="2"),
        "order 2, noise form": run(order="2", form="epsilon"),
        "order 2M": run(order="2M"),
        "fewer times": run(times=(999, 499)),
        "other times": run(times=(999, 700, 499, 259)),
        "lower start": run(times=(759, 499, 259)),
        "stops early": run(lands=False),
        "zero terminal SNR": run(schedule=ZERO_SNR),
        "flow": run(schedule=FLOW, times=(0.999, 0.759, 0.499, 0.259)),
        "seed": run(seed=1),
        "seed, high bits": run(seed=2**40),
    }


def test_every_setting_acts():
    results = settings()
    for (one, a), (other, b) in combinations(results.items(), 2):
        assert (a - b).norm() / a.norm() > 1e-3, (one, other)


def test_gamma_acts_on_every_schedule_and_order():
    for schedule, times in (
        (VP, TIMES),
        (VE, TIMES),
        (distilled(), TIMES),
        (FLOW, (1.0, 0.75, 0.5)),
        (ZERO_SNR, TIMES),
    ):
        taus = levels(schedule, times)
        x = start(taus, 1, 64)
        for order in ORDERS:
            found = [sample(MODEL.x0, x, plan(schedule, taus, g, order), KeyedNoise(x, 0)) for g in (0, 0.3, 0.5, 1)]
            assert all((a - b).norm() / a.norm() > 1e-2 for a, b in combinations(found, 2))


@PROPERTY
@given(gamma_schedules)
def test_an_empty_run_changes_nothing(gamma):
    x = latents(1, 3)
    assert plan(VP, [VP.level(500)], gamma, lands=False) == []
    assert torch.equal(sample(MODEL.x0, x, [], None), x)
