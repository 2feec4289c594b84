"""What a family's parts are made of: diffusers' and transformers' classes, and their configs.

`configs/<family>/<part>/config.json` are the sizes of the families' own models. A model of other sizes comes with its
configs: a diffusers folder holds them, a single file needs a folder of them beside it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from accelerate import init_empty_weights
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

from tcd_core import VPSchedule

from .weights import ModelError

STANDARD = Path(__file__).parent / "configs"
TITLES = {"sd15": "Stable Diffusion 1.5", "sd21": "Stable Diffusion 2.1", "sdxl": "Stable Diffusion XL"}
PARTS = {
    "sd15": ("unet", "vae", "text_encoder"),
    "sd21": ("unet", "vae", "text_encoder"),
    "sdxl": ("unet", "vae", "text_encoder", "text_encoder_2"),
}
NAMES = {
    "unet": "UNet",
    "vae": "VAE",
    "text_encoder": "text encoder",
    "text_encoder_2": "second text encoder",
}
_CLASSES = {
    "unet": UNet2DConditionModel,
    "vae": AutoencoderKL,
    "text_encoder": CLIPTextModel,
    "text_encoder_2": CLIPTextModelWithProjection,
}
SCHEDULER = "scheduler"

Configs = Mapping[str, Mapping]  # part, and "scheduler" → its config


def read_json(path: Path) -> dict:
    """A JSON file that holds an object.

    Raises:
        ModelError: it can't be read, or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} could not be read: {error}") from error
    if not isinstance(value, dict):
        raise ModelError(f"{path} is no config: it should hold a JSON object in braces")
    return value


def read_configs(folder: Path, family: str | None = None) -> dict[str, dict]:
    """The configs in a folder, by part, as diffusers lays them out; of parts that it lacks, the family's standard.

    Raises:
        ModelError: there is no such folder, or no UNet's config in it, or a file is damaged.
    """
    folder = Path(folder)
    if not (folder / "unet" / "config.json").is_file():
        raise ModelError(
            f"{folder} holds no configs: unet/config.json is missing. It should be laid out as diffusers' folders: "
            "unet/config.json, vae/config.json, text_encoder/config.json, scheduler/scheduler_config.json"
        )
    configs = dict(read_configs(STANDARD / family)) if family else {}
    for part in (*NAMES, SCHEDULER):
        path = folder / part / ("scheduler_config.json" if part == SCHEDULER else "config.json")
        if path.is_file():
            configs[part] = read_json(path)
    return configs


def skeleton(part: str, config: Mapping) -> nn.Module:
    """A part without weights (on the meta device).

    Raises:
        ModelError: the config isn't one of this kind of model.
    """
    kind = _CLASSES[part]
    try:
        with init_empty_weights():
            if issubclass(kind, CLIPTextModel | CLIPTextModelWithProjection):
                return kind(CLIPTextConfig.from_dict(dict(config)))
            return kind.from_config(dict(config))
    except Exception as error:  # each library has its own errors for a config that makes no sense
        raise ModelError(f"the {NAMES[part]}'s config makes no sense to {kind.__name__}: {error}") from error


def shapes(part: str, config: Mapping) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a part's tensors, as its library names them."""
    return _shapes(part, json.dumps(dict(config), sort_keys=True))


@lru_cache(maxsize=16)
def _shapes(part: str, config: str) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in skeleton(part, json.loads(config)).state_dict().items()}


def schedule(config: Mapping, zero_terminal_snr: bool = False) -> VPSchedule:
    """The noise schedule of a scheduler's config; rescaled to ᾱ = 0 at the last time if ``zero_terminal_snr``.

    Raises:
        ModelError: a schedule that is none of scaled_linear, linear, or betas in a list.
    """
    count = int(config.get("num_train_timesteps", 1000))
    start, end = float(config.get("beta_start", 0.00085)), float(config.get("beta_end", 0.012))
    kind = config.get("beta_schedule", "scaled_linear")
    if config.get("trained_betas") is not None:
        made = VPSchedule.from_betas(config["trained_betas"])
    elif kind == "scaled_linear":
        made = VPSchedule.scaled_linear(count, start, end)
    elif kind == "linear":
        made = VPSchedule.from_betas(np.linspace(start, end, count))
    else:
        raise ModelError(
            f"the model's noise schedule is {kind!r}; those that can be trained on are scaled_linear and linear"
        )
    return made.zero_terminal_snr() if zero_terminal_snr else made


def number_format(dtype: torch.dtype | str | None) -> torch.dtype | None:
    """ "bf16", "fp16", "fp32" as torch's; torch's own and None as they are."""
    if not isinstance(dtype, str):
        return dtype
    known = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
    if dtype not in known:
        raise ValueError(f"dtype must be one of {', '.join(known)}, got {dtype!r}")
    return known[dtype]
