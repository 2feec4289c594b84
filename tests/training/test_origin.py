"""--resume goes on with the model and the data that a run began with, wherever they are, and with no others."""

import json
import os
import shutil
import signal
from dataclasses import replace

import pytest
from safetensors.torch import load_file, save_file
from torch import Tensor
from training_support.commands import at
from training_support.pretrained import PICTURES, model_words, write_pictures, write_prompts, write_small_checkpoint
from training_support.runs import bytes_in
from training_support.tiny import differing

from training.data import DataError, Settings
from training.data.folder import PictureFolder
from training.data.plan import make_plan
from training.data.prompts import Prompts
from training.disk import OutputError
from training.origin import FILE, Origin, data_marks

SETTINGS = Settings(64, bucket_step=32, max_aspect=4.0, min_side=32)
LORA = "tcd_sd15.safetensors"


def plan_of(source, tmp_path, settings=SETTINGS):
    return make_plan(source, settings, tmp_path / "no cache", "none", say=lambda line: None)


@pytest.fixture
def begun(tmp_path):
    """``begun(settings)`` compares the pictures in ``in`` with those that the run in ``run`` began with."""
    write_pictures(tmp_path / "in")
    (tmp_path / "run").mkdir()

    def compare(settings=SETTINGS, folder="in"):
        source = PictureFolder(tmp_path / folder)
        Origin(tmp_path / "run", resumed=True).check_data(plan_of(source, tmp_path, settings), settings, source)

    compare()
    return compare


# ---- the marks ----


def test_moved_renamed_and_reordered_data_are_the_same(begun, tmp_path):
    shutil.move(tmp_path / "in", tmp_path / "elsewhere")
    for end in ("png", "txt"):
        (tmp_path / "elsewhere" / f"1.{end}").rename(tmp_path / "elsewhere" / f"zebra.{end}")
    begun(folder="elsewhere")


def change_a_caption(folder):
    (folder / "1.txt").write_text("a dog")


def add_a_picture(folder):
    (folder / "new.png").write_bytes((folder / "1.png").read_bytes())
    (folder / "new.txt").write_text("another")


def remove_a_picture(folder):
    (folder / "1.png").unlink()


def change_a_picture(folder):
    (folder / "1.png").write_bytes((folder / "5.png").read_bytes())


def repeat_another_number_of_times(folder):
    (folder / "2_cats").rename(folder / "3_cats")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (change_a_caption, "the pictures are the same, their captions are not"),
        (add_a_picture, f"{PICTURES + 1} items, {PICTURES} then; the pictures are others"),
        (remove_a_picture, f"{PICTURES - 1} items, {PICTURES} then; the pictures are others"),
        (change_a_picture, "the pictures are others"),
        (repeat_another_number_of_times, "pictures are repeated another number of times"),
    ],
)
def test_changed_data_are_refused_by_what_changed(begun, tmp_path, change, words):
    change(tmp_path / "in")
    with pytest.raises(DataError) as error:
        begun()
    said = f"{tmp_path / 'run'} was begun with other data than the folder {tmp_path / 'in'} holds now: {words}. Put"
    assert str(error.value).startswith(said) and "new run without --resume" in str(error.value)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bucket_step": 64}, "data.bucket_step was 32, is 64; pictures are cropped to other sizes"),
        ({"resolution": 128}, "model.resolution was 64, is 128; pictures are cropped to other sizes"),
        ({"crop": "random"}, "data.crop was centre, is random."),
    ],
)
def test_other_settings_are_refused_by_name(begun, settings, words):
    with pytest.raises(DataError, match=words):
        begun(replace(SETTINGS, **settings))


def test_prompts_are_told_from_each_other_and_not_by_their_order(tmp_path):
    settings = replace(SETTINGS, teacher_steps=2, teacher_w=1.0)
    path = write_prompts(tmp_path / "prompts.txt")
    marks = data_marks(plan_of(Prompts(path), tmp_path, settings), settings)
    path.write_text("\n".join(reversed(path.read_text().splitlines())))
    assert data_marks(plan_of(Prompts(path), tmp_path, settings), settings) == marks
    path.write_text("a dog\na cat\nanother cat\n")
    other = data_marks(plan_of(Prompts(path), tmp_path, settings), settings)
    assert [name for name in marks if marks[name] != other[name]][:1] == ["prompts"]


