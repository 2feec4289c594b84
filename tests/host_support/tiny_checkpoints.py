"""Small random-weight checkpoints which the host's own loader takes for the real families.

What the host's detection fixes (320 model channels, the family's context width, SDXL's transformer depths) is kept;
everything else is as small as it goes: one residual block a level, no middle block, no text encoder, and a TAESD in
place of the VAE. The weights are random but not careless: a network of plain noise sends an ε-model's x̂₀ to twenty at
the first step, the decoder saturates and pictures stop depending on anything. So the ε-networks answer "the noise is
my input, plus a part that depends on input, time and text"; see `_carry_input_to_output`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

import torch
from safetensors.torch import save_file

WIDTH = 320  # the host tells SD families from others by this
CARRIED = 10  # one GroupNorm group: the channels that carry ±input to the output
SILU_RMS = 0.6  # of silu(z), z ~ N(0, 1)


@dataclass(frozen=True)
class Family:
    """One kind of checkpoint: what a workflow must feed it, and the network's shape."""

    file: str
    context: int
    pooled: int  # width of pooled_output; 0: none needed
    channels: int  # latent channels
    vae_scale: float
    vae_shift: float = 0.0
    depths: tuple[int, ...] = ()  # transformer blocks per level, on the way down
    depths_up: tuple[int, ...] = ()  # and up
    linear: bool = False  # proj_in/proj_out as Linear, as SD2 and SDXL have them
    carry: float = 1.0  # how much of the (normalised) input the output holds
    residual: float = 1.0  # rms of the part that depends on everything


FAMILIES = {
    "sd15": Family("tiny_sd15.safetensors", 768, 0, 4, 0.18215, depths=(1,), depths_up=(1,), residual=0.3),
    "sd21v": Family("tiny_sd21v.safetensors", 1024, 0, 4, 0.18215, depths=(1,), depths_up=(1,), linear=True, carry=0.0),
    "sdxl": Family(
        "tiny_sdxl.safetensors",
        2048,
        1280,
        4,
        0.13025,
        depths=(0, 2, 5),
        depths_up=(0, 1, 1),
        linear=True,
        residual=0.27,
    ),
    "sd3": Family("tiny_sd3.safetensors", 4096, 2048, 16, 1.5305, 0.0609, residual=0.7),
}
SDXL_ADM = 2816  # 1280 pooled + 6 × 256 sizes


class Weights(dict):
    """A state dict that draws its own entries; one generator, so the order of the calls is part of the seed."""

    def __init__(self, seed: int, prefix: str):
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)
        self.prefix = prefix

    def draw(self, name: str, *shape: int, std: float = 1.0, mean: float = 0.0) -> torch.Tensor:
        value = torch.randn(shape, generator=self.generator) * std + mean
        self[self.prefix + name] = value
        return value

    def at(self, name: str) -> torch.Tensor:
        return self[self.prefix + name]

    def linear(self, name: str, n_in: int, n_out: int, gain: float = 1.0, bias: bool = True) -> None:
        self.draw(f"{name}.weight", n_out, n_in, std=gain / sqrt(n_in))
        if bias:
            self.draw(f"{name}.bias", n_out, std=0.1)

    def conv(self, name: str, n_in: int, n_out: int, size: int = 3, gain: float = 1.0, bias: bool = True) -> None:
        self.draw(f"{name}.weight", n_out, n_in, size, size, std=gain / (size * sqrt(n_in)))
        if bias:
            self.draw(f"{name}.bias", n_out, std=0.1)

    def norm(self, name: str, width: int) -> None:
        self.draw(f"{name}.weight", width, std=0.1, mean=1.0)
        self.draw(f"{name}.bias", width, std=0.1)


def _residual_block(w: Weights, name: str, n_in: int, n_out: int) -> None:
    w.norm(f"{name}.in_layers.0", n_in)
    w.conv(f"{name}.in_layers.2", n_in, n_out, gain=1 / SILU_RMS)
    w.linear(f"{name}.emb_layers.1", 4 * WIDTH, n_out, gain=1 / SILU_RMS)
    w.norm(f"{name}.out_layers.0", n_out)
    w.conv(f"{name}.out_layers.3", n_out, n_out, gain=1 / SILU_RMS)
    if n_in != n_out:
        w.conv(f"{name}.skip_connection", n_in, n_out, size=1)


