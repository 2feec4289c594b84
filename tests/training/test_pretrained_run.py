"""Runs of pretrained models as a user starts them: from each kind of data to a LoRA that others load."""

import gc
import json
import math

import pytest
import safetensors.torch
import torch
from diffusers import AutoencoderKL, StableDiffusionPipeline, StableDiffusionXLPipeline
from lora_students import deltas
from peft import LoraConfig, inject_adapter_in_model
from safetensors.torch import load_file
from training_support.pretrained import ALPHA, RANK, SIDE, model_words, small_recipe, write_prompts, write_shards
from training_support.pretrained import write_small_checkpoint as write_model
from training_support.random_checkpoints import LORA_MODULES
from training_support.runs import files_in, is_finite, metadata_of
from training_support.tiny import differing, fresh_accelerator, randomise
from transformers import CLIPTextModel

from training import families, models
from training.families.unet import LORA_TARGETS
from training.lora_file import kohya_name, load_lora, lora_layers
from training.models import configs
from training.objective import TrajectoryDistillation

LORA = "tcd_sd15.safetensors"


def check_lora(path, model, family) -> dict:
    """A file of all the family's modules, moved and finite, that diffusers reads as we do; its metadata."""
    tensors, ours, theirs = load_file(path), base(model), base(model)
    assert load_lora(ours, path).target_embedding is None
    layers = lora_layers(ours)
    assert len(layers) == LORA_MODULES[family] and len(tensors) == 3 * len(layers)
    assert all(layer.r["default"] == RANK and layer.lora_alpha["default"] == ALPHA for layer in layers.values())
    moved = [name for name, w in tensors.items() if name.endswith("lora_up.weight") and w.any()]
    assert len(moved) > 0.95 * len(layers) and all(torch.isfinite(w).all() for w in tensors.values())
    pipeline = StableDiffusionXLPipeline if family == "sdxl" else StableDiffusionPipeline
    state, alphas = pipeline.lora_state_dict(path.parent, weight_name=path.name, unet_config=theirs.config)
    pipeline.load_lora_into_unet(state, alphas, theirs)
    found, expected = deltas(theirs, "default_0"), deltas(ours)
    assert found.keys() == expected.keys()
    assert all(torch.allclose(found[name], expected[name], rtol=1e-4, atol=1e-9) for name in expected)
    return metadata_of(path)


def base(model):
    """A checkpoint's network."""
    return models.load_unet(models.inspect(model, f"{model}.config"), dtype="fp32")


# ---- from data to a LoRA ----


def test_pictures_give_a_lora_that_others_load(pretrained, sd15):
    told = check_lora(pretrained / "run" / LORA, sd15, "sd15")
    assert told["modelspec.architecture"] == "stable-diffusion-v1/lora" and told["ss_base_model_version"] == "sd_v1"
    assert told["modelspec.prediction_type"] == "epsilon" and told["modelspec.resolution"] == f"{SIDE}x{SIDE}"


def test_a_run_leaves_its_lora_the_earlier_ones_and_its_losses(pretrained, sd15):
    earlier = "checkpoints/tcd_sd15_step_00000002.safetensors"
    record = {"recipe.toml", "origin.json", "state.json", "losses.json", "report.json", "loss_curve.png"}
    assert files_in(pretrained / "run") == {*record, LORA, earlier}
    report = json.loads((pretrained / "run" / "report.json").read_text())
    assert report["files"] == [LORA] and report["seconds"]["tcd"] > 0
    assert len(report["loss"]["tcd"]["loss"]) == 3 and is_finite(report["loss"])
    check_lora(pretrained / "run" / earlier, sd15, "sd15")


def test_shards_give_a_lora(commands, sd15, tmp_path):
    words = [*model_words(sd15), "--shards", write_shards(tmp_path), "--student.dtype", "fp16"]
    done = commands.run(*words, "--output", "run", cwd=tmp_path)
    assert done.status == 0 and "6 pictures in 2 sizes, 6 with repeats, 7 captions; none skipped" in done.out, done
    check_lora(tmp_path / "run" / LORA, sd15, "sd15")


def test_prompts_alone_give_a_lora_of_a_v_prediction_model_in_bf16(commands, tmp_path):
    model, prompts = write_model(tmp_path, "sd21", v_prediction=True), write_prompts(tmp_path / "prompts.txt")
    words = "--data.teacher_steps 2 --model.dtype bf16 --memory.gradient_checkpointing --training.steps 2"
    words = [*model_words(model, "sd21v"), "--prompts", prompts, *words.split()]
    done = commands.run(*words, "--output", "run", cwd=tmp_path)
    assert done.status == 0 and "3 latents to be made by the teacher" in done.out, done
    told = check_lora(tmp_path / "run" / "tcd_sd21v.safetensors", model, "sd21")
    assert told["modelspec.prediction_type"] == "v" and told["ss_base_model_version"] == "sd_v2_v"


