"""A LoRA in anybody's file, merged into a UNet: kohya's names (the trainer's own, official TCD and LCM files), the
original model's block names (Hyper-SD), diffusers' and PEFT's.

What is not named as kohya names diffusers' modules goes through diffusers' own conversion. Whether it belongs to the
network is decided here, module by module, before anything is changed.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tcd_core.target_embedding import TARGET_EMBEDDING_PREFIX, TargetTimeEmbedding

from ..disk import reason
from ..lora_file import ALPHA, DOWN, PREFIX, UP, kohya_name, lora_modules, read_file

_TEXT_ENCODER = re.compile(r"lora_te\d?_|text_encoder")
_PARTS = (  # how diffusers and PEFT end a key → kohya's part
    (re.compile(r"[._](lora\.down|lora_linear_layer\.down|lora_A(\.[^.]+)?)\.weight$"), DOWN),
    (re.compile(r"[._](lora\.up|lora_linear_layer\.up|lora_B(\.[^.]+)?)\.weight$"), UP),
    (re.compile(r"([._]lora\.down\.weight)?\.alpha$"), ALPHA),
)
_START = re.compile(r"^(unet\.)?(base_model\.model\.)?")


class Fitting(NamedTuple):
    """A file's LoRA that fits a network, and what the caller must see to itself.

    Attributes:
        modules: module → its `DOWN`, `UP` and `ALPHA`.
        text_encoder: how many of the file's modules belong to text encoders: they are left out.
        metadata: the file's.
        target_embedding: TCF(S+)'s, whose output the caller adds.
    """

    modules: dict[str, dict[str, Tensor]]
    text_encoder: int
    metadata: dict[str, str]
    target_embedding: TargetTimeEmbedding | None

    @property
    def second_order(self) -> bool:
        """Whether it was distilled with TCF(2), by what it says of itself."""
        return self.metadata.get("tcd.form") == "tcf2"


def read(network: nn.Module, path: Path) -> Fitting:
    """A file's LoRA of a network, which may be a skeleton without weights.

    Raises:
        ValueError: the file is missing, damaged, no LoRA, or does not fit the network; counts say how much of it does.
    """
    path = Path(path)
    try:
        tensors, metadata = read_file(path)
    except OSError as error:
        raise ValueError(f"--lora: {path} cannot be read: {reason(error)}") from error
    of_texts = {re.split(r"\.(lora|alpha)", key)[0] for key in tensors if _TEXT_ENCODER.match(key)}
    tensors = {key: tensor for key, tensor in tensors.items() if not _TEXT_ENCODER.match(key)}
    tensors = _in_kohyas_names(network, tensors, metadata, path)
    _check_counts(network, tensors, path)
    try:
        embedding, modules = lora_modules(network, tensors)
    except ValueError as error:
        raise ValueError(f"{path.name}: {error}") from error
    return Fitting(modules, len(of_texts), metadata, embedding)


def merge(network: nn.Module, path: Path) -> Fitting:
    """``W ← W + (alpha / rank) B A`` for every module of the file, worked out in float32.

    Raises:
        ValueError: see `read`; the network is as it was.
    """
    found = read(network, path)
    layers = dict(network.named_modules())
    with torch.no_grad():
        for name, parts in found.modules.items():
            weight = layers[name].weight
            down, up = (parts[part].to(weight.device, torch.float32).flatten(1) for part in (DOWN, UP))
            scale = parts[ALPHA].item() / len(down)
            weight.copy_(weight.float() + scale * (up @ down).view(weight.shape))
    return found


def _in_kohyas_names(
    network: nn.Module, tensors: Mapping[str, Tensor], metadata: Mapping[str, str], path: Path
) -> dict[str, Tensor]:
    """The tensors as they are where kohya's names are diffusers' modules; else by diffusers' conversion."""
    names = {kohya_name(name) for name, _ in network.named_modules()}
    own = {key: t for key, t in tensors.items() if key.startswith(TARGET_EMBEDDING_PREFIX)}
    others = {key: t for key, t in tensors.items() if key not in own}
    stems = {key.partition(".")[0] for key in others}
    in_blocks = any(re.match(rf"{PREFIX}(input|output|middle)_blocks?_", stem) for stem in stems)
    if stems & names or (others and all(stem.startswith(PREFIX) for stem in stems) and not in_blocks):
        return dict(tensors)
    try:
        found, alphas = _loader(network).lora_state_dict(others, unet_config=network.config)
    except Exception as error:  # diffusers has a dozen kinds of them for names that it does not know
        raise ValueError(
            f"{path.name} holds no LoRA that is known here: neither kohya's, diffusers' nor PEFT's names "
            f"(first: {next(iter(others), 'none at all')})"
        ) from error
    renamed = dict(own)
    for key, tensor in {**found, **{key: torch.tensor(float(alpha)) for key, alpha in (alphas or {}).items()}}.items():
        for pattern, part in _PARTS:
            if pattern.search(key):
                stem = _START.sub("", pattern.sub("", key)).replace(".processor", "")
                stem = f"{stem}.0" if stem.endswith(".to_out") else stem  # as diffusers once named attention's last
                renamed[f"{kohya_name(stem)}.{part}"] = tensor
    for stem in {key.partition(".")[0] for key in renamed if key not in own}:
        if (alpha := _alpha_of(metadata)) is not None:
            renamed.setdefault(f"{stem}.{ALPHA}", torch.tensor(alpha))
    return renamed


