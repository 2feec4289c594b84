"""LoRA files in every format, written by the real libraries where they write them, for a small diffusers UNet.

The UNets have the module names of the tiny checkpoints in `host_support.tiny_checkpoints` (one residual block a level,
no middle block), so the same files serve the tests with and without a host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_state_dict_to_kohya
from peft import LoraConfig, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file
from torch import Tensor

_RESNET = {
    "conv1": "in_layers.2",
    "conv2": "out_layers.3",
    "time_emb_proj": "emb_layers.1",
    "conv_shortcut": "skip_connection",
}
_BASIC = {
    "conv_in": "input_blocks.0.0",
    "conv_out": "out.2",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
}


def make_unet(family: str = "sd15", channels: int = 32, seed: int = 0) -> UNet2DConditionModel:
    """A UNet with the module names of the family's tiny checkpoint: "sd15", "sd21v" or "sdxl"."""
    torch.manual_seed(seed)
    common = {"layers_per_block": 1, "mid_block_type": None, "attention_head_dim": 8, "sample_size": 8}
    if family != "sdxl":
        context = {"sd15": 768, "sd21v": 1024}[family]
        return UNet2DConditionModel(
            **common,
            block_out_channels=(channels,),
            down_block_types=("CrossAttnDownBlock2D",),
            up_block_types=("CrossAttnUpBlock2D",),
            cross_attention_dim=context,
            use_linear_projection=family == "sd21v",
        )
    return UNet2DConditionModel(
        **common,
        block_out_channels=(channels,) * 3,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 5),
        reverse_transformer_layers_per_block=(1, 1, 1),
        cross_attention_dim=2048,
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )


def target_modules(unet: UNet2DConditionModel) -> list[str]:
    """Every linear layer and convolution that the tiny checkpoints have too (their up blocks attend only last)."""
    return [
        name
        for name, module in unet.named_modules()
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d) and not re.match(r"up_blocks\.\d\.attentions\.0", name)
    ]


def ldm_name(name: str) -> str:
    """The original latent-diffusion name of one of `target_modules`, `input_blocks.1.0.in_layers.2` and such."""
    if name in _BASIC:
        return _BASIC[name]
    side, level, kind, index, rest = re.match(r"(down|up)_blocks\.(\d)\.(\w+)\.(\d)\.(.*)", name).groups()
    level, index = int(level), int(index)
    block = f"input_blocks.{1 + 2 * level}" if side == "down" else f"output_blocks.{2 * level + index}"
    if kind == "resnets":
        return f"{block}.0.{_RESNET[rest]}"
    if kind == "attentions":
        return f"{block}.1.{rest}"
    if kind == "downsamplers":
        return f"input_blocks.{2 + 2 * level}.0.op"
    return f"output_blocks.{2 * level + 1}.2.conv"


@dataclass(frozen=True)
class Adapter:
    """A UNet with a PEFT LoRA whose every factor is random."""

    unet: UNet2DConditionModel

    @property
    def config(self) -> LoraConfig:
        return self.unet.peft_config["default"]

    def state(self) -> dict[str, Tensor]:
        """PEFT's state dict: `down_blocks.….to_q.lora_A.weight`."""
        return {key: value.detach().clone() for key, value in get_peft_model_state_dict(self.unet).items()}

    def deltas(self, scaled: bool = True) -> dict[str, Tensor]:
        """ΔW of every module as PEFT merges it; with scale 1 in place of alpha / rank if not `scaled`."""
        result = {}
        for name, module in self.unet.named_modules():
            if isinstance(module, BaseTunerLayer):
                factor = 1.0 if scaled else 1 / module.scaling["default"]
                result[name] = (module.get_delta_weight("default") * factor).detach()
        return result


def make_adapter(unet: UNet2DConditionModel, modules: Iterable[str] | None = None, seed: int = 1, **config) -> Adapter:
    """Add a LoRA; rank 4 and alpha 2 unless told otherwise, so that a lost alpha shows."""
    config = {"r": 4, "lora_alpha": 2, "target_modules": list(modules or target_modules(unet)), **config}
    unet.add_adapter(LoraConfig(**config))
    randomise(unet, seed)
    return Adapter(unet)


def randomise(model: torch.nn.Module, seed: int = 1) -> None:
    """Give every adapter parameter random values: PEFT starts one factor at zero."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if re.search(r"lora_|hada_|lokr_", name):
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.1


@dataclass(frozen=True)
class LoraFile:
    """A written file; `scaled` says whether the format holds alpha, `modules` those of the adapter's that it has."""

    path: Path
    scaled: bool = True
    modules: frozenset[str] | None = None


def _rename(adapter: Adapter, prefix: str, rename: Callable[[str], str], down: str, up: str, alpha: bool = False):
    """PEFT's state under other names: `prefix + rename(module) + down` and `… + up`, with alpha tensors if asked."""
    result = {}
    for key, value in adapter.state().items():
        module, factor = re.match(r"(.*)\.lora_([AB])\.weight", key).groups()
        result[prefix + rename(module) + (down if factor == "A" else up)] = value
        if alpha:
            result[f"{prefix}{rename(module)}.alpha"] = torch.tensor(float(adapter.config.lora_alpha))
    return result


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _same(name: str) -> str:
    return name


def _write(tensors: dict[str, Tensor], folder: Path, name: str, metadata: dict | None = None, **kind) -> LoraFile:
    path = folder / f"{name}.safetensors"
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata=metadata)
    return LoraFile(path, **kind)


