"""Inference times against diffusers' `TCDScheduler.set_timesteps`, including where it raises."""

import math
from itertools import product

import pytest
from diffusers import TCDScheduler
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import PROPERTY

from tcd_core import explicit_times, inference_times

STEPS = (1, 2, 3, 4, 5, 7, 8, 10, 15, 16, 20, 25, 30, 49, 50, 51, 100)
STRENGTHS = (1.0, 0.999, 0.8, 0.75, 0.7, 0.5, 0.3, 0.29, 0.1, 0.06, 0.01, 0.001)


def reference_times(steps, strength, original=50, n=1000, **arguments):
    """The reference's times, None where it raises."""
    scheduler = TCDScheduler(num_train_timesteps=n, original_inference_steps=original)
    try:
        scheduler.set_timesteps(steps, strength=strength, **arguments)
    except ValueError:
        return None
    return scheduler.timesteps.tolist()


def our_times(*args, **kwargs):
    try:
        return inference_times(*args, **kwargs)
    except ValueError:
        return None


@pytest.mark.parametrize("original", [4, 10, 25, 30, 40, 50, 100, 600, 1000, 1001])
def test_times_are_the_references_and_raise_where_it_raises(original):
    found = {
        (steps, strength): our_times(steps, strength=strength, original_inference_steps=original)
        for steps, strength in product(STEPS, STRENGTHS)
    }
    assert found == {pair: reference_times(*pair, original) for pair in found}
    assert any(times is None for times in found.values())
    assert original > 1000 or any(times for times in found.values())


@pytest.mark.parametrize("n", [100, 500, 1000, 4000])
def test_other_numbers_of_training_times_are_the_references(n):
    for steps, strength in product(STEPS, STRENGTHS):
        assert our_times(steps, strength=strength, num_train_timesteps=n) == reference_times(steps, strength, n=n)


def test_the_dense_grid_is_the_references_argument():
    """Its argument original_inference_steps, whatever its value, samples all of 0 … N·strength − 1."""
    for steps, strength in product(STEPS, STRENGTHS):
        expected = reference_times(steps, strength, original_inference_steps=1000)
        assert our_times(steps, strength=strength, dense="always") == expected
        coarse = reference_times(steps, strength)
        assert our_times(steps, strength=strength, dense="when needed") == (coarse or expected)


@pytest.mark.parametrize(
    ("steps", "strength", "times"),
    [(4, 1.0, [999, 759, 499, 259]), (4, 0.3, [299, 239, 159, 79]), (1, 1.0, [999]), (1, 0.02, [19])],
)
def test_documented_values(steps, strength, times):
    assert inference_times(steps, strength=strength) == times


@PROPERTY
@given(st.integers(1, 1000), st.floats(0.001, 1), st.integers(1, 1000))
def test_a_dense_grid_when_needed_gives_exactly_the_steps_asked_for(steps, strength, original):
    options = dict(strength=strength, original_inference_steps=original, dense="when needed")
    if steps > max(int(1000 * strength), int(original * strength)):
        with pytest.raises(ValueError, match="do not fit"):
            inference_times(steps, **options)
        return
    times = inference_times(steps, **options)
    assert len(times) == steps
    assert all(isinstance(t, int) and 0 <= t < 1000 for t in times)
    assert all(later < earlier for earlier, later in zip(times, times[1:], strict=False))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(steps=21, strength=0.4),
            "21 steps do not fit the grid's 20 times: use at most 20 steps, or a higher strength",
        ),
        (dict(steps=50, strength=0.99), "at most 49 steps"),
        (dict(steps=1001, dense="always"), "1001 steps do not fit"),
        (dict(steps=0), "from 1 up, got 0"),
        (dict(steps=-3), "from 1 up, got -3"),
        (dict(steps=4, strength=0.0), r"\(0, 1\], got 0"),
        (dict(steps=4, strength=1.5), r"\(0, 1\], got 1.5"),
        (dict(steps=4, strength=math.nan), "got nan"),
        (dict(steps=4, original_inference_steps=0), "1 … 1000, got 0"),
        (dict(steps=4, original_inference_steps=1001), "1 … 1000, got 1001"),
    ],
)
def test_errors_say_what_would_do(arguments, message):
    with pytest.raises(ValueError, match=message):
        inference_times(**arguments)


# -- explicit times ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("times", [[999, 759, 499, 259], [999, 5, 0], [640], [901, 900, 899, 3, 1]])
@pytest.mark.parametrize("strength", [1.0, 0.9, 0.75, 0.5, 0.3])
def test_explicit_times_are_the_references(times, strength):
    scheduler = TCDScheduler()
    scheduler.set_timesteps(timesteps=times, strength=strength)
    expected = scheduler.timesteps.tolist()
    if expected:
        assert explicit_times(times, strength=strength) == expected
    else:  # the reference returns an empty run
        with pytest.raises(ValueError, match=f"leaves none of the {len(times)} times"):
            explicit_times(times, strength=strength)


@pytest.mark.parametrize("times", [[999, 999, 0], [259, 499], [1000, 500]])
def test_explicit_times_raise_where_the_reference_raises(times):
    with pytest.raises(ValueError):
        TCDScheduler().set_timesteps(timesteps=times)
    with pytest.raises(ValueError):
        explicit_times(times)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([], "no times given"),
        ([999, 500.5], "whole numbers, got 999, 500.5"),
        ([500, 999], "descending order, got 500, 999"),
        ([1000, 1], r"0 … 999, got 1000"),
        ([10, -1], "0 … 999, got 10, -1"),
    ],
)
def test_explicit_times_errors_show_the_times(times, message):
    with pytest.raises(ValueError, match=message):
        explicit_times(times)


def test_whole_floats_become_integers():
    times = explicit_times([999.0, 20.0])
    assert times == [999, 20]
    assert all(isinstance(t, int) for t in times)


def test_explicit_times_know_other_training_lengths_and_bad_strengths():
    assert explicit_times([1999, 0], num_train_timesteps=2000) == [1999, 0]
    with pytest.raises(ValueError, match=r"\(0, 1\], got 0"):
        explicit_times([999], strength=0)
