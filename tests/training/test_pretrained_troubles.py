"""What can't be trained is refused in a line, before there is anything; what runs out says what would help."""

import os
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file
from training_support.pretrained import model_words, small_recipe, write_pictures, write_small_checkpoint
from training_support.random_checkpoints import small_config
from training_support.runs import files_in
from training_support.tiny import fresh_accelerator

from training import distill, families, pretrained
from training.families.encoders import Encoders
from training.objective import TrajectoryDistillation
from training.pretrained import check
from training.recipe import replaced
from training.run_folder import mark_finished


def refused(commands, folder, *words, status=1) -> str:
    """What a command said that was refused before it made anything in ``folder`` or trained."""
    before = files_in(folder)
    done = commands.run(*words, "--output", "run", cwd=folder)
    assert done.status == status and "Traceback" not in done.err and "tcd:" not in done.err, done
    assert done.out == "" and files_in(folder) == before and not (folder / "run").exists(), done
    said = [line for line in done.err.splitlines() if line]
    assert len(said) == 1 and said[0].startswith("error: "), done
    return said[0]


# ---- the model ----


def test_a_model_of_another_family_is_refused_with_both_named(commands, sd15, cats, tmp_path):
    said = refused(commands, tmp_path, *model_words(sd15, "sdxl"), "--images", cats)
    assert "the recipe's family is sdxl" in said and "is a Stable Diffusion 1.5 model" in said
    assert "Use family sd15" in said


def test_a_model_with_a_missing_block_is_refused_with_what_is_missing(commands, sd15, cats, tmp_path):
    tensors = {name: w for name, w in load_file(sd15).items() if "middle_block.1" not in name}
    save_file(tensors, tmp_path / "half.safetensors")
    words = model_words(sd15)
    words[words.index("--model") + 1] = "half.safetensors"
    said = refused(commands, tmp_path, *words, "--images", cats)
    assert "half.safetensors" in said and "middle_block.1" in said


def test_a_pickle_by_the_name_of_safetensors_is_refused_and_not_opened(commands, sd15, cats, tmp_path):
    torch.save({"a": Touches(tmp_path / "executed")}, tmp_path / "renamed.safetensors")
    assert zipfile.is_zipfile(tmp_path / "renamed.safetensors")
    words = ["--recipe", "sd15", "--model", "renamed.safetensors", "--images", cats]
    said = refused(commands, tmp_path, *words)
    assert "pickle" in said and "was not opened" in said and not (tmp_path / "executed").exists()


class Touches:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


# ---- the data ----


def test_without_data_with_two_kinds_or_without_a_model_nothing_begins(commands, sd15, cats, tmp_path):
    words = model_words(sd15)
    said = refused(commands, tmp_path, *words, status=2)
    assert "needs data: --images FOLDER, --shards FILES or --prompts FILE" in said
    said = refused(commands, tmp_path, *words, "--images", cats, "--prompts", "prompts.txt", status=2)
    assert "data takes one of images, shards and prompts, got images and prompts" in said
    said = refused(commands, tmp_path, "--recipe", "sd15", "--images", cats, status=2)
    assert "family sd15 needs a model: --model" in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--images gone", "data.images: gone does not exist"),
        ("--prompts gone.txt", "data.prompts: gone.txt cannot be read: No such file or directory"),
        ("--shards gone.tar", "data.shards: there is no file gone.tar"),
        ("--shards pipe:touch", "data.shards: pipe:touch would run a command"),
    ],
)
def test_data_that_are_not_there_are_refused(commands, sd15, tmp_path, words, reason):
    assert reason in refused(commands, tmp_path, *model_words(sd15), *words.split())


def test_a_folder_of_which_nothing_is_left_is_an_error_with_the_reasons(commands, sd15, tmp_path):
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = commands.run(*model_words(sd15), "--images", "pictures", "--output", "run", cwd=tmp_path)
    assert done.status == 1 and "Traceback" not in done.err and "tcd:" not in done.err, done
    assert "nothing in the folder pictures can be used: all 1 were skipped.\n  broken.png: " in done.err


# ---- what the run is to do ----


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--comfyui empty", "empty is no ComfyUI, it lacks models/ and comfy/"),
        ("--comfyui comfy --student.kind full", "--comfyui takes LoRAs, and student.kind is full"),
        ("--validation.trackers visdom", "there is no tracker 'visdom'"),
        ("--data.bucket_step 128", "model.resolution must be at least data.bucket_step"),
    ],
)
def test_what_could_not_be_done_at_the_end_is_refused_at_the_beginning(commands, sd15, cats, tmp_path, words, reason):
    for folder in ("empty", "comfy/comfy", "comfy/models"):
        (tmp_path / folder).mkdir(parents=True)
    assert reason in refused(commands, tmp_path, *model_words(sd15), "--images", cats, *words.split())


def test_digits_are_not_put_into_comfyui(commands, tmp_path):
    assert "ComfyUI has no models of the family digits" in refused(commands, tmp_path, "--comfyui", "comfy")


