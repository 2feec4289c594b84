"""A run that is killed or interrupted, anywhere, and resumed ends as the one that was not, to the bit."""

import random
import re
import signal
import time

import pytest
from training_support.commands import MINI, at, wait_for, without
from training_support.runs import bytes_in, files_in, tensors_in
from training_support.tiny import differing

from training import checkpoint

UNMEASURED = without("training.evaluate.evaluate")


def resume(commands, cwd, *faults, words=()):
    return commands.run("--output", "run", "--resume", *words, cwd=cwd, faults=faults)


# ---- SIGKILL ----

IN_STEPS = [  # one process after the other: at which call of which function it dies
    ("training.loop._step", 1),
    ("training.loop._step", 7),  # the teacher's seventh; it goes on from its fifth
    ("training.objective.TrajectoryDistillation.after_step", 3),  # in TCD
    ("training.loop._step", 6),  # LCM's last
]
IN_WRITING = [
    ("training.checkpoint._write", 2),
    ("training.checkpoint._delete_old", 1),
    ("training.families.embedded.save_file", 1),  # of the teacher's two files the second
    ("training.phases.mark_finished", 1),
    ("shutil.rmtree", 1),  # the teacher noted as done, its checkpoints still there
    ("training.checkpoint._write", 3),
    ("training.checkpoint_lora.save_lora", 1),
    ("training.phases.mark_finished", 1),
    ("training.lora_file.replacing", 2),  # LCM's file, TCD's standing there
    ("training.phases.write_atomically", 1),  # the loss curves
]


@pytest.mark.parametrize("deaths", [IN_STEPS, IN_WRITING], ids=["in steps", "in writing"])
def test_killed_again_and_again_and_resumed_the_weights_are_those_of_the_whole_run(commands, whole, tmp_path, deaths):
    words = [*MINI, "--output", "run"]
    for function, call in deaths:
        killed = commands.run(*words, cwd=tmp_path, faults=[at(function, call, "SIGKILL"), UNMEASURED])
        assert killed.status == -signal.SIGKILL, (function, killed)
        words = ["--output", "run", "--resume"]
    done = resume(commands, tmp_path, UNMEASURED)
    assert done.status == 0, done
    assert not differing(tensors_in(tmp_path / "run"), whole)
    assert not [name for name in files_in(tmp_path) if "checkpoints" in name or name.endswith((".tmp", ".lock"))]


def test_killed_from_outside_at_any_moment_too(commands, whole, tmp_path):
    chance, words, killed = random.Random(3), [*MINI, "--output", "run"], 0
    for phase in ("teacher", "teacher", "tcd", "lcm"):
        running = commands.start(*words, cwd=tmp_path, faults=[UNMEASURED])
        words = ["--output", "run", "--resume"]
        wait_for(lambda phase=phase: (tmp_path / "run" / "checkpoints" / phase).exists())
        time.sleep(chance.uniform(0, 0.3))
        killed += running.kill().status == -signal.SIGKILL
    assert killed >= 2
    done = resume(commands, tmp_path, UNMEASURED)
    assert done.status == 0, done
    assert not differing(tensors_in(tmp_path / "run"), whole)


def test_killed_in_the_second_of_two_training_seeds_the_first_is_not_done_again(commands, whole, tmp_path):
    killed = commands.run(
        *MINI, "--training_seeds", "2", "--no_baseline", "--output", "run", cwd=tmp_path, faults=[in_second_seed()]
    )
    assert killed.status == -signal.SIGKILL, killed
    before = bytes_in(tmp_path / "run" / "seed-0")
    assert not differing(tensors_in(tmp_path / "run" / "seed-0"), without_baseline(whole))
    done = resume(commands, tmp_path, UNMEASURED)
    assert done.status == 0 and bytes_in(tmp_path / "run" / "seed-0") == before, done
    second = tensors_in(tmp_path / "run" / "seed-1")
    assert second.keys() == without_baseline(whole).keys() and differing(second, without_baseline(whole))


def in_second_seed() -> dict:
    """A death in the last step of the second teacher: 8 steps of the first, 4 of its student, and 8."""
    return at("training.loop._step", 8 + 4 + 8, "SIGKILL")


def without_baseline(tensors: dict) -> dict:
    return {name: w for name, w in tensors.items() if not name.startswith("lcm_")}


@pytest.mark.parametrize("place", ["training.measure.start_noise", "training.report.to_markdown"])
def test_killed_while_measuring_only_the_measuring_is_done_again(commands, tmp_path, place):
    words = "--no_baseline --measure.steps 2 --measure.gammas 0.2 --output run".split()
    killed = commands.run(*MINI, *words, cwd=tmp_path, faults=[at(place, 1, "SIGKILL")])
    assert killed.status == -signal.SIGKILL, killed
    before = {name: found for name, found in bytes_in(tmp_path / "run").items() if name.endswith(".safetensors")}
    done = resume(commands, tmp_path, at("training.loop._step", 1, "SIGKILL"))
    assert done.status == 0 and (tmp_path / "run" / "report.md").is_file(), done
    after = bytes_in(tmp_path / "run")
    assert len(before) == 3 and {name: after[name] for name in before} == before


