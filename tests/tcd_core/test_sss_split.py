"""A run split in two, at any step, is the whole run: to the bit."""

import pytest
import torch
from exact_models import Mixture, latents
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, TIMES, VE, VP, ZERO_SNR, gamma_schedules, gammas, runs

from tcd_core import GammaSchedule, KeyedNoise, plan, sample

MODEL = Mixture()
ORDERS = ("1", "2", "2M")
GAMMAS = {
    "zero": 0.0,
    "number": 0.3,
    "one": 1.0,
    "constant": GammaSchedule("constant", 0.5),
    "linear": GammaSchedule("linear", 0.1, 0.9),
    "cosine": GammaSchedule("cosine", 0.9, 0.2),
    "power": GammaSchedule("power", 0.0, 0.8, exponent=2.5),
    "interpolated list": GammaSchedule("list", values=(0.1, 0.8, 0.4), interpolate=True),
}


def run(schedule, taus, x, gamma, order, lands=True, previous=(None, None)):
    """The final latents, and the level and prediction of the last evaluation at a tau."""
    last = previous

    def remember(i, step, x, x0):
        nonlocal last
        last = step.t, x0

    steps = plan(schedule, taus, gamma, order, lands=lands, previous_level=previous[0])
    return sample(MODEL.x0, x, steps, KeyedNoise(x, 17), remember, previous[1]), last


def split(schedule, taus, x, gamma, order, at, hand_over=True):
    """The first `at` steps, then the rest from where they stopped; 2M is handed the last prediction."""
    middle, last = run(schedule, taus[: at + 1], x, gamma, order, lands=False)
    return run(schedule, taus[at:], middle, gamma, order, previous=last if hand_over else (None, None))[0]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("gamma", GAMMAS.values(), ids=GAMMAS.keys())
@pytest.mark.parametrize(
    ("schedule", "times"),
    [(VP, (*TIMES, 100)), (VE, (*TIMES, 100)), (ZERO_SNR, TIMES), (FLOW, (1.0, 0.8, 0.5, 0.2))],
    ids=["VP", "VE", "zero SNR", "flow"],
)
def test_a_run_split_at_every_step_is_the_whole_run(schedule, times, gamma, order):
    taus = [schedule.level(t) for t in times]
    x = latents(2, 4, 3, 3, dtype=torch.float32)
    whole, _ = run(schedule, taus, x, gamma, order)
    for at in range(len(taus)):
        assert torch.equal(split(schedule, taus, x, gamma, order, at), whole), at


@PROPERTY
@given(runs(), gammas | gamma_schedules, st.sampled_from(ORDERS), st.data())
def test_any_run_split_anywhere_is_the_whole_run(run_, gamma, order, data):
    schedule, taus = run_
    x = latents(1, 6, dtype=torch.float32)
    at = data.draw(st.integers(0, len(taus) - 1))
    assert torch.equal(split(schedule, taus, x, gamma, order, at), run(schedule, taus, x, gamma, order)[0])


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("at", [1, 2, 3])
def test_an_explicit_list_is_split_with_its_run(order, at):
    taus, values = [VP.level(t) for t in TIMES], (0.9, 0.1, 0.5)
    x = latents(2, 5, dtype=torch.float32)
    whole, _ = run(VP, taus, x, GammaSchedule("list", values=values), order)
    first = GammaSchedule("list", values=values[:at])
    middle, last = run(VP, taus[: at + 1], x, first, order, lands=False)
    rest = GammaSchedule("list", values=values[at:]) if at < 3 else 0.0
    assert torch.equal(run(VP, taus[at:], middle, rest, order, previous=last)[0], whole)


@pytest.mark.parametrize("order", ORDERS)
def test_a_run_in_three_parts_is_the_whole_run(order):
    taus = [VP.level(t) for t in (999, 800, 600, 400, 200)]
    x = latents(2, 5, dtype=torch.float32)
    gamma = GAMMAS["linear"]
    one, last = run(VP, taus[:3], x, gamma, order, lands=False)
    two, last = run(VP, taus[2:4], one, gamma, order, lands=False, previous=last)
    three, _ = run(VP, taus[3:], two, gamma, order, previous=last)
    assert torch.equal(three, run(VP, taus, x, gamma, order)[0])


def test_multistep_without_the_handed_over_prediction_is_another_run():
    """So `previous` acts, and the tests above would fail without it."""
    taus, x = [VP.level(t) for t in TIMES], latents(2, 50)
    whole, _ = run(VP, taus, x, 0.3, "2M")
    apart = split(VP, taus, x, 0.3, "2M", 2, hand_over=False)
    assert (apart - whole).norm() / whole.norm() > 1e-3


def test_half_precision_rounds_once_more_at_the_split():
    """Latents are handed over in their own dtype: a split in float16 is the whole run to its rounding."""
    taus, x = [VP.level(t) for t in TIMES], latents(2, 50, dtype=torch.float16)
    whole, _ = run(VP, taus, x, 0.3, "1")
    for at in (1, 2, 3):
        apart = split(VP, taus, x, 0.3, "1", at)
        assert (apart - whole).float().norm() / whole.float().norm() < 4 * 2**-10


def test_the_whole_run_depends_on_the_seed_and_is_repeatable():
    taus, x = [VP.level(t) for t in TIMES], latents(2, 50)
    steps = plan(VP, taus, 0.3)
    first, again, other = (sample(MODEL.x0, x, steps, KeyedNoise(x, seed)) for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert (first - other).norm() / first.norm() > 1e-2


def test_a_continued_2m_plan_asks_for_the_previous_prediction():
    steps = plan(VP, [VP.level(t) for t in (759, 499)], 0.3, "2M", previous_level=VP.level(999))
    with pytest.raises(ValueError, match="previous"):
        sample(MODEL.x0, torch.zeros(1, 4), steps, None)
