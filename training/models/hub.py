"""Models by their name on the Hugging Face Hub. Everything else in this package stays off the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from pathlib import Path

from huggingface_hub import HfApi, constants, snapshot_download

from ..disk import human_size
from .configs import NAMES
from .weights import ModelError

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_FILES = re.compile(r"\.(safetensors|sft|ckpt|pt|pth|bin|gguf|json|yaml)$", re.IGNORECASE)
_WEIGHTS = re.compile(
    r"(?P<folder>\w+)/(diffusion_pytorch_model|model)(?P<shard>-\d+-of-\d+)?(?P<variant>\.fp16)?\.safetensors"
)


def is_hub_name(path: str) -> bool:
    """Whether it reads as "owner/name"."""
    return bool(_NAME.fullmatch(path)) and not _FILES.search(path)


def fetch(name: str, say: Callable[[str], None] = print) -> Path:
    """The folder of a Hub model, fetched unless it lies in the Hub's cache on this machine already.

    Args:
        name: "owner/name".
        say: told what is fetched and how large it is.

    Raises:
        ModelError: it can't be reached and isn't in the cache, or there is nothing of that name.
    """
    where = f"{constants.ENDPOINT}/{name}"
    try:
        listed = {file.rfilename: file.size or 0 for file in HfApi().model_info(name, files_metadata=True).siblings}
        files = wanted_files(listed)
        say(
            f"{name}: {human_size(sum(listed[file] for file in files))} from {where}, or from the cache on this machine"
        )
        return Path(snapshot_download(name, allow_patterns=files))
    except Exception as error:  # without network, without such a model, without a licence: each has its own errors
        problem = f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"
    try:
        return Path(snapshot_download(name, local_files_only=True))
    except Exception as error:
        raise ModelError(
            f"{name} is no file or folder here, and as a Hub name it could not be fetched ({problem}). It would be "
            f"fetched from {where}: model_index.json, and config and .safetensors weights of unet, vae, text encoders "
            "and tokenizers. Without network, give a .safetensors checkpoint or a diffusers folder (model.path)"
        ) from error


def wanted_files(listed: Iterable[str]) -> list[str]:
    """What training needs of a diffusers model's files: configs, vocabularies, weights in one variant; no pickles."""
    listed = sorted(listed)
    plain = {m["folder"] for m in map(_WEIGHTS.fullmatch, listed) if m and not m["variant"]}
    wanted = [
        file for file in listed if file == "model_index.json" or re.fullmatch(r"(scheduler|tokenizer(_2)?)/.+", file)
    ]
    for file in listed:
        folder, _, rest = file.partition("/")
        if folder not in NAMES:
            continue
        match = _WEIGHTS.fullmatch(file)
        if rest.endswith(".json") or (match and (not match["variant"] or folder not in plain)):
            wanted.append(file)
    return wanted