def _transformer(w: Weights, name: str, depth: int, family: Family) -> None:
    project = w.linear if family.linear else lambda n, i, o: w.conv(n, i, o, size=1)
    w.norm(f"{name}.norm", WIDTH)
    project(f"{name}.proj_in", WIDTH, WIDTH)
    for index in range(depth):
        block = f"{name}.transformer_blocks.{index}"
        for attention, context in (("attn1", WIDTH), ("attn2", family.context)):
            w.linear(f"{block}.{attention}.to_q", WIDTH, WIDTH, bias=False)
            w.linear(f"{block}.{attention}.to_k", context, WIDTH, bias=False)
            w.linear(f"{block}.{attention}.to_v", context, WIDTH, bias=False)
            w.linear(f"{block}.{attention}.to_out.0", WIDTH, WIDTH)
        w.linear(f"{block}.ff.net.0.proj", WIDTH, 8 * WIDTH)
        w.linear(f"{block}.ff.net.2", 4 * WIDTH, WIDTH)
        for norm in ("norm1", "norm2", "norm3"):
            w.norm(f"{block}.{norm}", WIDTH)
    project(f"{name}.proj_out", WIDTH, WIDTH)


def _way_down(w: Weights, family: Family) -> int:
    """Embeddings and input blocks, which a U-Net and its ControlNets share; returns how many blocks there are."""
    w.linear("time_embed.0", WIDTH, 4 * WIDTH)
    w.linear("time_embed.2", 4 * WIDTH, 4 * WIDTH, gain=1 / SILU_RMS)
    if family.pooled:
        w.linear("label_emb.0.0", SDXL_ADM, 4 * WIDTH)
        w.linear("label_emb.0.2", 4 * WIDTH, 4 * WIDTH, gain=1 / SILU_RMS)
    w.conv("input_blocks.0.0", family.channels, WIDTH)
    block, last_level = 1, len(family.depths) - 1
    for level, depth in enumerate(family.depths):
        _residual_block(w, f"input_blocks.{block}.0", WIDTH, WIDTH)
        if depth:
            _transformer(w, f"input_blocks.{block}.1", depth, family)
        block += 1
        if level < last_level:
            w.conv(f"input_blocks.{block}.0.op", WIDTH, WIDTH)
            block += 1
    return block


def _unet(w: Weights, family: Family) -> None:
    """The latent-diffusion U-Net's names and shapes, every level 320 wide."""
    _way_down(w, family)
    block = 0
    for level, depth in reversed(list(enumerate(family.depths_up))):
        for last in (False, True):
            _residual_block(w, f"output_blocks.{block}.0", 2 * WIDTH, WIDTH)
            if depth and last:
                _transformer(w, f"output_blocks.{block}.1", depth, family)
            if level and last:
                w.conv(f"output_blocks.{block}.{2 if depth else 1}.conv", WIDTH, WIDTH)
            block += 1
    w.norm("out.0", WIDTH)
    w.conv("out.2", WIDTH, family.channels)
    _carry_input_to_output(w, family, last_block=block - 1)


def _carry_input_to_output(w: Weights, family: Family, last_block: int) -> None:
    """Make the output `carry · x/rms(x) + residual · f(x, t, context)`.

    The first convolution puts +x and −x into the first GroupNorm group; the last output block, which gets that
    convolution's result through the longest skip, passes the group on untouched; silu(z) − silu(−z) = z gives x back.
    """
    channels = family.channels
    first, first_bias = w.at("input_blocks.0.0.weight"), w.at("input_blocks.0.0.bias")
    first[:CARRIED], first_bias[:CARRIED] = 0.0, 0.0
    out = w.at("out.2.weight")
    out *= family.residual / SILU_RMS
    w.at("out.2.bias").mul_(family.residual)
    out[:, :CARRIED] = 0.0
    for channel in range(channels):
        for sign, row in ((1.0, channel), (-1.0, channels + channel)):
            first[row, channel, 1, 1] = sign
            out[channel, row, 1, 1] = sign * family.carry * sqrt(2 * channels / CARRIED)
    last = f"output_blocks.{last_block}"
    skip = w.at(f"{last}.0.skip_connection.weight")
    skip[:CARRIED] = 0.0
    skip[torch.arange(CARRIED), WIDTH + torch.arange(CARRIED)] = 1.0
    w.at(f"{last}.0.skip_connection.bias")[:CARRIED] = 0.0
    silent = [f"{last}.0.out_layers.3"] + [f"{last}.1.proj_out"] * (f"{w.prefix}{last}.1.proj_out.weight" in w)
    for name in silent:
        w.at(f"{name}.weight")[:CARRIED] = 0.0
        w.at(f"{name}.bias")[:CARRIED] = 0.0
    w.at("out.0.weight")[:CARRIED] = 1.0
    w.at("out.0.bias")[:CARRIED] = 0.0


