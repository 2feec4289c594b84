"""What goes wrong is said, in time or without losing what there is: no place to write to, a full disk, a lost run."""

import os
import re

import pytest
from training_support.commands import MINI, at, without
from training_support.runs import bytes_in, files_in, tensors_in
from training_support.tiny import differing

from training import checkpoint

UNMEASURED = without("training.evaluate.evaluate")
FULL = {"do": "limit", "bytes": 20_000}  # less than any weights, more than what a command prints


# ---- before training ----


@pytest.mark.parametrize("module", ["distill", "evaluate"])
def test_an_output_below_a_file_is_refused_at_once(commands, tmp_path, module):
    (tmp_path / "notes").write_text("mine")
    (tmp_path / "recipe.toml").touch()  # a run to evaluate
    words = MINI if module == "distill" else ["."]
    done = commands.run(*words, "--output", "notes/run", cwd=tmp_path, module=module)
    assert done.status == 1 and "notes is a file, not a folder. Choose another with --output" in done.err, done
    assert "Traceback" not in done.err and "teacher" not in done.err and files_in(tmp_path) == {"notes", "recipe.toml"}


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_permission_is_refused_at_once(commands, tmp_path):
    (tmp_path / "theirs").mkdir(mode=0o500)
    done = commands.run(*MINI, "--output", "theirs/run", cwd=tmp_path)
    assert done.status == 1 and "error: cannot write to theirs/run: Permission denied" in done.err, done


def test_a_full_disk_is_noticed_before_training(commands, tmp_path):
    done = commands.run(
        *MINI, "--output", "run", cwd=tmp_path, faults=[at("training.opening.check_writable", 1, "limit", bytes=2000)]
    )
    assert done.status == 1 and "error: cannot write to run: File too large" in done.err, done
    assert "teacher" not in done.err and not list(tmp_path.iterdir())


def test_a_disk_that_is_too_small_is_noticed_before_training(commands, tmp_path):
    words = ["--teacher.width", "1024", "--student.kind", "full", "--training_seeds", "16", "--checkpoint.keep", "5000"]
    done = commands.run(*MINI, *words, "--output", "run", cwd=tmp_path)
    assert done.status == 1 and re.search(r"error: too little space for run: the run needs about .* TB", done.err), done
    assert not list(tmp_path.iterdir())


# ---- a disk that fills up ----

MOMENTS = {  # from which call of which function on there is no space; the last good checkpoint, or None
    "in a teacher's step": ("training.loop._step", 7, "teacher/step_00000005.pt"),
    "before there is a checkpoint": ("training.loop._step", 2, None),
    "in a student's step": ("training.loop._step", 11, "tcd/step_00000002.pt"),
    "saving the teacher": ("training.families.digits.DigitsFamily.save", 1, "teacher/step_00000008.pt"),
    "saving a student": ("training.phases.save_student", 2, "lcm/step_00000004.pt"),
}


@pytest.mark.parametrize(("function", "call", "good"), MOMENTS.values(), ids=MOMENTS)
def test_a_disk_that_fills_up_costs_nothing_that_was_saved(commands, whole, tmp_path, function, call, good):
    stopped = commands.run(*MINI, "--output", "run", cwd=tmp_path, faults=[at(function, call, **FULL), UNMEASURED])
    assert stopped.status == 1 and "Traceback" not in stopped.err, stopped
    assert "\nerror: " in stopped.err and "File too large" in stopped.err, stopped
    assert not [name for name in files_in(tmp_path) if name.endswith((".tmp", ".lock"))]
    checkpoints = tmp_path / "run" / "checkpoints"
    if good:
        assert checkpoint.newest((checkpoints / good).parent)[0] == checkpoints / good
    if function.endswith("_step"):
        said = f"The last good one is run/checkpoints/{good}" if good else "There is no earlier one"
        assert said in stopped.err
    done = commands.run("--output", "run", "--resume", cwd=tmp_path, faults=[UNMEASURED])
    assert done.status == 0, done
    assert not differing(tensors_in(tmp_path / "run"), whole)


def test_a_disk_that_fills_up_while_measuring_leaves_the_run_to_be_measured(commands, tmp_path):
    words, full = (
        "--no_baseline --measure.steps 2 --measure.gammas 0.2".split(),
        at("training.evaluate.draw", 1, **FULL),
    )
    stopped = commands.run(*MINI, *words, "--output", "run", cwd=tmp_path, faults=[full])
    assert stopped.status == 1 and "\nerror: " in stopped.err and "Traceback" not in stopped.err, stopped
    assert not (tmp_path / "run" / "report.json").exists()
    before = bytes_in(tmp_path / "run")
    done = commands.run("run", cwd=tmp_path, module="evaluate", faults=[full])
    assert done.status == 1 and "File too large" in done.err and "Traceback" not in done.err, done
    after = bytes_in(tmp_path / "run")
    assert {name: after[name] for name in before} == before


# ---- a run that is beyond help ----


def test_a_loss_that_explodes_stops_the_run_at_the_step_with_batch_and_checkpoint(commands, tmp_path):
    words = "--training.steps 80 --training.lr 1 --training.clip 0 --training.explode 1.5 --objective.weight none"
    stopped = commands.run(*MINI, *words.split(), "--output", "run", cwd=tmp_path)
    assert stopped.status == 1 and "Traceback" not in stopped.err, stopped
    said = re.search(r"error: training stopped at step (\d+): the loss is .*", stopped.err)[0]
    step = int(re.search(r"step (\d+)", said)[1])
    rows, times = re.search(r"Batch: rows \[([\d, ]+)\], start times \[([\d., ]+)\]", said).groups()
    assert len(rows.split(", ")) == len(times.split(", ")) == 4
    path = f"run/checkpoints/tcd/step_{step - 1:08d}.pt"
    assert f"The last good checkpoint is {path}" in said and "lower training.lr" in said
    found, state = checkpoint.newest((tmp_path / path).parent)
    assert found == tmp_path / path and len(state["loss"]) == step - 1
    again = commands.run("--output", "run", "--resume", cwd=tmp_path)
    assert again.status == 1 and f"training stopped at step {step}: the loss is" in again.err, again


def test_a_gradient_without_end_stops_the_run_before_it_reaches_the_weights(commands, tmp_path):
    stopped = commands.run(*MINI, "--student.alpha", "1e36", "--output", "run", cwd=tmp_path)
    assert stopped.status == 1 and "training stopped at step 1: the gradient's norm is inf" in stopped.err, stopped
    assert "No checkpoint has been written yet" in stopped.err and "Traceback" not in stopped.err
    assert not (tmp_path / "run" / "tcd_digits.safetensors").exists()