def test_sdxl_gives_a_lora(commands, cats, tmp_path):
    model = write_model(tmp_path, "sdxl")
    words = [*model_words(model, "sdxl"), "--images", cats, "--training.steps", "1"]
    done = commands.run(*words, "--output", "run", cwd=tmp_path)
    assert done.status == 0, done
    told = check_lora(tmp_path / "run" / "tcd_sdxl.safetensors", model, "sdxl")
    assert told["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"


# ---- the official LoRAs' layout ----

OFFICIAL = {  # bytes of the authors' files at rank 64 in fp16, and the metadata that fits their headers
    "sd15": (134_621_556, {"format": "pt"}),
    "sdxl": (393_854_592, None),
}


@pytest.mark.parametrize("family", OFFICIAL)
def test_full_size_the_file_has_the_official_ones_bytes(family):
    shapes = full_size_shapes(family, rank=64)
    n_bytes, metadata = OFFICIAL[family]
    assert len(shapes) == 3 * LORA_MODULES[family]
    assert payload(shapes) + header(shapes, metadata) == n_bytes


def test_a_run_s_file_has_the_names_of_the_full_size_and_this_size(pretrained, tmp_path):
    tensors = load_file(pretrained / "run" / LORA)
    assert tensors.keys() == full_size_shapes("sd15", RANK).keys()
    halves, path = {name: w.half() for name, w in tensors.items()}, tmp_path / "bare.safetensors"
    safetensors.torch.save_file(halves, path)
    shapes = {name: list(w.shape) for name, w in tensors.items()}
    assert path.stat().st_size == payload(shapes) + header(shapes, None), "what the test above counts"


def full_size_shapes(family: str, rank: int) -> dict[str, list[int]]:
    """Name → shape of a LoRA over the family's own UNet, in kohya's layout, worked out without any weights.

    The authors' files are not here: their names are known by kohya's rule, and only sizes and counts are compared.
    """
    network = configs.skeleton("unet", configs.read_configs(configs.STANDARD / family)["unet"])
    with torch.device("meta"):
        inject_adapter_in_model(LoraConfig(r=rank, target_modules=LORA_TARGETS), network)
    shapes = {}
    for name, layer in lora_layers(network).items():
        stem, down, up = kohya_name(name), layer.lora_A["default"].weight, layer.lora_B["default"].weight
        shapes[f"{stem}.alpha"] = []
        shapes[f"{stem}.lora_down.weight"], shapes[f"{stem}.lora_up.weight"] = list(down.shape), list(up.shape)
    return shapes


def payload(shapes: dict) -> int:
    """Bytes of the tensors in fp16."""
    return sum(2 * math.prod(shape) for shape in shapes.values())


def header(shapes: dict, metadata: dict | None) -> int:
    """Bytes of a safetensors file before its tensors: a length of eight bytes, and a header in steps of eight."""
    told, at = {"__metadata__": metadata} if metadata else {}, 0
    for name in sorted(shapes):
        start, at = at, at + 2 * math.prod(shapes[name])
        told[name] = {"dtype": "F16", "shape": shapes[name], "data_offsets": [start, at]}
    return 8 + -(-len(json.dumps(told, separators=(",", ":"))) // 8) * 8


# ---- what must not change the weights ----

ONLOOKERS = "--validation.every 2 --validation.steps 2 --validation.teacher_steps 2 --validation.trackers tensorboard"


def test_grids_trackers_an_export_and_saving_memory_leave_the_weights_as_they_are(
    commands, sd15, cats, pretrained, tmp_path
):
    for folder in ("comfy", "models/loras"):
        (tmp_path / "ComfyUI" / folder).mkdir(parents=True)
    words = [*model_words(sd15), "--images", cats, "--data.cache", pretrained / "outputs" / "cache"]
    words += [*f"{ONLOOKERS} --memory.offload --memory.gradient_checkpointing".split(), "--output", "run"]
    words += ["--comfyui", "ComfyUI"]
    done = commands.run(*words, cwd=tmp_path)
    assert done.status == 0 and "All of it is in the cache already" in done.out, done
    assert not differing(load_file(tmp_path / "run" / LORA), load_file(pretrained / "run" / LORA))
    assert {"validation/step_00000002.png", "validation/step_00000003.png"} <= files_in(tmp_path / "run")
    assert list(tmp_path.glob("run/logs/tcd_sd15/events*"))
    placed = tmp_path / "ComfyUI" / "models" / "loras" / LORA
    assert placed.read_bytes() == (tmp_path / "run" / LORA).read_bytes()
    assert list(tmp_path.glob("ComfyUI/user/default/workflows/*.json")) and "In ComfyUI: LoRA" in done.out


def test_checkpointing_gives_the_gradients_of_a_student_that_is_told_s(sd15, cats):
    """TCF(S+) adds its embedding of s by a hook, which recomputed blocks must see as the first pass did."""
    gradients = []
    for saving in (False, True):
        form = {"objective": {"form": "tcf_s_plus"}, "memory": {"gradient_checkpointing": saving}}
        task = prepared(small_recipe(sd15, cats, **form))
        randomise(task.trainable(), 0.02)
        task(task.draw(0)).mean().backward()
        gradients.append({name: p.grad for name, p in task.trainable().items()})
    plain, checkpointed = gradients
    assert any("target_embedding" in name for name, g in plain.items() if g.any()) and len(plain) > 2 * 278
    assert not differing(plain, checkpointed)


def prepared(recipe) -> TrajectoryDistillation:
    """A recipe's task in this process, its data encoded."""
    family = families.build(recipe)
    family.prepare(fresh_accelerator(), say=lambda line: None)
    family.load()
    return TrajectoryDistillation(family, recipe)


def test_after_the_first_pass_neither_vae_nor_text_encoder_is_in_memory(sd15, cats):
    before, family = encoders_alive(), families.build(small_recipe(sd15, cats, data={"cache": str(cats / ".other")}))
    family.prepare(fresh_accelerator(), say=lambda line: None)
    assert encoders_alive() <= before
    family.decode(torch.zeros(1, 4, 8, 8))
    assert encoders_alive() <= before


def encoders_alive() -> int:
    gc.collect()
    return sum(issubclass(type(thing), (AutoencoderKL, CLIPTextModel)) for thing in gc.get_objects())
