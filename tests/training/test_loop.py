"""The loop: two runs alike, interruptions that leave no trace, the global batch in parts."""

import itertools
import shutil
from types import SimpleNamespace

import pytest
import torch
from training_support.line import Line, train_line
from training_support.tiny import differing, distilled, tiny_recipe

from training import checkpoint, loop
from training.loop import Interrupted, LoopSettings
from training.phases import student_settings
from training.recipe import load_recipe
from training.stopping import Stop

FORMS = {
    "lora": {"end_times": {"draw": "exact"}},
    "S+, EMA target": {"objective": {"form": "tcf_s_plus", "target": "ema"}},
    "full": {"student": {"kind": "full"}, "training": {"batch": 4}},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """(losses, all that was trained) of an uninterrupted run of the tiny recipe."""
    return distilled(tmp_path_factory.mktemp("whole"))


# ---- the same again ----


@pytest.mark.parametrize("recipe", FORMS.values(), ids=FORMS)
def test_two_runs_of_one_seed_are_identical_to_the_bit(recipe, tmp_path):
    recipe = tiny_recipe(**recipe)
    losses, state = distilled(tmp_path / "a", recipe)
    torch.manual_seed(torch.seed())
    again, state_again = distilled(tmp_path / "b", recipe)
    assert losses == again and len(losses) == 6 and not differing(state, state_again)
    other, _ = distilled(tmp_path / "c", recipe.model_copy(update={"seed": 1}))
    assert other != losses


@pytest.mark.parametrize("recipe", FORMS.values(), ids=FORMS)
def test_a_run_resumed_from_any_checkpoint_ends_as_the_uninterrupted_one(recipe, tmp_path):
    recipe = tiny_recipe(**recipe)
    losses, state = distilled(tmp_path / "whole", recipe, every=1)
    checkpoints = sorted((tmp_path / "whole").iterdir())
    assert [path.name for path in checkpoints] == [f"step_{i:08d}.pt" for i in range(1, 7)]
    for path in checkpoints:
        folder = tmp_path / path.stem
        folder.mkdir()
        shutil.copy(path, folder)
        torch.manual_seed(torch.seed())
        resumed, state_resumed = distilled(folder, recipe)
        assert resumed == losses and not differing(state, state_resumed), path.name


def test_a_stop_writes_a_checkpoint_and_the_run_goes_on_from_it_as_if_nothing_had_been(whole, tmp_path):
    losses, state = whole
    stop = Stop()

    def ask_after_three(task):
        follow_averages = task.after_step

        def after_step():
            follow_averages()
            stop.requested = task.saved.updates == 3

        task.after_step = after_step

    with pytest.raises(Interrupted) as stopped:
        distilled(tmp_path / "stopped", stop=stop, change=ask_after_three)
    path = tmp_path / "stopped" / "step_00000003.pt"
    assert stopped.value.checkpoint == path and path.is_file() and len(list(path.parent.iterdir())) == 1
    assert "tcd was stopped after step 3" in str(stopped.value) and str(path) in str(stopped.value)
    resumed, state_resumed = distilled(tmp_path / "stopped", stop=Stop())
    assert resumed == losses and not differing(state, state_resumed)


def test_a_stop_in_the_last_step_ends_the_run_as_usual(tmp_path):
    losses, _ = distilled(tmp_path, tiny_recipe(training={"steps": 1, "warmup": 0}), stop=Stop(requested=True))
    assert len(losses) == 1


@pytest.mark.parametrize(
    ("where", "error"), [("draw", OSError), ("forward", MemoryError), ("after_step", KeyboardInterrupt)]
)
def test_a_run_that_died_goes_on_from_its_last_checkpoint(where, error, whole, tmp_path):
    losses, state = whole

    def die_in_the_fifth_step(task):
        method_of_task, calls = getattr(task, where), []

        def method(*arguments):
            calls.append(1)
            if len(calls) == 5:
                raise error
            return method_of_task(*arguments)

        setattr(task, where, method)

    with pytest.raises(error):
        distilled(tmp_path / "died", change=die_in_the_fifth_step, every=2)
    assert sorted(path.name for path in (tmp_path / "died").iterdir()) == ["step_00000002.pt", "step_00000004.pt"]
    resumed, state_resumed = distilled(tmp_path / "died", every=2)
    assert resumed == losses and not differing(state, state_resumed)


def test_a_damaged_checkpoint_costs_only_the_steps_since_the_one_before(tmp_path):
    losses, state = distilled(tmp_path, every=2)
    (tmp_path / "step_00000006.pt").write_bytes((tmp_path / "step_00000006.pt").read_bytes()[:-1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoint.logger, "warning", lambda *arguments: None)
        resumed, state_resumed = distilled(tmp_path)
    assert resumed == losses and not differing(state, state_resumed)


def test_a_finished_run_is_not_run_again(tmp_path):
    losses, state = distilled(tmp_path)

    def no_more(task):
        task.draw = lambda step, part: pytest.fail("drawn")

    again, state_again = distilled(tmp_path, change=no_more)
    assert again == losses and not differing(state, state_again)


def test_what_a_network_draws_itself_is_the_same_after_an_interruption(tmp_path):
    whole, broken, resumed = (Line(p_dropout=0.5) for _ in range(3))
    assert len(set(train_line(tmp_path / "a", whole).loss[1:])) > 5
    broken.draw = lambda step, part: Line.draw(broken, step, part) if step < 7 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        train_line(tmp_path / "b", broken, every=5)
    torch.rand(17)
    train_line(tmp_path / "b", resumed, every=5)
    assert resumed.seen == whole.seen and len(whole.seen) == 10


def test_a_resumed_phase_s_seconds_are_those_of_all_its_steps_up_to_the_end(tmp_path, monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))  # a second between two looks
    broken = Line()
    broken.draw = lambda step, part: Line.draw(broken, step, part) if step < 7 else 1 / 0
    with pytest.raises(ZeroDivisionError):
        train_line(tmp_path, broken, every=5)
    assert train_line(tmp_path, Line(), every=5).seconds == 10  # five of the first process, five of the second


# ---- checkpoints ----


def test_without_an_interval_the_end_alone_is_written(tmp_path):
    train_line(tmp_path / "a", Line(), every=0)
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["step_00000010.pt"]
    train_line(tmp_path / "b", Line(), every=3, keep=2)
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["step_00000009.pt", "step_00000010.pt"]


# ---- the global batch ----


@pytest.mark.parametrize("recipe", FORMS.values(), ids=FORMS)
def test_accumulation_changes_nothing_but_the_memory(recipe, tmp_path):
    recipe = tiny_recipe(**recipe)
    losses, _ = distilled(tmp_path / "a", recipe)
    parts = []

    def count(task):
        forward = task.forward

        def counted(batch):
            parts.append(len(batch.x0))
            return forward(batch)

        task.forward = counted

    accumulated, _ = distilled(tmp_path / "b", recipe, change=count, accumulation=4)
    assert parts == [recipe.training.batch // 4] * 4 * 6
    assert accumulated == pytest.approx(losses, rel=1e-4, abs=1e-6)


def test_a_batch_that_cannot_be_shared_evenly_is_refused():
    with pytest.raises(ValueError, match="a batch of 8 can't be shared evenly by 3 processes × 1 accumulation"):
        loop.check_shares(LoopSettings(steps=1, batch=8, lr=0.1), 3)


def test_passes_that_do_not_divide_a_process_s_share_become_more(tmp_path):
    assert [loop.passes(12, 6, processes) for processes in (1, 2, 3, 4)] == [6, 3, 2, 3]
    assert train_line(tmp_path, Line(), accumulation=3).loss == train_line(tmp_path / "4", Line(), accumulation=4).loss


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 12])
def test_the_shipped_recipes_can_be_shared_out(processes):
    for name in ("sd15", "sd21", "sd21v", "sdxl"):
        settings = student_settings(load_recipe(name))
        loop.check_shares(settings, processes)
        parts = []
        for index in range(processes):
            parts += loop._parts(settings, SimpleNamespace(num_processes=processes, process_index=index))
        rows = [row for part in parts for row in range(settings.batch)[part]]
        assert rows == list(range(settings.batch)) and len(parts) >= settings.accumulation
