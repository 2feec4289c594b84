"""Diffusers folders load as files do: old names, shards and variants too; damaged ones are refused."""

import json
import shutil

import pytest
from diffusers import DDIMScheduler
from model_files import few, same
from safetensors.torch import load_file, save_file

from training.models import ModelError, inspect, load, load_tokenizers, load_unet
from training.models.vocabulary import write_vocabulary


def test_a_folder_gives_what_its_file_gave(loaded, tmp_path):
    for family in ("sd15", "sdxl"):
        path, parts = loaded(family)
        folder = as_folder(
            parts, tmp_path / family, {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True}
        )
        found = inspect(folder)
        assert (found.family, found.prediction, found.zero_terminal_snr) == (family, "v_prediction", True)
        assert found.dtype == "F16" and not found.single
        again = load(folder, family, dtype=None, vae_dtype=None)
        same(again.unet, parts.unet)
        same(again.vae, parts.vae)
        for mine, theirs in zip(again.text_encoders, parts.text_encoders, strict=True):
            same(mine, theirs)
        assert again.prediction == "v_prediction" and again.schedule.alpha_bar[-1] == 0


def as_folder(parts, folder, scheduler=None):
    """A diffusers folder of these parts."""
    parts.unet.save_pretrained(folder / "unet")
    parts.vae.save_pretrained(folder / "vae")
    for index, encoder in enumerate(parts.text_encoders):
        encoder.save_pretrained(folder / ("text_encoder" + ("_2" if index else "")))
    sd = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
    DDIMScheduler(**sd, **(scheduler or {})).save_pretrained(folder / "scheduler")
    kind = "StableDiffusionXLPipeline" if len(parts.text_encoders) > 1 else "StableDiffusionPipeline"
    (folder / "model_index.json").write_text(json.dumps({"_class_name": kind}))
    return folder


def test_a_folder_under_diffusers_older_names(loaded, tmp_path):
    parts = loaded("sd15")[1]
    folder = as_folder(parts, tmp_path / "m")
    weights = folder / "vae" / "diffusion_pytorch_model.safetensors"
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    tensors = load_file(weights)
    for new, name in old.items():
        for key in [key for key in tensors if f"attentions.0.{new}." in key]:
            tensors[key.replace(new, name)] = tensors.pop(key)
    save_file(tensors, weights.with_name("diffusion_pytorch_model.fp16.safetensors"))  # the only variant
    weights.unlink()
    texts = folder / "text_encoder" / "model.safetensors"
    save_file(
        {f"text_model.{key.removeprefix('text_model.')}": value for key, value in load_file(texts).items()}, texts
    )
    again = load(folder, "sd15", dtype=None, vae_dtype=None)
    same(again.vae, parts.vae)
    same(again.text_encoders[0], parts.text_encoders[0])
    assert again.prediction == "epsilon"


def test_a_part_in_shards(loaded, tmp_path):
    parts = loaded("sd15")[1]
    folder = as_folder(parts, tmp_path / "m")
    shutil.rmtree(folder / "unet")
    parts.unet.save_pretrained(folder / "unet", max_shard_size="6MB")
    assert len(list((folder / "unet").glob("*.safetensors"))) > 1
    same(load_unet(inspect(folder), dtype=None), parts.unet)
    next((folder / "unet").glob("*-00002-*.safetensors")).unlink()
    with pytest.raises(ModelError, match="could not be read: No such file"):
        inspect(folder)


def test_damaged_folders_are_refused(loaded, tmp_path):
    parts = loaded("sd15")[1]
    folder = as_folder(parts, tmp_path / "m")
    with pytest.raises(ModelError, match=f"one part of a diffusers folder. Give the folder above it: {folder}"):
        inspect(folder / "unet")
    weights = folder / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    save_file({key: value for key, value in tensors.items() if ".3." not in key}, weights)
    with pytest.raises(ModelError, match=r"text encoder's tensors are missing, in .*encoder\.layers\.3 \(16\)"):
        inspect(folder)
    weights.rename(weights.with_name("pytorch_model.bin"))
    with pytest.raises(ModelError, match=r"text_encoder holds a pickle \(pytorch_model\.bin\).*not opened"):
        inspect(folder)
    weights.with_name("pytorch_model.bin").unlink()
    with pytest.raises(ModelError, match=r"incomplete: text_encoder/model\.safetensors is missing"):
        inspect(folder)
    (folder / "unet" / "config.json").write_text('{"_class_name": "FluxTransformer2DModel"}')
    with pytest.raises(ModelError, match=r"holds a StableDiffusionPipeline model: only sd15, sd21 and sdxl"):
        inspect(folder)
    (folder / "unet" / "config.json").write_text("{")
    with pytest.raises(ModelError, match=r"config\.json could not be read"):
        inspect(folder)
    (folder / "unet" / "config.json").unlink()
    with pytest.raises(ModelError, match=r"unet/config\.json is missing"):
        inspect(folder)


def test_folders_that_are_no_models_say_what_to_give(tmp_path):
    with pytest.raises(ModelError, match=r"model_index\.json is missing"):
        inspect(tmp_path)
    few(tmp_path / "my.safetensors", "a")
    with pytest.raises(ModelError, match=r"To use a checkpoint in it, give my\.safetensors"):
        inspect(tmp_path)


def test_a_folders_own_tokenizer_is_used(loaded, tmp_path):
    parts = loaded("sd15")[1]
    folder = as_folder(parts, tmp_path / "m")
    own = folder / "tokenizer"
    own.mkdir()
    write_vocabulary(own)
    settings = {"tokenizer_class": "CLIPTokenizer", "pad_token": "!", "bos_token": "<|startoftext|>"}
    (own / "tokenizer_config.json").write_text(json.dumps(settings | {"eos_token": "<|endoftext|>"}))
    (tokenizer,) = load_tokenizers(inspect(folder))
    ids = tokenizer(["a cat!"], padding="max_length", truncation=True).input_ids[0]
    assert ids == [49406, 320, 2368, 256, 49407] + [0] * 72  # "!" is padding, but not in a caption
    known = json.loads((own / "vocab.json").read_text())
    known["<my-style>"] = len(known)
    (own / "vocab.json").write_text(json.dumps(known))
    with pytest.raises(ModelError, match="has 49,409 tokens, .* text encoder knows 49,408"):
        load_tokenizers(inspect(folder))
