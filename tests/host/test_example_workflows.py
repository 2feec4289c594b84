"""The example workflows run on a real server: placeholder files lie under the names they ask for."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from host_support import tiny_checkpoints, workflows
from host_support.ui_workflow import to_prompt
from safetensors.torch import save_file

EXAMPLES = sorted((Path(__file__).resolve().parents[2] / "example_workflows").glob("*.json"))
LOADERS = ("CheckpointLoaderSimple", "TCDToolkit_LoraLoader")
FAMILY = {"text_to_image_sd15": "sd15", "text_to_image_sdxl": "sdxl"}


def of_type(prompt: dict, class_type: str) -> dict[str, dict]:
    return {key: node["inputs"] for key, node in prompt.items() if node["class_type"] == class_type}


def place_checkpoint(folder: Path, name: str, family: str) -> None:
    shutil.copy(folder / tiny_checkpoints.FAMILIES[family].file, folder / name)


def place_lora(file: Path, family: str) -> int:
    """A rank 4 LoRA for each attention projection of the tiny network; returns how many modules it has."""
    prefix = "model.diffusion_model."
    tensors = {}
    for key, weight in tiny_checkpoints.state_dict(family).items():
        if key.startswith(prefix) and ".attn" in key and weight.ndim == 2:
            module = "lora_unet_" + key.removeprefix(prefix).removesuffix(".weight").replace(".", "_")
            tensors[f"{module}.lora_down.weight"] = torch.full((4, weight.shape[1]), 0.01)
            tensors[f"{module}.lora_up.weight"] = torch.full((weight.shape[0], 4), 0.01)
            tensors[f"{module}.alpha"] = torch.tensor(4.0)
    save_file(tensors, file)
    return len(tensors) // 3


def without_text_encoder(prompt: workflows.Graph, family: str) -> workflows.Graph:
    """The tiny checkpoints hold no text encoder: fixed conditionings take its place, everything else stays."""
    kind = tiny_checkpoints.FAMILIES[family]
    for seed, inputs in enumerate(of_type(prompt, "CLIPTextEncode")):
        widths = {"width": kind.context, "pooled_width": kind.pooled, "tokens": 8, "seed": seed}
        prompt[inputs] = {"class_type": "TCDTest_Conditioning", "inputs": widths}
    for latent in of_type(prompt, "EmptyLatentImage").values():
        latent.update(width=64, height=64)
    return prompt


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_example_makes_a_picture(file, server, checkpoints):
    family = FAMILY[file.stem]
    prompt = to_prompt(json.loads(file.read_text()), server.object_info())
    (checkpoint,), (lora,) = (of_type(prompt, name).values() for name in LOADERS)
    place_checkpoint(checkpoints, checkpoint["ckpt_name"], family)
    modules = place_lora(server.loras / lora["lora_name"], family)

    result = server.run(without_text_encoder(prompt, family))

    assert f"{modules} of {modules}" in result.text("9")
    assert len(result.images) == 1 and result.images[0].std() > 1


def test_examples_name_their_files_and_sources():
    for file in EXAMPLES:
        nodes = json.loads(file.read_text())["nodes"]
        note = "".join(node["widgets_values"][0] for node in nodes if node["type"] == "MarkdownNote")
        named = [node["widgets_values"][0] for node in nodes if node["type"] in LOADERS]
        assert len(named) == 2 and all(name in note for name in named) and "Hugging Face" in note


def test_examples_use_the_settings_they_claim(server):
    for file in EXAMPLES:
        prompt = to_prompt(json.loads(file.read_text()), server.object_info())
        (settings,) = of_type(prompt, "TCDToolkit_KSampler").values()
        assert {name: settings[name] for name in ("steps", "cfg", "gamma", "denoise", "order")} == {
            "steps": 4,
            "cfg": 1.0,
            "gamma": 0.3,
            "denoise": 1.0,
            "order": "1",
        }


def test_stock_samplers_go_on_with_a_lora_from_our_loader(server):
    """One workflow: each sampler with the LoRA and without it; both finite, and not the same."""
    place_lora(server.loras / "stock.safetensors", "sd15")
    samplers = ("ddim", "euler", "dpmpp_2m_sde", "dpmpp_2m", "lcm", "uni_pc")
    g = workflows.Graph()
    setup = workflows.load(g, "sd15")
    patched = g.add("TCDToolkit_LoraLoader", model=setup.model, lora_name="stock.safetensors", strength=1.0)
    latent = workflows.empty_latent(g, "sd15")
    for name in samplers:
        for suffix, model in (("with", patched), ("without", setup.model)):
            settings = {"sampler_name": name, "scheduler": "normal"}
            sampled = workflows.ksampler(g, model, latent, setup, **settings)
            g.add("TCDTest_SaveLatent", f"{name} {suffix}", samples=sampled, name="latent")
    result = server.run(g)
    for name in samplers:
        a, b = (result.latent(f"{name} {suffix}") for suffix in ("with", "without"))
        assert a.isfinite().all() and (a - b).norm() / b.norm() > 1e-4, name
