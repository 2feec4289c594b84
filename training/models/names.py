"""Where each tensor of a diffusers model lies in a file: the original checkpoints' names, and older ones of diffusers'.

A `Place` is a key and what is done with its tensor; each tensor has one or more, the first that the file has counts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from torch import Tensor

UNET, VAE = "model.diffusion_model.", "first_stage_model."
_CLIP = {  # (family, encoder) → where it may stand
    ("sd15", "text_encoder"): ("cond_stage_model.transformer.",),
    ("sd21", "text_encoder"): ("cond_stage_model.model.", "conditioner.embedders.0.model."),
    ("sdxl", "text_encoder"): ("conditioner.embedders.0.transformer.",),
    ("sdxl", "text_encoder_2"): ("conditioner.embedders.1.model.",),
}


class Place(NamedTuple):
    """A key of a file; ``third`` 0, 1, 2 takes that third of its rows, ``transposed`` swaps rows and columns."""

    key: str
    third: int | None = None
    transposed: bool = False

    def shape(self, stored: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of what is taken from a tensor of this shape."""
        if self.third is not None:
            return (stored[0] // 3, *stored[1:])
        return stored[::-1] if self.transposed else stored

    def take(self, tensor: Tensor) -> Tensor:
        """What is taken from the tensor: a view."""
        if self.third is not None:
            return tensor.chunk(3)[self.third]
        return tensor.mT if self.transposed else tensor


Places = Callable[[str], list[Place]]


def prefixes(family: str, part: str) -> tuple[str, ...]:
    """What the keys of a part begin with in the family's original checkpoints: one of these."""
    return {"unet": (UNET,), "vae": (VAE,)}.get(part) or _CLIP[family, part]


def original(family: str, part: str, config: Mapping) -> Places:
    """Diffusers' names → places in an original (ldm, sgm) checkpoint.

    Args:
        part: "unet", "vae", "text_encoder" or "text_encoder_2".
        config: the part's diffusers config.
    """
    if part == "unet":
        return lambda name: [Place(UNET + _unet(name, config))]
    if part == "vae":
        return lambda name: [Place(VAE + _vae(name, len(config["block_out_channels"])))]
    starts = prefixes(family, part)
    if starts[0].endswith("transformer."):
        return lambda name: [Place(start + text + _bare(name)) for start in starts for text in ("text_model.", "")]
    return lambda name: [place._replace(key=start + place.key) for start in starts for place in _open_clip(_bare(name))]


def diffusers(part: str) -> Places:
    """Names → places in a part's own file of a diffusers folder, old ones included."""
    if part == "vae":
        return lambda name: [Place(name), Place(_old_attention(name))]
    if part == "unet":
        return lambda name: [Place(name)]
    return lambda name: [Place("text_model." + _bare(name)), Place(_bare(name))]


# ---- UNet ----

_UNET_ENDS = {
    "conv_in": "input_blocks.0.0",
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_UNET_RESIDUAL = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def _unet(name: str, config: Mapping) -> str:
    module, _, kind = name.rpartition(".")
    if module in _UNET_ENDS:
        return f"{_UNET_ENDS[module]}.{kind}"
    if match := re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d+)\.(.+)", name):
        what, index, rest = match[1], int(match[2]), match[3]
        return f"middle_block.{2 * index + (what == 'attentions')}.{_residual(what, rest, _UNET_RESIDUAL)}"
    match = re.fullmatch(r"(down|up)_blocks\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name)
    if match is None:
        return name
    side, level, what, index, rest = match[1], int(match[2]), match[3], int(match[4]), match[5]
    per_level = config["layers_per_block"] + 1  # down: and the downsampler; up: one more than down
    if what == "downsamplers":
        return f"input_blocks.{per_level * (level + 1)}.0.op.{kind}"
    if what == "upsamplers":
        place = 2 if "CrossAttn" in config["up_block_types"][level] else 1
        return f"output_blocks.{per_level * (level + 1) - 1}.{place}.conv.{kind}"
    block = (
        f"input_blocks.{1 + per_level * level + index}"
        if side == "down"
        else f"output_blocks.{per_level * level + index}"
    )
    return f"{block}.{int(what == 'attentions')}.{_residual(what, rest, _UNET_RESIDUAL)}"


def _residual(what: str, rest: str, names: Mapping[str, str]) -> str:
    """Layers of a residual block are renamed; those of an attention block have one name everywhere."""
    layer, _, kind = rest.rpartition(".")
    return f"{names.get(layer, layer)}.{kind}" if what == "resnets" else rest


# ---- VAE ----

_VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
_OLD_ATTENTION = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}


def _vae(name: str, levels: int) -> str:
    name = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
    name = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", name)
    if match := re.fullmatch(r"(.+)\.mid_block\.attentions\.0\.(.+)\.(\w+)", name):
        return f"{match[1]}.mid.attn_1.{_VAE_ATTENTION[match[2]]}.{match[3]}"
    name = re.sub(r"down_blocks\.(\d)\.", r"down.\1.", name)
    name = re.sub(r"up_blocks\.(\d)\.", lambda m: f"up.{levels - 1 - int(m[1])}.", name)
    return name.replace("resnets", "block").replace("downsamplers.0", "downsample").replace("upsamplers.0", "upsample")


def _old_attention(name: str) -> str:
    """Diffusers' own names of the VAE's attention before 0.15."""
    match = re.fullmatch(r"(.+\.attentions\.0)\.(.+)\.(\w+)", name)
    return f"{match[1]}.{_OLD_ATTENTION.get(match[2], match[2])}.{match[3]}" if match else name


# ---- text encoders ----

_OPEN_CLIP = {
    "embeddings.token_embedding.weight": "token_embedding.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "final_layer_norm.weight": "ln_final.weight",
    "final_layer_norm.bias": "ln_final.bias",
}
_OPEN_CLIP_LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def _bare(name: str) -> str:
    """Some versions of transformers wrap the encoder in a `text_model`, some do not."""
    return name.removeprefix("text_model.")


def _open_clip(name: str) -> list[Place]:
    if name == "text_projection.weight":
        return [Place("text_projection", transposed=True), Place(name)]
    if name in _OPEN_CLIP:
        return [Place(_OPEN_CLIP[name])]
    match = re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        return [Place(name)]
    layer, module, kind = f"transformer.resblocks.{match[1]}", match[2], match[3]
    if module in _OPEN_CLIP_LAYER:
        return [Place(f"{layer}.{_OPEN_CLIP_LAYER[module]}.{kind}")]
    return [Place(f"{layer}.attn.in_proj_{kind}", third="qkv".index(module.removeprefix("self_attn.")[0]))]
