"""The student's LoRA as a file that ComfyUI, diffusers and kohya's tools load: kohya's keys with the true alpha.

Per module `lora_unet_<diffusers name, "_" for ".">`: `.lora_down.weight` A, `.lora_up.weight` B and `.alpha`, where
``W' = W + (alpha / rank) B A``. TCF(S+) files also hold the target-time embedding (`tcd_core.target_embedding`), which
only this pack's loaders know.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

import safetensors.torch
import torch
from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tcd_core.target_embedding import TARGET_EMBEDDING_PREFIX, TargetTimeEmbedding, target_embedding_tensors

from .disk import replacing
from .lora_metadata import lora_metadata

__all__ = ["LoadedLora", "kohya_name", "load_lora", "lora_layers", "lora_metadata", "save_lora"]

PREFIX = "lora_unet_"
DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"
FileDtype = Literal["fp16", "fp32"]
_DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
_FLOAT32 = 1e-6  # relative: two alphas this near are one


class LoadedLora(NamedTuple):
    """A file's metadata, and the target-time embedding that a TCF(S+) file holds: the caller adds its output."""

    metadata: dict[str, str]
    target_embedding: TargetTimeEmbedding | None


def kohya_name(module: str) -> str:
    """`down_blocks.0.attentions.0.proj_in` → `lora_unet_down_blocks_0_attentions_0_proj_in`."""
    return PREFIX + module.replace(".", "_")


def save_lora(
    path: str | os.PathLike,
    network: nn.Module,
    metadata: Mapping[str, str],
    dtype: FileDtype = "fp16",
    target_embedding: TargetTimeEmbedding | None = None,
    alpha: float | None = None,
    *,
    values: Mapping[str, Tensor] | None = None,
    adapter: str = "default",
) -> None:
    """Write a network's LoRA, whole or not at all: into a file beside it first, which then takes its name.

    Args:
        path: the .safetensors file; an older one of that name is replaced.
        network: a UNet2DConditionModel that carries peft's LoRA layers, on any device and of any dtype.
        metadata: see `lora_metadata`.
        target_embedding: TCF(S+)'s module.
        alpha: checked against the layers' own, which are what is written; None does not check.
        values: weights to save in place of the live ones (an EMA's), by the names of `network.named_parameters()`;
            names that are no LoRA weights are ignored.
        adapter: the adapter's name in peft.

    Raises:
        ValueError: no such adapter; one that is more than A and B (DoRA, biases); values that are missing or of another
            shape; another alpha; NaN or infinity, or a number too large for fp16. Nothing is written.
        OSError: the disk is full or the folder can't be written; an older file is as it was.
    """
    if dtype not in get_args(FileDtype):
        raise ValueError(f'dtype must be "fp16" or "fp32", got {dtype!r}')
    layers = lora_layers(network, adapter)
    if not layers:
        raise ValueError(f"the network carries no LoRA named {adapter!r}: add one first (network.add_adapter)")
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        down, up = _weights(name, layer, adapter, values)
        own = _alpha(layer, adapter)
        if alpha is not None and not math.isclose(own, alpha, rel_tol=_FLOAT32):
            raise ValueError(f"{name} has alpha {own:g}, not {alpha:g}: the file would change its strength")
        stem = kohya_name(name)
        tensors[f"{stem}.{DOWN}"], tensors[f"{stem}.{UP}"] = (_stored(t, name, dtype) for t in (down, up))
        tensors[f"{stem}.{ALPHA}"] = _stored_alpha(own, dtype)
    if target_embedding is not None:
        for key, tensor in target_embedding.state_dict_for_file().items():
            tensors[key] = _stored(tensor, key, dtype)
    with replacing(Path(path)) as file:
        file.write(safetensors.torch.save(tensors, metadata={**metadata, "format": "pt"}))


