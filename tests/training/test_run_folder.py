"""Which folder a run gets, which one is gone on with, and which phases of it are done."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from training import disk
from training.disk import OutputError
from training.run_folder import claim, find_unfinished, finished, mark_finished, newest_unfinished, resume

CLAIM = """
import sys
from training.run_folder import claim
print("ready", flush=True)
sys.stdin.readline()
print(*[claim(sys.argv[1]) for _ in range(8)], sep="\\n")
"""


def run(folder: Path, began: int, done: bool = False) -> Path:
    """A run that began at a time (seconds), finished or not."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").touch()
    os.utime(folder / "recipe.toml", (began, began))
    if done:
        (folder / "report.json").touch()
    return folder


# ---- claiming ----


def test_folders_are_numbered_in_turn(tmp_path):
    base = tmp_path / "outputs" / "digits"
    assert [claim(base).name for _ in range(3)] == ["digits", "digits-2", "digits-3"]


def test_an_empty_folder_is_taken_and_one_with_anything_in_it_is_not(tmp_path):
    base = tmp_path / "digits"
    for name, file in (("digits", "notes.txt"), ("digits-2", ".hidden"), ("digits-4", "report.json")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text("mine")
    (tmp_path / "digits-3").mkdir()
    assert claim(base).name == "digits-3"
    assert claim(base).name == "digits-5"
    assert [entry.read_text() for entry in base.iterdir()] == ["mine"]


def test_a_gap_is_filled(tmp_path):
    run(tmp_path / "digits-2", began=1)
    assert claim(tmp_path / "digits").name == "digits"
    assert claim(tmp_path / "digits").name == "digits-3"


def test_the_current_folder_and_the_one_above_have_names_too(tmp_path, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here")
    assert claim(Path(".")) == tmp_path / "here-2"
    monkeypatch.chdir(tmp_path / "here" / "below")
    assert claim(Path("..")) == tmp_path / "here-3"


def test_a_link_to_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "big_disk").mkdir()
    (tmp_path / "digits").symlink_to(tmp_path / "big_disk")
    assert claim(tmp_path / "digits") == tmp_path / "digits"
    assert os.listdir(tmp_path / "big_disk") == ["state.json"]


def test_a_file_in_the_way_is_refused_or_passed_by(tmp_path):
    (tmp_path / "digits").touch()
    with pytest.raises(OutputError, match="digits is a file"):
        claim(tmp_path / "digits")
    with pytest.raises(OutputError, match=r"cannot make .*Not a directory.* --output"):
        claim(tmp_path / "digits" / "below")
    run(tmp_path / "other", began=1)
    (tmp_path / "other-2").touch()
    assert claim(tmp_path / "other").name == "other-3"


def test_an_unwritable_place_is_an_error_for_people(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", fail)
    with pytest.raises(OutputError, match=r"cannot make .*Permission denied.* --output"):
        claim(tmp_path / "digits")


def test_threads_that_claim_at_once_get_a_folder_each(tmp_path):
    (tmp_path / "digits").mkdir()
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim(tmp_path / "digits").name, range(40)))
    assert len(set(claimed)) == 40 and {"digits", "digits-2", "digits-40"} <= set(claimed)


def test_processes_that_claim_at_once_get_a_folder_each(tmp_path):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", CLAIM, str(tmp_path / "digits")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    claimers = [subprocess.Popen(command, env=environment, **pipes) for _ in range(3)]
    for claimer in claimers:
        assert claimer.stdout.readline() == "ready\n"
    for claimer in claimers:
        claimer.stdin.write("go\n")
        claimer.stdin.flush()
    claimed = [line for claimer in claimers for line in claimer.communicate()[0].split()]
    assert len(claimed) == len(set(claimed)) == 24


# ---- resuming ----