def test_damaged_marks_say_what_to_delete(begun, tmp_path):
    (tmp_path / "run" / FILE).write_text("{")
    with pytest.raises(OutputError, match=r"origin\.json is damaged .* Delete it if"):
        begun()


# ---- whole runs ----


@pytest.fixture
def killed(commands, tmp_path):
    """``killed(output)`` begins a run of its own model and pictures, which dies in its second step."""

    def begin(output="run"):
        model, pictures = write_small_checkpoint(tmp_path / "in"), write_pictures(tmp_path / "in" / "cats")
        words = [*model_words(model), "--images", pictures, "--output", output]
        died = commands.run(*words, cwd=tmp_path, faults=[at("training.loop._step", 2, "SIGKILL")])
        assert died.status == -signal.SIGKILL, died
        next((tmp_path / output).glob("running-*.lock")).unlink()
        return model, pictures

    (tmp_path / "in").mkdir()
    return begin


def refused(done, *words) -> str:
    """The error's one line."""
    said = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert done.status == 1 and len(said) == 1 and "Traceback" not in done.err, done
    assert "tcd:" not in done.err and "To encode" not in done.out and all(word in said[0] for word in words), done
    return said[0]


def test_a_resumed_run_refuses_other_weights_and_other_captions_and_finds_what_was_moved(
    commands, killed, pretrained, tmp_path
):
    model, pictures = killed()
    before = bytes_in(tmp_path / "run")

    weights = model.read_bytes()
    edited = load_file(model)
    max((w for name, w in edited.items() if "diffusion_model" in name), key=Tensor.numel).view(-1)[-1] += 1
    save_file(edited, model)
    done = commands.run("--resume", "--output", "run", cwd=tmp_path)
    refused(done, f"run was begun with another model than {model}: its weights are another's. Put", "--model")
    model.write_bytes(weights)

    caption = (pictures / "1.txt").read_text()
    (pictures / "1.txt").write_text("a dog")
    done = commands.run("--resume", "--output", "run", cwd=tmp_path)
    refused(done, f"the folder {pictures} holds now: the pictures are the same, their captions are not")
    (pictures / "1.txt").write_text(caption)
    assert bytes_in(tmp_path / "run") == before

    (tmp_path / "in").rename(tmp_path / "moved")
    model, pictures = tmp_path / "moved" / model.name, tmp_path / "moved" / "cats"
    done = commands.run("--resume", "--output", "run", cwd=tmp_path)
    assert done.status == 1 and "there is no model" in done.err, done
    words = ["--model", model, "--model.config", f"{model}.config", "--images", pictures]
    done = commands.run("--resume", *words, "--training.lr", "0.5", "--output", "run", cwd=tmp_path)
    refused(done, "run was begun with another recipe (run/recipe.toml): training.lr is")
    assert bytes_in(tmp_path / "run") == before
    done = commands.run("--resume", *words, "--output", "run", cwd=tmp_path)
    assert done.status == 0, done
    assert str(model) in (tmp_path / "run" / "recipe.toml").read_text()
    assert not differing(load_file(tmp_path / "run" / LORA), load_file(pretrained / "run" / LORA))


def test_bare_resume_takes_the_newest_run_and_one_without_marks_goes_on_with_a_warning(commands, killed, tmp_path):
    killed("outputs/cats")
    folder = tmp_path / "outputs" / "cats"
    marks = json.loads((folder / FILE).read_text())
    (folder / FILE).unlink()
    (tmp_path / "outputs" / "older").mkdir()
    (tmp_path / "outputs" / "older" / "recipe.toml").touch()
    os.utime(tmp_path / "outputs" / "older" / "recipe.toml", (1, 1))
    done = commands.run("--resume", cwd=tmp_path)
    assert done.status == 0 and "outputs/cats keeps no marks of the model and data" in done.err, done
    assert "Of 2 unfinished runs this is the newest: outputs/cats. Others, for --output: outputs/older\n" in done.out
    assert json.loads((folder / FILE).read_text()) == marks and marks.keys() == {"model", "data"}
    assert (folder / "report.json").is_file()
