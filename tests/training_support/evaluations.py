"""Small evaluations: words of their command lines, LoRAs for small UNets, stand-ins for the metrics' weights."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from training.evaluation.inception import SCRIPT
from training.evaluation.model import Model
from training.families.unet import LORA_TARGETS
from training.lora_file import save_lora

SIDE, RANK, ALPHA = 64, 2, 3.0
PROMPTS = ("a cat", "two dogs, a bird", "a red house", "a cat", "the sea!")  # one stands there twice


def small_model(path: Path) -> Model:
    """A checkpoint of `write_small_checkpoint`, opened."""
    return Model(str(path), "fp32", torch.device("cpu"), SIDE, f"{path}.config")


def words(model: Path, prompts: Path, output: Path | str, *more: object) -> list[object]:
    """A command line on a small checkpoint; only what needs no weights is measured unless ``more`` says otherwise."""
    made = ["--model", model, "--model-config", f"{model}.config", "--prompts", prompts, "--resolution", SIDE]
    made += ["--output", output, "--batch", 2, *more]
    return made if "--metrics" in more else [*made, "--metrics", "complexity"]


def write_prompts(path: Path, prompts: tuple[str, ...] = PROMPTS) -> Path:
    path.write_text("# to be passed over\n" + "\n\n".join(prompts) + "\n", encoding="utf-8")
    return path


def write_lora(model: Path, path: Path, style: str = "kohya", seed: int = 0, **metadata: str) -> nn.Module:
    """Write a LoRA of every module for a checkpoint's UNet; returns that UNet with it, as PEFT has it.

    Args:
        style: "kohya", "diffusers" (alpha in its metadata) or "peft" (alpha is the rank).
    """
    network = small_model(model).base()
    alpha = RANK if style == "peft" else ALPHA
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=alpha, target_modules=LORA_TARGETS))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        if "lora_" in name:
            parameter.data = 0.1 * torch.randn(parameter.shape, generator=generator)
    if style == "kohya":
        save_lora(path, network, metadata, "fp32")
        return network
    start = "unet." if style == "diffusers" else "base_model.model."
    tensors = {f"{start}{key}": value.contiguous() for key, value in get_peft_model_state_dict(network).items()}
    if style == "diffusers":
        metadata["lora_adapter_metadata"] = json.dumps({"unet.lora_alpha": alpha, "unet.r": RANK})
    save_file(tensors, path, metadata)
    return network


class TinyInception(nn.Module):
    """In Inception's place: random projections of a picture scaled to 4 × 4."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.project = nn.Linear(48, width)
        weight = torch.randn(width, 48, generator=torch.Generator().manual_seed(0))
        self.project.weight.data, self.project.bias.data = weight / 48**0.5, torch.zeros(width)

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return self.project(nn.functional.adaptive_avg_pool2d(x.float() / 127.5 - 1, 4).flatten(1))


def write_inception(folder: Path, width: int = 32) -> Path:
    """`TinyInception` as the TorchScript file that is looked for."""
    folder.mkdir(exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's script is to be replaced, some day
        torch.jit.script(TinyInception(width)).save(str(folder / SCRIPT))
    return folder


CLIP_CONFIG = {
    "projection_dim": 16,
    "text_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "projection_dim": 16,
        "eos_token_id": 49407,
    },
    "vision_config": {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "patch_size": 14,
        "image_size": 28,
        "projection_dim": 16,
    },
}


def write_clip(folder: Path, seed: int = 0) -> CLIPModel:
    """A small random CLIP in a folder; returned."""
    torch.manual_seed(seed)
    network = CLIPModel(CLIPConfig.from_dict(CLIP_CONFIG)).eval()
    for parameter in network.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
    network.save_pretrained(folder)
    return network
