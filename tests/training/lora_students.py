"""A small UNet with a random LoRA, as a student is after training, and its weight changes."""

import torch
from diffusers import UNet2DConditionModel
from lora_files import make_unet, randomise
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer

RANK, ALPHA = 4, 3.0
TARGETS = r".*(to_[qkv]|to_out\.0|proj_in|proj_out|conv1|conv2|conv_shortcut|time_emb_proj|conv_in|linear_1|net\.2)"


def student(seed: int = 1, adapter: str = "default", **config) -> UNet2DConditionModel:
    """A small UNet with a random LoRA over linear layers and convolutions."""
    unet = make_unet()
    config = {"r": RANK, "lora_alpha": ALPHA, "target_modules": TARGETS, **config}
    inject_adapter_in_model(LoraConfig(**config), unet, adapter)
    randomise(unet, seed)
    return unet


def deltas(network, adapter: str = "default") -> dict[str, torch.Tensor]:
    """ΔW of every layer, as peft merges it."""
    layers = ((name, m) for name, m in network.named_modules() if isinstance(m, LoraLayer))
    return {name: layer.get_delta_weight(adapter).detach() for name, layer in layers if adapter in layer.lora_A}


def check_equal(found: dict, expected: dict, tolerance: float = 1e-6) -> None:
    assert found.keys() == expected.keys() and expected
    for name, delta in expected.items():
        assert float((found[name] - delta).norm() / delta.norm()) <= tolerance, name