def test_the_run_that_began_last_is_found_whatever_its_number(tmp_path):
    base = tmp_path / "digits"
    run(base, began=300)
    run(tmp_path / "digits-2", began=200)
    run(tmp_path / "digits-10", began=100)
    run(tmp_path / "digits-3", began=400, done=True)
    assert find_unfinished(base) == base == resume(base, named=False)


def test_only_this_runs_folders_count(tmp_path):
    for name in ("digits-table", "digits2", "digits-2x", "digits-1", "digits-02", "xdigits", "digits-2-2"):
        run(tmp_path / name, began=1)
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits-3").touch()
    claim(tmp_path / "digits-4")
    assert find_unfinished(tmp_path / "digits") is None
    assert find_unfinished(tmp_path / "gone" / "digits") is None


def test_a_folder_named_by_the_user_comes_before_newer_ones(tmp_path):
    base = run(tmp_path / "digits", began=1)
    newer = run(tmp_path / "digits-2", began=2)
    assert resume(base) == base
    assert resume(base, named=False) == newer
    assert resume(newer) == newer


def test_a_finished_folder_leads_to_its_unfinished_sibling(tmp_path):
    run(tmp_path / "digits", began=3, done=True)
    unfinished = run(tmp_path / "digits-2", began=2)
    assert resume(tmp_path / "digits") == unfinished


def test_nothing_to_resume_says_which_runs_are_finished(tmp_path):
    with pytest.raises(OutputError, match=r"nothing to resume: .* No run has begun there\. .* without --resume"):
        resume(tmp_path / "digits")
    done = [run(tmp_path / name, began=1, done=True) for name in ("digits", "digits-2")]
    with pytest.raises(OutputError) as error:
        resume(tmp_path / "digits")
    assert f"Finished there: {done[0]}, {done[1]}." in str(error.value)


def test_the_newest_unfinished_run_of_a_folder_is_found_whatever_it_is_called(tmp_path):
    for name, began, done in (("digits", 100, False), ("sdxl", 300, False), ("cats-2", 200, False), ("new", 400, True)):
        run(tmp_path / name, began, done)
    (tmp_path / "cache").mkdir()
    (tmp_path / "notes.txt").touch()
    assert [folder.name for folder in newest_unfinished(tmp_path)] == ["sdxl", "cats-2", "digits"]


@pytest.mark.parametrize(("done", "words"), [(0, "in %s. Begin"), (2, "in %s, and 2 finished. Begin")])
def test_without_an_unfinished_run_nothing_is_resumed(tmp_path, done, words):
    for number in range(done):
        run(tmp_path / "outputs" / f"run-{number}", began=1, done=True)
    with pytest.raises(OutputError) as error:
        newest_unfinished(tmp_path / "outputs")
    assert words % (tmp_path / "outputs") in str(error.value)


# ---- phases ----


def test_phases_are_listed_in_the_order_they_were_finished(tmp_path):
    folder = claim(tmp_path / "digits")
    assert finished(folder) == {}
    mark_finished(folder, "teacher", 31.25)
    mark_finished(folder, "tcd", 60)
    assert list(finished(folder).items()) == [("teacher", 31.25), ("tcd", 60.0)]
    assert os.listdir(folder) == ["state.json"]


def test_a_folder_without_a_list_has_no_finished_phase(tmp_path):
    assert finished(tmp_path) == {}


def test_a_full_disk_keeps_the_phases_of_before(tmp_path, monkeypatch):
    mark_finished(tmp_path, "teacher", 1)

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk.os, "fsync", full)
    with pytest.raises(OutputError, match=r"state\.json was not written: No space"):
        mark_finished(tmp_path, "tcd", 2)
    assert finished(tmp_path) == {"teacher": 1.0}


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"phases": 3}', '{"phases": {"teacher": "x"}}'])
def test_a_damaged_list_says_what_to_delete(tmp_path, text):
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(OutputError, match=r"state\.json is damaged .* Delete it"):
        finished(tmp_path)