# ---- Ctrl-C ----


@pytest.mark.parametrize(("call", "phase", "step"), [(3, "teacher", 3), (11, "tcd", 3)])
def test_an_interrupted_run_says_where_it_stopped_and_goes_on_from_there(commands, whole, tmp_path, call, phase, step):
    stopped = commands.run(*MINI, "--output", "run", cwd=tmp_path, faults=[at("training.loop._step", call, "SIGINT")])
    assert stopped.status == 130 and "Traceback" not in stopped.err, stopped
    path = f"run/checkpoints/{phase}/step_{step:08d}.pt"
    assert f"{phase} was stopped after step {step}; it goes on from {path} with --resume" in stopped.err
    assert (tmp_path / path).is_file() and not list(tmp_path.glob("run/*.lock"))
    done = resume(commands, tmp_path, UNMEASURED)
    assert done.status == 0 and not differing(tensors_in(tmp_path / "run"), whole), done


def test_sigterm_stops_it_alike(commands, tmp_path):
    stopped = commands.run(*MINI, "--output", "run", cwd=tmp_path, faults=[at("training.loop._step", 2, "SIGTERM")])
    assert stopped.status == 130 and "teacher was stopped after step 2" in stopped.err, stopped


@pytest.mark.parametrize("place", ["training.loop._step", "training.phases.mark_finished"])
def test_an_interruption_at_the_very_end_of_training_is_heeded(commands, tmp_path, place):
    call = {"training.loop._step": 16, "training.phases.mark_finished": 3}[place]
    stopped = commands.run(*MINI, "--output", "run", cwd=tmp_path, faults=[at(place, call, "SIGINT")])
    assert stopped.status == 130 and stopped.err.endswith("\nInterrupted; go on with --resume\n"), stopped
    assert not (tmp_path / "run" / "report.json").exists()


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_an_interruption_while_measuring_leaves_the_run_to_be_measured(commands, tmp_path, name):
    place = at("training.measure.start_noise", 1, name)
    stopped = commands.run(*MINI, "--output", "run", cwd=tmp_path, faults=[place])
    assert stopped.status == 130 and stopped.err.endswith("\nInterrupted; go on with --resume\n"), stopped
    assert not (tmp_path / "run" / "report.json").exists() and not list(tmp_path.glob("run/*.lock"))


# ---- --resume ----


def test_resuming_with_another_recipe_is_refused_by_the_names_of_its_fields(commands, whole, tmp_path):
    commands.run(*MINI, "--output", "run", cwd=tmp_path, faults=[at("training.loop._step", 3, "SIGKILL")])
    before = bytes_in(tmp_path)
    done = resume(commands, tmp_path, words=[*MINI, "--training.lr", "3e-4", "--seed", "7"])
    assert done.status == 1 and "Traceback" not in done.err, done
    assert "run was begun with another recipe (run/recipe.toml)" in done.err
    assert "seed is 0, asked for 7; training.lr is" in done.err and "asked for 0.0003. Resume it without" in done.err
    assert {name: found for name, found in bytes_in(tmp_path).items() if not name.endswith(".lock")} == {
        name: found for name, found in before.items() if not name.endswith(".lock")
    }
    done = resume(commands, tmp_path, UNMEASURED, words=MINI)
    assert done.status == 0 and not differing(tensors_in(tmp_path / "run"), whole), "the same recipe, said again"


def test_without_anything_to_resume_it_is_refused(commands, tmp_path):
    done = resume(commands, tmp_path)
    assert done.status == 1 and "error: nothing to resume: there is no unfinished run in run" in done.err, done
    done = commands.run("--resume", cwd=tmp_path)
    assert done.status == 1 and "error: nothing to resume: there is no unfinished run in outputs. " in done.err, done
    assert not list(tmp_path.iterdir())


def test_a_finished_run_is_not_resumed(commands, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("recipe.toml", "report.json"):
        (tmp_path / "run" / name).touch()
    done = resume(commands, tmp_path)
    assert done.status == 1 and "Finished there: run. Begin a new run without --resume" in done.err, done


def test_a_second_process_in_the_folder_is_refused(commands, tmp_path):
    first = commands.start(*MINI, "--output", "run", cwd=tmp_path, faults=[at("training.loop._step", 7, "SIGSTOP")])
    try:
        wait_for(lambda: checkpoint.newest(tmp_path / "run" / "checkpoints" / "teacher"))
        second = resume(commands, tmp_path)
        assert second.status == 1 and re.search(rf"error: run is in use by process {first.pid}", second.err), second
    finally:
        killed = first.kill()
    assert killed.status == -signal.SIGKILL
    assert checkpoint.newest(tmp_path / "run" / "checkpoints" / "teacher")[0].name == "step_00000005.pt"
