"""A model's parts as diffusers and transformers have them, from one checkpoint file or a diffusers folder.

Each part is built empty and takes its tensors one by one, only its own: the network and what encodes the data need
never be in memory together. A file's weights are kept bit for bit unless another number format is asked for.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextModel, CLIPTokenizer

from tcd_core import VPSchedule

from . import configs
from .complete import check_tensors, place_of
from .detect import ModelFile, Prediction, check, inspect
from .names import diffusers, original, prefixes
from .vocabulary import LENGTH, tokenizers
from .vocabulary import vocabulary as vocabulary_of_clip
from .weights import ModelError, Weights

Dtype = torch.dtype | str | None  # torch's, or "bf16", "fp16", "fp32"; None: as in the file, tensor by tensor
Device = torch.device | str


class Encoders(NamedTuple):
    """What encodes pictures and captions: a VAE, and text encoders with their tokenizers (SDXL: two)."""

    vae: AutoencoderKL
    text_encoders: list[CLIPTextModel]
    tokenizers: list[CLIPTokenizer]


class Parts(NamedTuple):
    """A whole model. The second of SDXL's text encoders is a CLIPTextModelWithProjection."""

    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text_encoders: list[CLIPTextModel]
    tokenizers: list[CLIPTokenizer]
    prediction: Prediction
    zero_terminal_snr: bool
    schedule: VPSchedule


def load(
    path: str | Path,
    family: str,
    *,
    config: str | Path = "",
    vocabulary: str | Path = "",
    prediction: str = "auto",
    zero_terminal_snr: bool = False,
    dtype: Dtype = "fp32",
    vae_dtype: Dtype = "fp32",
    device: Device = "cpu",
) -> Parts:
    """All of a model: what it is, is found out and compared with the recipe's family first.

    Args:
        path: a .safetensors file, a diffusers folder, or a Hub name, which alone needs the network.
        family: the recipe's: "sd15", "sd21", "sd21v" or "sdxl".
        config: for a file of other sizes than the family's own: a folder of diffusers configs.
        vocabulary: a folder with another vocab.json and merges.txt than CLIP's own.
        prediction, zero_terminal_snr: the recipe's, see `check`.
        dtype: of UNet and text encoders.
        vae_dtype: of the VAE; SDXL's overflows in fp16.

    Raises:
        ModelError: it can't be used; the message says why, and what to give instead.
    """
    found = inspect(path, config)
    kind = check(found, family, prediction, zero_terminal_snr)
    encoders = load_encoders(found, vocabulary=vocabulary, dtype=dtype, vae_dtype=vae_dtype, device=device)
    return Parts(load_unet(found, dtype=dtype, device=device), *encoders, *kind, schedule(found, kind[1]))


def load_unet(found: ModelFile, *, dtype: Dtype = "bf16", device: Device = "cpu") -> UNet2DConditionModel:
    """The network alone, frozen, in evaluation mode. Raises ModelError if its file was changed or damaged meanwhile."""
    return _load(found, "unet", dtype, device)


def load_vae(found: ModelFile, *, dtype: Dtype = "fp32", device: Device = "cpu") -> AutoencoderKL:
    """The VAE alone; its `config.scaling_factor` is the latents'. SDXL's overflows in fp16: bf16 or fp32."""
    return _load(found, "vae", dtype, device)


def load_encoders(
    found: ModelFile,
    *,
    vocabulary: str | Path = "",
    dtype: Dtype = "fp32",
    vae_dtype: Dtype = "fp32",
    device: Device = "cpu",
) -> Encoders:
    """What encodes the data, without the network; see `load`."""
    made = load_tokenizers(found, vocabulary)
    return Encoders(
        load_vae(found, dtype=vae_dtype, device=device), load_text_encoders(found, dtype=dtype, device=device), made
    )


def load_text_encoders(found: ModelFile, *, dtype: Dtype = "fp32", device: Device = "cpu") -> list[CLIPTextModel]:
    """The text encoders alone, SDXL's two; see `load`."""
    texts = [part for part in configs.PARTS[found.family] if part.startswith("text_encoder")]
    return [_load(found, part, dtype, device) for part in texts]


def load_tokenizers(found: ModelFile, vocabulary: str | Path = "") -> list[CLIPTokenizer]:
    """The tokenizers of a model's text encoders: a diffusers folder's own, else CLIP's; see `vocabulary`."""
    own = [] if found.single or vocabulary else [found.path / name for name in ("tokenizer", "tokenizer_2")]
    made = tokenizers(found.family, vocabulary)
    for index, folder in enumerate(own[: len(made)]):
        if folder.is_dir():
            made[index] = _own_tokenizer(folder, made[index])
    for index, tokenizer in enumerate(made):
        known = found.configs["text_encoder" if index == 0 else f"text_encoder_{index + 1}"]["vocab_size"]
        if len(tokenizer) > known:
            raise ModelError(
                f"the vocabulary has {len(tokenizer):,} tokens, {found.path}'s text encoder knows {known:,}: "
                "give the vocabulary that belongs to it (model.vocabulary)"
            )
    return made


def schedule(found: ModelFile, zero_terminal_snr: bool = False) -> VPSchedule:
    """The noise schedule that the model was trained on: its scheduler config's, for a file Stable Diffusion's own."""
    return configs.schedule(found.configs.get(configs.SCHEDULER, {}), zero_terminal_snr)


def _load(found: ModelFile, part: str, dtype: Dtype, device: Device) -> nn.Module:
    config, dtype = found.configs[part], configs.number_format(dtype)
    places, starts = _places(found, part, config)
    weights = Weights(found.files[part])
    check_tensors(found.path, part, config, weights, places, starts, False)
    model, tensors = configs.skeleton(part, config), {}
    with weights.reading() as read:
        for name, shape in configs.shapes(part, config).items():
            place = place_of(name, places, weights)
            value = place.take(read(place.key)).reshape(shape)
            tensors[name] = value.to(device=device, dtype=dtype, copy=True).contiguous()
    model.load_state_dict(tensors, assign=True)
    return model.to(device).eval().requires_grad_(False)


def _places(found: ModelFile, part: str, config: Mapping):
    if found.single:
        return original(found.family, part, config), prefixes(found.family, part)
    return diffusers(part), ()


def _own_tokenizer(folder: Path, standard: CLIPTokenizer) -> CLIPTokenizer:
    """A folder's tokenizer; where its tokens are CLIP's, the standard one with the folder's pad token.

    Read as it stands, SDXL's and SD 2.1's would take each "!" of a caption for padding.
    """
    try:
        made = CLIPTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers has many errors for broken files
        raise ModelError(f"the tokenizer in {folder} can't be read: {error}") from error
    if made.get_vocab() == vocabulary_of_clip():
        standard.pad_token = made.pad_token
        return standard
    made.model_max_length = LENGTH
    return made