def test_moments_of_8_bits_need_bitsandbytes(sd15, cats, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes", None)
    monkeypatch.setitem(__import__("sys").modules, "bitsandbytes.optim", None)
    with pytest.raises(ValueError, match="adamw8bit needs bitsandbytes.*pip install bitsandbytes, or use adamw"):
        check(small_recipe(sd15, cats, memory={"optimizer": "adamw8bit"}))


def test_a_batch_that_processes_can_not_share_is_refused(sd15, cats):
    recipe = small_recipe(sd15, cats)
    check(recipe, processes=2)
    with pytest.raises(ValueError, match="a batch of 2 can't be shared evenly by 3 processes"):
        check(recipe, processes=3)


def test_too_little_memory_says_what_would_help(monkeypatch, capsys, tmp_path):
    def run(command):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nmore")

    monkeypatch.setattr(distill, "run", run)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    assert distill.main(["--recipe", "sd15", "--model", "owner/name", "--images", "pictures"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("\nerror: the GPU's memory is too small: CUDA out of memory. Tried to allocate 2 GiB. ")
    assert "--memory.gradient_checkpointing" in said and len(said.splitlines()) == 2
    assert "HF_HUB_OFFLINE" not in os.environ, "a Hub name's model may be fetched"


# ---- a cache made with something else ----


def test_another_vocabulary_config_or_model_has_another_cache(sd15, cats, tmp_path):
    vocabulary = tmp_path / "vocabulary"
    vocabulary.mkdir()
    (vocabulary / "vocab.json").write_text("{}")
    recipe = small_recipe(sd15, cats)
    with_vocabulary = replaced(recipe, model={"vocabulary": str(vocabulary)})
    made = [fingerprint(recipe), fingerprint(with_vocabulary)]
    (vocabulary / "vocab.json").write_text('{"a": 0}')
    made.append(fingerprint(with_vocabulary))
    config = small_config("sd15", tmp_path / "config") / "vae" / "config.json"
    config.write_text(config.read_text().replace("0.18215", "0.2"))
    made.append(fingerprint(replaced(recipe, model={"config": str(tmp_path / "config")})))
    other = write_small_checkpoint(tmp_path, seed=1)
    made.append(fingerprint(replaced(recipe, model={"path": str(other)})))
    assert len(set(made)) == 5
    assert fingerprint(replaced(recipe, training={"lr": 1e-3}, model={"dtype": "bf16"})) == made[0]
    prompts = small_recipe(sd15, cats, data={"images": "", "prompts": "file"})
    in_bf16 = replaced(prompts, model={"dtype": "bf16"})
    assert fingerprint(prompts) != fingerprint(in_bf16), "the teacher makes these latents itself"


def fingerprint(recipe) -> str:
    return Encoders(families.build(recipe), torch.device("cpu")).fingerprint


def test_comfyui_is_told_of_the_zero_terminal_snr_that_the_file_announces(tmp_path, cats, monkeypatch):
    told = {}
    monkeypatch.setattr(pretrained, "export", lambda *_, **options: told.update(options) or "exported")
    for zero in (False, True):
        folder = tmp_path / str(zero)
        folder.mkdir()
        model = write_small_checkpoint(folder, v_prediction=True, zero_terminal_snr=zero)
        mark_finished(folder, "tcd", 1.0)
        pretrained.finish(small_recipe(model, cats), folder, [(0, folder)], tmp_path)
        assert told == {"zero_terminal_snr": zero}


def test_the_disk_for_checkpoints_is_asked_for_before_training(sd15, cats):
    recipe = small_recipe(sd15, cats, student={"rank": 64, "alpha": 64.0, "dtype": "fp16"}, checkpoint={"keep": 2})
    family = families.build(recipe)
    family.load()
    task = TrajectoryDistillation(family, recipe)
    trained = sum(p.numel() for p in task.trainable().values())
    assert pretrained.disk_needed(recipe) == 20_000_000 + 3 * (16 + 2) * trained


def test_captions_beyond_the_text_encoder_s_length_are_cut_and_counted(sd15, tmp_path):
    """As transformers truncates them, and told: 75 words fit between the two marks, 76 do not."""
    cats, said = write_pictures(tmp_path / "cats", 3), []
    for i, words in enumerate((75, 76, 200)):
        next(cats.rglob(f"{i}.txt")).write_text(" ".join(["cat"] * words))
    family = families.build(small_recipe(sd15, cats, data={"cache": str(tmp_path / "cache")}))
    family.prepare(fresh_accelerator(), say=said.append)
    assert [line for line in said if line.startswith("2 captions are longer than 75 tokens")], said
    first = family.cache.texts([" ".join(["cat"] * 75)])["encoder_hidden_states"]
    for words in (76, 200):
        assert torch.equal(first, family.cache.texts([" ".join(["cat"] * words)])["encoder_hidden_states"])