def _loader(network: nn.Module):
    """diffusers' reader of LoRA files for this kind of UNet; imported here alone, for it is large."""
    logging.getLogger("transformers").setLevel(logging.ERROR)
    from diffusers.loaders import StableDiffusionLoraLoaderMixin, StableDiffusionXLLoraLoaderMixin

    sized = network.config.get("addition_embed_type") == "text_time"
    return StableDiffusionXLLoraLoaderMixin if sized else StableDiffusionLoraLoaderMixin


def _alpha_of(metadata: Mapping[str, str]) -> float | None:
    """The alpha that diffusers keeps in its adapters' metadata."""
    try:
        told = json.loads(metadata["lora_adapter_metadata"])
        return float(told["unet.lora_alpha"])
    except (KeyError, ValueError, TypeError):
        return None


def _check_counts(network: nn.Module, tensors: Mapping[str, Tensor], path: Path) -> None:
    """Refuse a file of which not every module is one of the network's, in its shape."""
    weights = {kohya_name(n): m.weight for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    parts: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        if not key.startswith(TARGET_EMBEDDING_PREFIX):
            stem, _, part = key.partition(".")
            parts.setdefault(stem, {})[part] = tensor
    if not any({DOWN, UP} <= set(of) for of in parts.values()):
        first = next(iter(tensors), "none at all")
        raise ValueError(f"{path.name} is no LoRA of a UNet: it holds no pairs of {DOWN} and {UP} (first: {first})")
    known = [stem for stem in parts if stem in weights]
    fitting = [stem for stem in known if _fits(parts[stem], weights[stem])]
    if len(fitting) == len(parts):
        return
    width = {of[DOWN].shape[1] for stem, of in parts.items() if "attn2_to_k" in stem and DOWN in of}
    made = f" It was made for a UNet that attends to text {min(width)} wide," if width else " It was made for another,"
    raise ValueError(
        f"{path.name} does not fit the model: of its {len(parts)} modules {len(known)} are in the UNet by name and "
        f"{len(fitting)} in shape.{made} this one attends to {network.config['cross_attention_dim']}: give a LoRA of "
        "the model's family"
    )


def _fits(parts: Mapping[str, Tensor], weight: Tensor) -> bool:
    if not {DOWN, UP} <= set(parts):
        return False
    down, up = parts[DOWN].shape, parts[UP].shape
    return down[1:].numel() == weight.shape[1:].numel() and up[0] == weight.shape[0] and up[1:].numel() == down[0]
