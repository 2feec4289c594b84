"""Random-weight checkpoints of the real families in one file: every key of the original layout, at any width.

Number of blocks, layers and transformers are the families' own, so that a LoRA has as many modules as the official ones
(SD 1.5 and 2.1: 278, SDXL: 788); widths are what the configs say. The names are written out here as the original models
have them, not by way of `training.models`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from math import prod, sqrt
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

FAMILIES = ("sd15", "sd21", "sdxl")
LORA_MODULES = {"sd15": 278, "sd21": 278, "sdxl": 788}
UNET, VAE = "model.diffusion_model.", "first_stage_model."
V_PROBE = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
STANDARD = Path(__file__).parents[2] / "training" / "models" / "configs"
HEAD = 64  # width of an attention head where it can be
TEXT_WIDTHS = {"sd15": (32,), "sd21": (64,), "sdxl": (32, 64)}
TIME_IDS = 8  # width of each of SDXL's six sizes


def small_config(
    family: str,
    folder: Path,
    width: int = 32,
    text_widths: tuple[int, ...] | None = None,
    vae_width: int = 32,
    prediction: str | None = None,
    zero_terminal_snr: bool = False,
    time_ids: int = TIME_IDS,
) -> Path:
    """Write diffusers configs of a narrow model of the family into a folder, which is returned.

    Args:
        width: channels of the UNet's first level, a multiple of 32; the others have 2 and 4 times as many.
        text_widths: of the text encoders; their sum is what the UNet attends to.
        vae_width: channels of the VAE's first level, a multiple of 32.
        prediction: written into the scheduler's config, None: nothing is.
    """
    if width % 32:
        raise ValueError(f"width must be a multiple of 32 (GroupNorm has 32 groups), got {width}")
    texts = text_widths or TEXT_WIDTHS[family]
    unet, vae = _standard(family, "unet"), _standard(family, "vae")
    times = [channels // 320 for channels in unet["block_out_channels"]]
    unet["block_out_channels"] = [width * n for n in times]
    if family != "sd15":
        unet["attention_head_dim"] = [max(1, width * n // HEAD) for n in times]
    unet |= {"cross_attention_dim": sum(texts), "sample_size": 8}
    vae |= {"block_out_channels": [vae_width * n // 128 for n in vae["block_out_channels"]], "sample_size": 64}
    if family == "sdxl":
        unet |= {"addition_time_embed_dim": time_ids, "projection_class_embeddings_input_dim": texts[1] + 6 * time_ids}
    scheduler = _standard(family, "scheduler") | ({"prediction_type": prediction} if prediction else {})
    configs = {"unet": unet, "vae": vae, "scheduler": scheduler | {"rescale_betas_zero_snr": zero_terminal_snr}}
    for part, size in zip(("text_encoder", "text_encoder_2"), texts, strict=False):
        sizes = {"hidden_size": size, "intermediate_size": 4 * size, "num_attention_heads": max(2, size // HEAD)}
        configs[part] = _standard(family, part) | sizes | {"projection_dim": size}
    for part, config in configs.items():
        path = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(config))
    return folder


def host_sizes(family: str) -> dict:
    """For `small_config`: the sizes that ComfyUI's detection fixes. They are the family's own: nothing is small."""
    texts = {"sd15": (768,), "sd21": (1024,), "sdxl": (768, 1280)}
    return {"width": 320, "text_widths": texts[family], "vae_width": 128, "time_ids": 256}


def write_checkpoint(
    path: Path,
    family: str,
    config_folder: Path | None = None,
    width: int = 32,
    seed: int = 0,
    v_prediction: bool = False,
    zero_terminal_snr: bool = False,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a checkpoint, and return its path.

    Args:
        family: "sd15", "sd21" or "sdxl".
        config_folder: the sizes; without one they are `small_config`'s, written to ``<path>.config`` beside it.
        v_prediction: mark it as such files are marked: by the spread of one of SD 2.1's norms, SDXL's key ``v_pred``.
        zero_terminal_snr: SDXL's key ``ztsnr``.
    """
    folder = config_folder or small_config(family, path.with_name(f"{path.name}.config"), width)
    tensors = state_dict(family, folder, seed)
    if v_prediction and family == "sd21":
        tensors[V_PROBE] *= 10
    if v_prediction and family != "sd21":
        tensors["v_pred"] = torch.zeros(0)
    if zero_terminal_snr:
        tensors["ztsnr"] = torch.zeros(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.to(dtype if tensor.is_floating_point() else None) for name, tensor in tensors.items()}
    save_file(tensors, path, {"format": "pt"})
    return path


def state_dict(family: str, config_folder: Path, seed: int = 0) -> dict[str, Tensor]:
    """The checkpoint's tensors under their original names, in float32; a mild network: no activation explodes."""
    generator = torch.Generator().manual_seed(seed)
    return {name: _draw(name, shape, generator) for name, shape in tensor_shapes(family, config_folder).items()}