def diffusers_pipeline(adapter: Adapter, folder: Path) -> LoraFile:
    """What diffusers' training scripts write: `save_lora_weights` with the adapter's metadata."""
    is_xl = adapter.unet.config.addition_embed_type == "text_time"
    (StableDiffusionXLPipeline if is_xl else StableDiffusionPipeline).save_lora_weights(
        folder,
        unet_lora_layers=adapter.state(),
        unet_lora_adapter_metadata=adapter.config.to_dict(),
        weight_name="diffusers_pipeline.safetensors",
    )
    return LoraFile(folder / "diffusers_pipeline.safetensors")


def diffusers_without_metadata(adapter: Adapter, folder: Path) -> LoraFile:
    StableDiffusionPipeline.save_lora_weights(
        folder, unet_lora_layers=adapter.state(), weight_name="diffusers_without_metadata.safetensors"
    )
    return LoraFile(folder / "diffusers_without_metadata.safetensors", scaled=False)


def diffusers_unet(adapter: Adapter, folder: Path) -> LoraFile:
    """`UNet2DConditionModel.save_lora_adapter`: bare module names, metadata without a network's name."""
    adapter.unet.save_lora_adapter(folder, adapter_name="default", weight_name="diffusers_unet.safetensors")
    return LoraFile(folder / "diffusers_unet.safetensors")


def diffusers_lora_down_up(adapter: Adapter, folder: Path) -> LoraFile:
    tensors = _rename(adapter, "unet.", _same, ".lora.down.weight", ".lora.up.weight")
    return _write(tensors, folder, "diffusers_lora_down_up", scaled=False)


def diffusers_processors(adapter: Adapter, folder: Path) -> LoraFile:
    """The first diffusers LoRAs: attention alone, `….attn1.processor.to_out_lora.down.weight`."""
    tensors, modules = {}, set()
    for key, value in adapter.state().items():
        match = re.match(r"(.*attn\d)\.(to_q|to_k|to_v|to_out)(\.0)?\.lora_([AB])\.weight", key)
        if match:
            factor = "down" if match[4] == "A" else "up"
            tensors[f"{match[1]}.processor.{match[2]}_lora.{factor}.weight"] = value
            modules.add(f"{match[1]}.{match[2]}{match[3] or ''}")
    return _write(tensors, folder, "diffusers_processors", scaled=False, modules=frozenset(modules))


def kohya(adapter: Adapter, folder: Path) -> LoraFile:
    """diffusers' own conversion, whose alpha (always the rank) is replaced by the true one."""
    tensors = convert_state_dict_to_kohya({f"unet.{key}": value for key, value in adapter.state().items()})
    for key in tensors:
        if key.endswith(".alpha"):
            tensors[key] = torch.tensor(float(adapter.config.lora_alpha))
    metadata = {"ss_base_model_version": "sd_v1", "tcd.steps": "4", "tcd.gamma": "0.3", "tcd.cfg": "1.0"}
    return _write(tensors, folder, "kohya", metadata)


def kohya_ldm(adapter: Adapter, folder: Path) -> LoraFile:
    def name(module: str) -> str:
        return _flat(ldm_name(module))

    tensors = _rename(adapter, "lora_unet_", name, ".lora_down.weight", ".lora_up.weight", alpha=True)
    return _write(tensors, folder, "kohya_ldm")


def lycoris(adapter: Adapter, folder: Path) -> LoraFile:
    tensors = _rename(adapter, "lycoris_", _flat, ".lora_down.weight", ".lora_up.weight", alpha=True)
    return _write(tensors, folder, "lycoris")


def diffusion_model_ab(adapter: Adapter, folder: Path) -> LoraFile:
    tensors = _rename(adapter, "diffusion_model.", ldm_name, ".lora_A.weight", ".lora_B.weight", alpha=True)
    return _write(tensors, folder, "diffusion_model_ab")


def diffusion_model_down_up(adapter: Adapter, folder: Path) -> LoraFile:
    tensors = _rename(adapter, "diffusion_model.", ldm_name, ".lora_down.weight", ".lora_up.weight")
    return _write(tensors, folder, "diffusion_model_down_up", scaled=False)


def peft_pretrained(adapter: Adapter, folder: Path) -> LoraFile:
    """peft's `save_pretrained`: weights and, beside them, adapter_config.json with alpha and rank."""
    unet = UNet2DConditionModel.from_config(adapter.unet.config)
    model = get_peft_model(unet, adapter.config)
    state = adapter.state()
    for name, parameter in model.named_parameters():
        key = name.removeprefix("base_model.model.").replace(".default", "")
        if key in state:
            parameter.data = state[key]
    model.save_pretrained(folder / "peft")
    return LoraFile(folder / "peft" / "adapter_model.safetensors")


def peft_under_unet(adapter: Adapter, folder: Path) -> LoraFile:
    tensors = _rename(adapter, "unet.base_model.model.", _same, ".lora_A.weight", ".lora_B.weight")
    return _write(tensors, folder, "peft_under_unet", scaled=False)


def peft_adapter_names(adapter: Adapter, folder: Path) -> LoraFile:
    tensors = _rename(adapter, "base_model.model.", _same, ".lora_A.default.weight", ".lora_B.default.weight")
    return _write(tensors, folder, "peft_adapter_names", scaled=False)


FORMATS: dict[str, Callable[[Adapter, Path], LoraFile]] = {
    writer.__name__: writer
    for writer in (
        diffusers_pipeline,
        diffusers_without_metadata,
        diffusers_unet,
        diffusers_lora_down_up,
        diffusers_processors,
        kohya,
        kohya_ldm,
        lycoris,
        diffusion_model_ab,
        diffusion_model_down_up,
        peft_pretrained,
        peft_under_unet,
        peft_adapter_names,
    )
}