def _controlnet(w: Weights, family: Family) -> None:
    """A ControlNet for the family's U-Net, in its authors' own format; the hint is a picture of 8 × the latent."""
    blocks = _way_down(w, family)
    _residual_block(w, "middle_block.0", WIDTH, WIDTH)
    for block in range(blocks):
        w.conv(f"zero_convs.{block}.0", WIDTH, WIDTH, size=1, gain=0.1)
    w.conv("middle_block_out.0", WIDTH, WIDTH, size=1, gain=0.1)
    widths = (3, 16, 16, 32, 32, 96, 96, 256, WIDTH)
    for index, (n_in, n_out) in enumerate(zip(widths, widths[1:], strict=False)):
        w.conv(f"input_hint_block.{2 * index}", n_in, n_out, gain=1 / SILU_RMS)


def _mmdit(w: Weights, family: Family, side: int = 32) -> None:
    """SD3's transformer with one joint block (hidden width 64 × depth), for latents up to 2 · side."""
    width, patch = 64, 2
    w.conv("x_embedder.proj", family.channels, width, size=patch)
    w.draw("pos_embed", 1, side * side, width, std=0.3)
    for name, n_in in (("t_embedder", 256), ("y_embedder", family.pooled)):
        w.linear(f"{name}.mlp.0", n_in, width)
        w.linear(f"{name}.mlp.2", width, width, gain=1 / SILU_RMS)
    w.linear("context_embedder", family.context, width)
    for stream, modulations in (("context_block", 2), ("x_block", 6)):
        block = f"joint_blocks.0.{stream}"
        w.linear(f"{block}.attn.qkv", width, 3 * width)
        w.linear(f"{block}.adaLN_modulation.1", width, modulations * width, gain=1 / SILU_RMS)
    w.linear("joint_blocks.0.x_block.attn.proj", width, width, gain=2.0)
    w.linear("joint_blocks.0.x_block.mlp.fc1", width, 4 * width)
    w.linear("joint_blocks.0.x_block.mlp.fc2", 4 * width, width, gain=2.0)
    w.linear("final_layer.linear", width, patch * patch * family.channels, gain=family.residual)
    w.linear("final_layer.adaLN_modulation.1", width, 2 * width, gain=0.5)


def _taesd(w: Weights, family: Family) -> None:
    """A Tiny AutoEncoder in place of the VAE: a few milliseconds a picture."""

    def blocks(side: str, indices: Iterable[int]) -> None:
        for index in indices:
            for layer in (0, 2, 4):
                w.conv(f"taesd_{side}.{index}.conv.{layer}", 64, 64, gain=0.8)

    def conv(side: str, index: int, n_in: int, n_out: int, gain: float = 1.4, bias: bool = True) -> None:
        w.conv(f"taesd_{side}.{index}", n_in, n_out, gain=gain, bias=bias)

    conv("decoder", 1, family.channels, 64)
    blocks("decoder", (3, 4, 5, 8, 9, 10, 13, 14, 15, 18))
    for index in (7, 12, 17):
        conv("decoder", index, 64, 64, bias=False)
    conv("decoder", 19, 64, 3, gain=0.25)
    w.at("taesd_decoder.19.bias").fill_(0.5)  # mid grey
    conv("encoder", 0, 3, 64, gain=4.0)
    blocks("encoder", (1, 3, 4, 5, 7, 8, 9, 11, 12, 13))
    for index in (2, 6, 10):
        conv("encoder", index, 64, 64, bias=False)
    conv("encoder", 14, 64, family.channels, gain=1.0)
    w[w.prefix + "vae_scale"] = torch.tensor(family.vae_scale)
    w[w.prefix + "vae_shift"] = torch.tensor(family.vae_shift)


def state_dict(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """The named family's checkpoint ("sd15", "sd21v", "sdxl" or "sd3") with its file's own key names, in fp16."""
    family = FAMILIES[name]
    net = Weights(seed, "model.diffusion_model.")
    (_mmdit if name == "sd3" else _unet)(net, family)
    if name == "sd21v":  # a tensor nothing loads, by whose spread the host tells SD2.1-v from SD2.1-ε
        net.draw("output_blocks.11.1.transformer_blocks.0.norm1.bias", WIDTH, std=0.5)
    vae = Weights(seed + 1, "first_stage_model.")
    _taesd(vae, family)
    return {key: value.half() for key, value in {**net, **vae}.items()}


def controlnet(name: str, seed: int = 0) -> dict[str, torch.Tensor]:
    """A ControlNet for the named family ("sd15", "sd21v" or "sdxl"), in fp16."""
    net = Weights(seed + 2, "control_model.")
    _controlnet(net, FAMILIES[name])
    return {key: value.half() for key, value in net.items()}


def write(name: str, folder: Path, seed: int = 0) -> Path:
    """Save the named family's checkpoint into `folder` and return its path."""
    path = folder / FAMILIES[name].file
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on a busy machine several take seven times as long, waiting for each other
    try:
        save_file(state_dict(name, seed), path)
    finally:
        torch.set_num_threads(threads)
    return path
