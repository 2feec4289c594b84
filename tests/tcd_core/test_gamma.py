"""Gamma schedules: their shapes, value objects, lists' lengths, and progress measured in time."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from run_strategies import FLOW, PROPERTY, TIMES, VP, gamma_schedules, gammas

from tcd_core import GammaSchedule, gamma_per_step, inference_times, plan


def levels(times=TIMES):
    return [VP.level(t) for t in times]


# -- shapes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "at_quarters"),
    [
        (GammaSchedule("constant", 0.3, 0.9), [0.3] * 5),
        (GammaSchedule("linear", 0.2, 0.6), [0.2, 0.3, 0.4, 0.5, 0.6]),
        (GammaSchedule("linear", 1.0, 0.0), [1, 0.75, 0.5, 0.25, 0]),
        (GammaSchedule("cosine", 0.0, 1.0), [0, (1 - math.sqrt(0.5)) / 2, 0.5, (1 + math.sqrt(0.5)) / 2, 1]),
        (GammaSchedule("power", 0.0, 0.8, exponent=2), [0, 0.05, 0.2, 0.45, 0.8]),
        (
            GammaSchedule("power", 0.9, 0.1, exponent=0.5),
            [0.9, 0.5, 0.9 - 0.8 * math.sqrt(0.5), 0.9 - 0.4 * 3**0.5, 0.1],
        ),
        (GammaSchedule("list", values=(0.1, 0.5, 0.2), interpolate=True), [0.1, 0.3, 0.5, 0.35, 0.2]),
        (GammaSchedule("list", values=(0.4,), interpolate=True), [0.4] * 5),
    ],
)
def test_shapes_have_their_formulas_values(schedule, at_quarters):
    assert [schedule.at(p) for p in (0, 0.25, 0.5, 0.75, 1)] == pytest.approx(at_quarters, abs=1e-15)


@PROPERTY
@given(gamma_schedules, st.floats(-1, 2))
def test_gamma_stays_in_zero_to_one_and_progress_is_clamped(schedule, progress):
    assert 0 <= schedule.at(progress) <= 1  # to the bit: 1 − gamma must not be negative
    assert schedule.at(progress) == schedule.at(min(max(progress, 0), 1))


def test_a_list_knows_steps_and_not_times():
    with pytest.raises(ValueError, match="one gamma per step"):
        GammaSchedule("list", values=(0.1, 0.2)).at(0.5)


# -- progress is measured in time -----------------------------------------------------------------------------------


def test_gamma_is_that_of_the_time_a_step_starts_from():
    steps = plan(VP, levels(), GammaSchedule("linear", 0.1, 0.9))
    assert [step.gamma for step in steps] == pytest.approx([0.1 + 0.8 * (1 - t / 999) for t in TIMES], abs=1e-14)
    steps = plan(FLOW, [FLOW.level(t) for t in (1.0, 0.6, 0.1)], GammaSchedule("linear", 0.1, 0.9))
    assert [step.gamma for step in steps] == pytest.approx([0.1, 0.42, 0.82], abs=1e-14)


@PROPERTY
@given(gamma_schedules)
def test_gamma_at_a_time_does_not_depend_on_where_the_run_starts_or_on_its_steps(schedule):
    many = {step.t.t: step.gamma for step in plan(VP, levels(inference_times(50)), schedule)}
    for few in (levels(), levels((499, 259)), levels(inference_times(4, strength=0.3))):
        for step in plan(VP, few, schedule):
            assert step.gamma == many[step.t.t]


# -- explicit lists ------------------------------------------------------------------------------------------------


def test_a_list_has_one_value_less_than_the_run_has_steps():
    steps = plan(VP, levels(), GammaSchedule("list", values=(0.5, 0.3, 0.1)))
    assert [step.gamma for step in steps[:3]] == [0.5, 0.3, 0.1]
    assert steps[3].b == 0


def test_a_run_that_stops_early_uses_every_value():
    steps = plan(VP, levels(), GammaSchedule("list", values=(0.5, 0.3, 0.1)), lands=False)
    assert [step.gamma for step in steps] == [0.5, 0.3, 0.1]


@pytest.mark.parametrize("count", [1, 2, 4, 7])
def test_a_list_of_another_length_names_both_lengths(count):
    with pytest.raises(ValueError, match=f"has {count} values?, this run of 4 steps needs 3.*last step adds no noise"):
        plan(VP, levels(), GammaSchedule("list", values=(0.1,) * count))


def test_a_list_of_another_length_in_a_run_that_stops_early_names_both_lengths():
    with pytest.raises(ValueError, match="has 2 values, this run of 3 steps needs 3.*stops before the end"):
        plan(VP, levels(), GammaSchedule("list", values=(0.1, 0.2)), lands=False)


def test_an_interpolated_list_fits_any_run():
    steps = plan(VP, levels(), GammaSchedule("list", values=(0.0, 1.0), interpolate=True))
    assert [step.gamma for step in steps] == pytest.approx([1 - t / 999 for t in TIMES], abs=1e-14)


def test_ready_numbers_are_one_for_each_step():
    assert gamma_per_step([0.1, 0.2, 0.3], [0, 0.3, 0.6]) == [0.1, 0.2, 0.3]
    assert gamma_per_step(0.25, [0, 0.3]) == [0.25, 0.25]
    assert gamma_per_step(1, [0, 0.3]) == [1, 1]
    with pytest.raises(ValueError, match="got 2 gammas for 4 steps"):
        plan(VP, levels(), [0.1, 0.2])


# -- a value object ------------------------------------------------------------------------------------------------


@PROPERTY
@given(gamma_schedules)
def test_json_round_trip(schedule):
    text = schedule.to_json()
    back = GammaSchedule.from_json(text)
    assert back == schedule
    assert hash(back) == hash(schedule)
    assert json.loads(text)["shape"] == schedule.shape
    assert [back.at(p) for p in (0, 0.3, 1)] == [schedule.at(p) for p in (0, 0.3, 1)]


def test_equal_settings_are_equal_and_hash_alike():
    one, same = GammaSchedule("list", values=[0.5, 1]), GammaSchedule("list", values=(0.5, 1.0))
    assert one == same and hash(one) == hash(same)
    others = {
        one,
        GammaSchedule("list", values=(0.5, 0.9)),
        GammaSchedule("list", values=(0.5, 1.0), interpolate=True),
        GammaSchedule("linear", 0.3, 0.4),
        GammaSchedule("cosine", 0.3, 0.4),
        GammaSchedule("power", 0.3, 0.4),
        GammaSchedule("power", 0.3, 0.4, 2.0),
        GammaSchedule("linear", 0.2, 0.4),
        GammaSchedule(),
    }
    assert len(others) == 9


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        GammaSchedule().start = 0.5


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(shape="sine"), "constant, linear, cosine, power, list, got 'sine'"),
        (dict(start=1.3), r"gamma must lie in \[0, 1\], got 1.3"),
        (dict(end=-0.1), r"\[0, 1\], got -0.1"),
        (dict(start=math.nan), r"\[0, 1\], got nan"),
        (dict(shape="list", values=(0.5, 2.0)), r"\[0, 1\], got 2.0"),
        (dict(shape="power", exponent=0.0), "exponent must be positive, got 0.0"),
        (dict(shape="power", exponent=math.inf), "exponent must be positive, got inf"),
        (dict(shape="list", interpolate=True), "needs values"),
        (dict(interpolate="yes"), "true or false"),
    ],
)
def test_errors_give_the_number(fields, message):
    with pytest.raises(ValueError, match=message):
        GammaSchedule(**fields)


@pytest.mark.parametrize(
    "text", ["", "{", "3", "[]", "null", '{"shape": "linear", "slope": 1}', '{"values": null}', '{"start": "a"}']
)
def test_other_text_is_no_schedule(text):
    with pytest.raises(ValueError, match="not a gamma schedule"):
        GammaSchedule.from_json(text)


@PROPERTY
@given(gammas.filter(lambda gamma: gamma > 0), st.sampled_from([-1, 1]))
def test_a_plan_refuses_gamma_outside_zero_to_one(gamma, side):
    outside = -gamma if side < 0 else 1 + max(gamma, 1e-9)
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\]"):
        plan(VP, levels(), outside)
    with pytest.raises(ValueError, match=r"gamma must lie in \[0, 1\]"):
        plan(VP, levels(), [0.3, 0.3, 0.3, outside])


def test_a_run_of_one_step_takes_an_empty_list():
    (step,) = plan(VP, [VP.level(999)], GammaSchedule("list", values=()))
    assert step.b == 0
    with pytest.raises(ValueError, match="has 1 value, this run of 1 step needs 0"):
        plan(VP, [VP.level(999)], GammaSchedule("list", values=(0.3,)))