def load_lora(network: nn.Module, path: str | os.PathLike, adapter: str = "default") -> LoadedLora:
    """Put a file that `save_lora` wrote into a UNet2DConditionModel, whose parameters keep their device and dtype.

    A network without the adapter gets one, of the file's modules, ranks and alphas, and it is switched on; one that has
    it must have the same.

    Raises:
        ValueError: the file is damaged, holds anything but a LoRA of this kind, or does not fit the network, which is
            then as it was.
    """
    tensors, metadata = read_file(Path(path))
    try:
        embedding, modules = lora_modules(network, tensors)
        layers = lora_layers(network, adapter)
        if layers:
            _check_adapter(layers, modules, adapter)
        else:
            network.add_adapter(_config(modules), adapter)
            layers = lora_layers(network, adapter)
    except ValueError as error:
        raise ValueError(f"{Path(path).name}: {error}") from error
    with torch.no_grad():
        for name, parts in modules.items():
            layers[name].lora_A[adapter].weight.copy_(parts[DOWN])
            layers[name].lora_B[adapter].weight.copy_(parts[UP])
    return LoadedLora(metadata, embedding)


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """A safetensors file's tensors and metadata; ValueError if it is none, or damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})
    except SafetensorError as error:
        raise ValueError(f"{path.name} is no whole safetensors file ({error}): save or copy it again") from error


def lora_modules(
    network: nn.Module, tensors: Mapping[str, Tensor]
) -> tuple[TargetTimeEmbedding | None, dict[str, dict[str, Tensor]]]:
    """A file's tensors in kohya's names as (TCF(S+)'s embedding, module → its `DOWN`, `UP` and `ALPHA`).

    Raises:
        ValueError: they do not fit the network.
    """
    return _target_embedding(network, tensors), _modules(network, tensors)


def lora_layers(network: nn.Module, adapter: str = "default") -> dict[str, LoraLayer]:
    """The network's LoRA layers that have the adapter, by module name."""
    found = ((name, module) for name, module in network.named_modules() if isinstance(module, LoraLayer))
    return {name: layer for name, layer in found if adapter in layer.lora_A}


# -- saving ------------------------------------------------------------------------------------------------------------


def _weights(name: str, layer: LoraLayer, adapter: str, values: Mapping[str, Tensor] | None) -> list[Tensor]:
    """A and B of one layer, the live ones or those given."""
    own = {key: p for key, p in layer.named_parameters() if f".{adapter}." in f".{key}."}
    keys = [f"lora_{factor}.{adapter}.weight" for factor in "AB"]
    if more := sorted(set(own) - set(keys)):
        raise ValueError(f"{name} has {', '.join(more)}, which a plain LoRA file can't hold: train without it")
    if values is None:
        return [own[key] for key in keys]
    given = [values.get(f"{name}.{key}") for key in keys]
    for key, tensor in zip(keys, given, strict=True):
        shape = tuple(own[key].shape)
        if tensor is None or tuple(tensor.shape) != shape:
            what = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
            raise ValueError(f"the values to save do not fit: {name}.{key} {what}, expected {shape}")
    return given


def _alpha(layer: LoraLayer, adapter: str) -> float:
    """The alpha that makes alpha / rank the layer's factor: its own, unless that is rank-stabilised."""
    alpha, rank, scaling = (of[adapter] for of in (layer.lora_alpha, layer.r, layer.scaling))
    return float(alpha if scaling == alpha / rank else scaling * rank)


def _stored(tensor: Tensor, name: str, dtype: FileDtype) -> Tensor:
    tensor = tensor.detach().to(device="cpu", dtype=torch.float32)
    if not torch.isfinite(tensor).all():
        raise ValueError(
            f"{name} holds NaN or infinity, so nothing was saved: the training diverged. Save an earlier checkpoint, "
            "and train with a lower learning rate or stronger clipping."
        )
    stored = tensor.to(_DTYPES[dtype])
    if not torch.isfinite(stored).all():
        raise ValueError(
            f"{name} holds {float(tensor.abs().max()):.3g}, more than fp16 can (65504), so nothing was saved: "
            "save as fp32 (dtype fp32), or train with a lower learning rate."
        )
    return stored.contiguous()


def _stored_alpha(alpha: float, dtype: FileDtype) -> Tensor:
    """alpha in the file's dtype, as kohya's tools write it, where that holds it exactly; else in float32."""
    stored = torch.tensor(alpha, dtype=_DTYPES[dtype])
    return stored if stored.item() == alpha else torch.tensor(alpha, dtype=torch.float32)


# -- loading -----------------------------------------------------------------------------------------------------------


def _modules(network: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """The file's tensors by the network's module names; ValueError unless each module's fit."""
    bases = {name: m for name, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d | BaseTunerLayer)}
    names = {kohya_name(name): name for name in bases}
    modules: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        stem, _, part = key.partition(".")
        if key.startswith(TARGET_EMBEDDING_PREFIX):
            continue
        if stem not in names or part not in (DOWN, UP, ALPHA):
            raise ValueError(f"{key} belongs to no module of this network: the file was made for another, or by others")
        modules.setdefault(names[stem], {})[part] = tensor
    if not modules:
        raise ValueError(f"holds no {PREFIX}* tensors, so it is no LoRA of this trainer")
    for name, parts in modules.items():
        if missing := {DOWN, UP} - set(parts):
            raise ValueError(f"{name} lacks {', '.join(sorted(missing))}: the file is incomplete, save it again")
        _check_shapes(name, bases[name], parts)
        parts.setdefault(ALPHA, torch.tensor(float(_rank(parts))))
    return modules


def _check_shapes(name: str, module: nn.Module, parts: Mapping[str, Tensor]) -> None:
    weight = module.get_base_layer().weight if isinstance(module, BaseTunerLayer) else module.weight
    down, up = tuple(parts[DOWN].shape), tuple(parts[UP].shape)
    rank, wide = down[0] if down else 0, weight.shape
    if down != (rank, *wide[1:]) or up != (wide[0], rank, *(1 for _ in wide[2:])):
        raise ValueError(
            f"{name} has shapes {down} and {up} in the file, the network's weight is {tuple(wide)}: the file was made "
            "for another network"
        )


def _rank(parts: Mapping[str, Tensor]) -> int:
    return parts[DOWN].shape[0]


def _config(modules: Mapping[str, Mapping[str, Tensor]]) -> LoraConfig:
    """A LoRA of exactly these modules; ranks and alphas that are not the first one's by pattern."""
    ranks = {name: _rank(parts) for name, parts in modules.items()}
    alphas = {name: parts[ALPHA].item() for name, parts in modules.items()}
    rank, alpha = (next(iter(each.values())) for each in (ranks, alphas))
    return LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=list(modules),
        rank_pattern={f"^{name}": value for name, value in ranks.items() if value != rank},
        alpha_pattern={f"^{name}": value for name, value in alphas.items() if value != alpha},
    )


