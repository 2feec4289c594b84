"""Kept teacher pairs: the batches of the first N steps again and again, the teacher asked once for each."""

import pytest
import torch
from training_support.tiny import (
    TinyFamily,
    differing,
    fresh_accelerator,
    loop_settings,
    randomise,
    states_of,
    tiny_recipe,
)

from training.loop import Interrupted, train
from training.objective import TrajectoryDistillation
from training.recipe import RecipeError
from training.stopping import Stop
from training.teacher_pairs import KeptPairs, distillation, kept_bytes

STEPS, PAIRS = 7, 3
ONE_W = {"w_min": 0.8, "w_max": 0.8}


class Cycled(TrajectoryDistillation):
    """The same batches, the teacher asked each time."""

    def draw(self, step, part=slice(None)):
        return super().draw(step % PAIRS, part)


def recipe_of(**sections):
    objective = ONE_W | {"pairs": PAIRS} | sections.pop("objective", {})
    return tiny_recipe(objective=objective, training={"steps": STEPS}, **sections)


def task_of(kind=KeptPairs, **sections):
    task = kind(TinyFamily(), recipe_of(**sections))
    randomise(task.trainable())
    return task


def trained(task, folder, stop=None, **settings):
    """(losses, what was trained) of a run."""
    settings = loop_settings(task.recipe, **settings)
    return train(task, settings, fresh_accelerator(), folder, "tcd", stop).loss, states_of(task)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"objective": {"solver": "dpm2", "form": "tcf2"}},
        {"objective": {"guided": False, "w_max": 2.0, "target": "ema"}},
        {"end_times": {"draw": "exact"}, "student": {"kind": "full"}},
    ],
)
def test_a_run_is_that_of_the_same_batches_with_the_teacher_asked_each_time(tmp_path, sections):
    kept, asked = task_of(**sections), task_of(Cycled, **sections)
    assert type(kept) is KeptPairs and type(asked) is Cycled
    losses, weights = trained(kept, tmp_path / "kept")
    expected, expected_weights = trained(asked, tmp_path / "asked")
    assert losses == expected and not differing(weights, expected_weights)
    assert losses[0] != losses[PAIRS], "the student has moved"


def test_the_teacher_is_asked_once_for_each_batch():
    task, count = task_of(), []
    task.student.teacher = counted(task.student.teacher, count)
    for step in range(STEPS):
        task(task.draw(step))
    assert len(count) == PAIRS


def counted(function, calls):
    def call(*arguments):
        calls.append(1)
        return function(*arguments)

    return call


def test_resumed_it_ends_as_if_it_was_never_stopped(tmp_path):
    whole, weights = trained(task_of(), tmp_path / "whole")
    stop = Stop()
    stop.requested = True
    for _ in range(2):  # it stops after each step, and begins without any pair
        with pytest.raises(Interrupted):
            trained(task_of(), tmp_path / "stopped", stop)
    losses, resumed = trained(task_of(), tmp_path / "stopped")
    assert losses == whole and not differing(weights, resumed)


def test_shares_of_processes_make_up_the_batch():
    task, shared, halves = task_of(), task_of(), (slice(0, 4), slice(4, 8))
    for step in range(2 * PAIRS):
        parts = [shared(shared.draw(step, part)) for part in halves]
        torch.testing.assert_close(torch.cat(parts), task(task.draw(step)), rtol=1e-4, atol=1e-6)
        known = [shared.draw(step, part).predictions for part in halves]
        assert all(len(predictions) == 1 and len(predictions[0]) == 4 for predictions in known)


def test_phases_take_it_where_the_recipe_asks_for_it():
    assert type(distillation(TinyFamily(), recipe_of())) is KeptPairs
    assert type(distillation(TinyFamily(), recipe_of(objective={"pairs": 0}))) is TrajectoryDistillation


def test_what_is_kept_takes_the_memory_that_is_said():
    task = task_of(objective={"solver": "dpm2"})
    for step in range(STEPS):
        task(task.draw(step))
    held = sum(tensor.nbytes for predictions in task._known.values() for tensor in predictions)
    assert held == kept_bytes(task.recipe, task.family.pictures[0].shape)


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ({"objective": {"w_max": 2.0}}, r"objective.pairs .* needs one w, and w is drawn from \[0.8, 2\]: set"),
        ({"end_times": {"segments": [2, 1]}}, r"objective.pairs .* end_times.segments changes them .* got \(2, 1\)"),
    ],
)
def test_what_does_not_go_with_it_is_refused(sections, words):
    with pytest.raises(RecipeError, match=words) as error:
        recipe_of(**sections)
    assert len(str(error.value).splitlines()) == 1