def tensor_shapes(family: str, config_folder: Path) -> dict[str, tuple[int, ...]]:
    """Name → shape of all that a checkpoint of the family holds."""
    names = _Names()
    _unet(names, _config(config_folder, "unet"))
    _vae(names, _config(config_folder, "vae"))
    text = _config(config_folder, "text_encoder")
    if family == "sd15":
        _clip(names, "cond_stage_model.transformer.text_model.", text)
    elif family == "sd21":
        _open_clip(names, "cond_stage_model.model.", text | {"num_hidden_layers": 24})  # its last layer is never used
    else:
        _clip(names, "conditioner.embedders.0.transformer.text_model.", text)
        _open_clip(names, "conditioner.embedders.1.model.", _config(config_folder, "text_encoder_2"))
    return dict(names)


def _draw(name: str, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    if not shape:
        return torch.tensor(4.6)
    if name.endswith("position_ids"):
        return torch.arange(shape[1])[None]
    noise = torch.randn(shape, generator=generator)
    if name.endswith("bias") or len(shape) == 1 and not name.endswith("weight"):
        return 0.05 * noise
    if len(shape) == 1:  # a norm's factors
        return 1 + 0.1 * noise
    if "embed" in name and "time" not in name and "label" not in name:
        return 0.1 * noise
    return noise / sqrt(prod(shape[1:]))


def _standard(family: str, part: str) -> dict:
    return _config(STANDARD / family, part)


def _config(folder: Path, part: str) -> dict:
    return json.loads((folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")).read_text())


class _Names(dict):
    """Name → shape, filled by what layers have."""

    def linear(self, name: str, n_in: int, n_out: int, bias: bool = True) -> None:
        self[f"{name}.weight"] = (n_out, n_in)
        if bias:
            self[f"{name}.bias"] = (n_out,)

    def conv(self, name: str, n_in: int, n_out: int, size: int = 3) -> None:
        self[f"{name}.weight"] = (n_out, n_in, size, size)
        self[f"{name}.bias"] = (n_out,)

    def norm(self, name: str, width: int) -> None:
        self[f"{name}.weight"] = self[f"{name}.bias"] = (width,)


# ---- UNet ----


def _unet(names: _Names, config: Mapping) -> None:
    widths, layers, n_in = config["block_out_channels"], config["layers_per_block"], config["in_channels"]
    depths = config.get("transformer_layers_per_block", [1] * len(widths))
    attends = ["CrossAttn" in kind for kind in config["down_block_types"]]
    depths = [depth if there else 0 for depth, there in zip(depths, attends, strict=True)]
    embedding, context = 4 * widths[0], config["cross_attention_dim"]
    names.linear(f"{UNET}time_embed.0", widths[0], embedding)
    names.linear(f"{UNET}time_embed.2", embedding, embedding)
    if config.get("addition_embed_type"):
        names.linear(f"{UNET}label_emb.0.0", config["projection_class_embeddings_input_dim"], embedding)
        names.linear(f"{UNET}label_emb.0.2", embedding, embedding)

    def layer(block: str, n_in: int, width: int, depth: int) -> None:
        _residual(names, f"{UNET}{block}.0", n_in, width, embedding)
        if depth:
            _transformer(names, f"{UNET}{block}.1", width, context, depth, config["use_linear_projection"])

    names.conv(f"{UNET}input_blocks.0.0", n_in, widths[0])
    skips, width, block = [widths[0]], widths[0], 1
    for level, out in enumerate(widths):
        for _ in range(layers):
            layer(f"input_blocks.{block}", width, out, depths[level])
            width, block = out, block + 1
            skips.append(width)
        if level < len(widths) - 1:
            names.conv(f"{UNET}input_blocks.{block}.0.op", width, width)
            skips.append(width)
            block += 1
    _residual(names, f"{UNET}middle_block.0", width, width, embedding)
    middle = depths[-1] or 1  # SD has a transformer in the middle, though none in its last level
    _transformer(names, f"{UNET}middle_block.1", width, context, middle, config["use_linear_projection"])
    _residual(names, f"{UNET}middle_block.2", width, width, embedding)
    block = 0
    for level, out in reversed(list(enumerate(widths))):
        for index in range(layers + 1):
            layer(f"output_blocks.{block}", width + skips.pop(), out, depths[level])
            width = out
            if level and index == layers:
                names.conv(f"{UNET}output_blocks.{block}.{2 if depths[level] else 1}.conv", width, width)
            block += 1
    names.norm(f"{UNET}out.0", width)
    names.conv(f"{UNET}out.2", width, config["out_channels"])


def _residual(names: _Names, name: str, n_in: int, n_out: int, embedding: int) -> None:
    names.norm(f"{name}.in_layers.0", n_in)
    names.conv(f"{name}.in_layers.2", n_in, n_out)
    names.linear(f"{name}.emb_layers.1", embedding, n_out)
    names.norm(f"{name}.out_layers.0", n_out)
    names.conv(f"{name}.out_layers.3", n_out, n_out)
    if n_in != n_out:
        names.conv(f"{name}.skip_connection", n_in, n_out, 1)


def _transformer(names: _Names, name: str, width: int, context: int, depth: int, linear: bool) -> None:
    project = names.linear if linear else lambda n, i, o: names.conv(n, i, o, 1)
    names.norm(f"{name}.norm", width)
    project(f"{name}.proj_in", width, width)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, attended in (("attn1", width), ("attn2", context)):
            names.linear(f"{block}.{attention}.to_q", width, width, bias=False)
            names.linear(f"{block}.{attention}.to_k", attended, width, bias=False)
            names.linear(f"{block}.{attention}.to_v", attended, width, bias=False)
            names.linear(f"{block}.{attention}.to_out.0", width, width)
        names.linear(f"{block}.ff.net.0.proj", width, 8 * width)
        names.linear(f"{block}.ff.net.2", 4 * width, width)
        for norm in ("norm1", "norm2", "norm3"):
            names.norm(f"{block}.{norm}", width)
    project(f"{name}.proj_out", width, width)


# ---- VAE ----


def _vae(names: _Names, config: Mapping) -> None:
    widths, layers, latent = config["block_out_channels"], config["layers_per_block"], config["latent_channels"]
    width, last = widths[0], len(widths) - 1
    names.conv(f"{VAE}encoder.conv_in", config["in_channels"], width)
    for level, out in enumerate(widths):
        for index in range(layers):
            _vae_residual(names, f"{VAE}encoder.down.{level}.block.{index}", width, out)
            width = out
        if level < last:
            names.conv(f"{VAE}encoder.down.{level}.downsample.conv", width, width)
    _vae_middle(names, f"{VAE}encoder", width)
    names.conv(f"{VAE}encoder.conv_out", width, 2 * latent)
    names.conv(f"{VAE}quant_conv", 2 * latent, 2 * latent, 1)
    names.conv(f"{VAE}post_quant_conv", latent, latent, 1)
    names.conv(f"{VAE}decoder.conv_in", latent, width)
    for level, out in reversed(list(enumerate(widths))):
        for index in range(layers + 1):
            _vae_residual(names, f"{VAE}decoder.up.{level}.block.{index}", width, out)
            width = out
        if level:
            names.conv(f"{VAE}decoder.up.{level}.upsample.conv", width, width)
    _vae_middle(names, f"{VAE}decoder", widths[-1], ends=width)
    names.conv(f"{VAE}decoder.conv_out", width, config["out_channels"])


def _vae_residual(names: _Names, name: str, n_in: int, n_out: int) -> None:
    names.norm(f"{name}.norm1", n_in)
    names.conv(f"{name}.conv1", n_in, n_out)
    names.norm(f"{name}.norm2", n_out)
    names.conv(f"{name}.conv2", n_out, n_out)
    if n_in != n_out:
        names.conv(f"{name}.nin_shortcut", n_in, n_out, 1)


def _vae_middle(names: _Names, side: str, width: int, ends: int | None = None) -> None:
    for block in ("block_1", "block_2"):
        _vae_residual(names, f"{side}.mid.{block}", width, width)
    names.norm(f"{side}.mid.attn_1.norm", width)
    for projection in ("q", "k", "v", "proj_out"):
        names.conv(f"{side}.mid.attn_1.{projection}", width, width, 1)
    names.norm(f"{side}.norm_out", ends or width)


# ---- text encoders ----


def _clip(names: _Names, start: str, config: Mapping) -> None:
    """OpenAI's CLIP, as transformers names it."""
    width, inner = config["hidden_size"], config["intermediate_size"]
    names[f"{start}embeddings.token_embedding.weight"] = (config["vocab_size"], width)
    names[f"{start}embeddings.position_embedding.weight"] = (config["max_position_embeddings"], width)
    names[f"{start}embeddings.position_ids"] = (1, config["max_position_embeddings"])
    for index in range(config["num_hidden_layers"]):
        layer = f"{start}encoder.layers.{index}"
        for projection in ("q_proj", "k_proj", "v_proj", "out_proj"):
            names.linear(f"{layer}.self_attn.{projection}", width, width)
        names.norm(f"{layer}.layer_norm1", width)
        names.norm(f"{layer}.layer_norm2", width)
        names.linear(f"{layer}.mlp.fc1", width, inner)
        names.linear(f"{layer}.mlp.fc2", inner, width)
    names.norm(f"{start}final_layer_norm", width)


def _open_clip(names: _Names, start: str, config: Mapping) -> None:
    width, inner = config["hidden_size"], config["intermediate_size"]
    names[f"{start}token_embedding.weight"] = (config["vocab_size"], width)
    names[f"{start}positional_embedding"] = (config["max_position_embeddings"], width)
    for index in range(config["num_hidden_layers"]):
        layer = f"{start}transformer.resblocks.{index}"
        names.norm(f"{layer}.ln_1", width)
        names.norm(f"{layer}.ln_2", width)
        names[f"{layer}.attn.in_proj_weight"], names[f"{layer}.attn.in_proj_bias"] = (3 * width, width), (3 * width,)
        names.linear(f"{layer}.attn.out_proj", width, width)
        names.linear(f"{layer}.mlp.c_fc", width, inner)
        names.linear(f"{layer}.mlp.c_proj", inner, width)
    names.norm(f"{start}ln_final", width)
    names[f"{start}text_projection"] = (width, config["projection_dim"])
    names[f"{start}logit_scale"] = ()