def _check_adapter(layers: Mapping[str, LoraLayer], modules: Mapping[str, Mapping[str, Tensor]], adapter: str) -> None:
    if differing := sorted(set(layers) ^ set(modules)):
        raise ValueError(f"the network's LoRA {adapter!r} has other modules than the file, first {differing[0]}")
    for name, parts in modules.items():
        rank, alpha = layers[name].r[adapter], _alpha(layers[name], adapter)
        in_file = _rank(parts), parts[ALPHA].item()
        if in_file[0] != rank or not math.isclose(in_file[1], alpha, rel_tol=_FLOAT32):
            raise ValueError(
                f"{name} has rank {in_file[0]} and alpha {in_file[1]:g} in the file, {rank} and {alpha:g} in the "
                "network: load it into a network without a LoRA, which then gets the file's"
            )


def _target_embedding(network: nn.Module, tensors: Mapping[str, Tensor]) -> TargetTimeEmbedding | None:
    if not target_embedding_tensors(tensors):
        return None
    embedding = TargetTimeEmbedding.from_state_dict(tensors)
    widths = network.time_embedding.linear_1.in_features, network.time_embedding.linear_2.out_features
    if (embedding.channels, embedding.embed_dim) != widths:
        raise ValueError(
            f"its target-time embedding is {embedding.channels} to {embedding.embed_dim} wide, the network's time "
            f"embedding {widths[0]} to {widths[1]}: it was made for another network"
        )
    return embedding
