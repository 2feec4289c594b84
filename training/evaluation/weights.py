"""Where the metrics' weights are looked for: a folder of one's own, then the caches of this machine, then their source.

Nothing is fetched unless it is asked for: they are gigabytes.
"""

from __future__ import annotations

import hashlib
import pickle
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from huggingface_hub import hf_hub_download, snapshot_download


class Unavailable(ValueError):
    """A metric cannot be computed; the message is a line on what is missing and where to put it."""


@dataclass(frozen=True)
class Weights:
    """Finds weights.

    Attributes:
        folder: looked in first; None: none.
        fetch: whether what is found nowhere is downloaded.
    """

    folder: Path | None = None
    fetch: bool = False

    def file(self, names: tuple[str, ...], repository: str = "", url: str = "", size: str = "") -> Path:
        """The first file of these names in the folder; else one of a Hub repository, or of torch's cache of URLs.

        Raises:
            Unavailable: it is nowhere, and may not or cannot be fetched.
        """
        for name in names:
            if self.folder and (self.folder / name).is_file():
                return self.folder / name
        name, where = names[0], f"{repository}/{names[0]}" if repository else url
        cached = Path(torch.hub.get_dir()) / "checkpoints" / name
        try:
            if repository:
                return Path(hf_hub_download(repository, name, local_files_only=not self.fetch))
            if not cached.is_file() and self.fetch:
                cached.parent.mkdir(parents=True, exist_ok=True)
                torch.hub.download_url_to_file(url, str(cached), progress=False)
        except Exception as error:  # without network, without such a file: each library has its own errors
            raise Unavailable(self._missing(name, where, size, error)) from error
        if not cached.is_file():
            raise Unavailable(self._missing(name, where, size))
        return cached

    def repository(self, name: str, files: tuple[str, ...], size: str = "") -> Path:
        """The folder of a Hub repository's files: one of its last name in the folder, else in the Hub's cache.

        Raises:
            Unavailable: as `file`.
        """
        own = self.folder / name.rpartition("/")[2] if self.folder else None
        if own and own.is_dir():
            return own
        try:
            return Path(snapshot_download(name, allow_patterns=list(files), local_files_only=not self.fetch))
        except Exception as error:
            raise Unavailable(self._missing(name.rpartition("/")[2], name, size, error)) from error

    def _missing(self, name: str, where: str, size: str, error: Exception | None = None) -> str:
        size = f", {size}" if size else ""
        if not self.fetch:
            return (
                f"its weights are not on this machine: put {name} ({where}{size}) into --weights FOLDER, or add --fetch"
            )
        lines = str(error).strip().splitlines() if error else []
        problem = f"{type(error).__name__}: {lines[0]}" if lines else "not found"
        return f"its weights could not be fetched from {where} ({problem}): put {name} into --weights FOLDER"


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """A state dict from a .safetensors file or a pickle, of which nothing but plain data is unpickled.

    Raises:
        Unavailable: it is damaged, or holds more than tensors.
    """
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
        return state.get("state_dict", state)
    except (OSError, RuntimeError, ValueError, EOFError, AttributeError, pickle.UnpicklingError) as error:
        raise Unavailable(
            f"{path} is damaged, or no plain state dict ({type(error).__name__}): fetch it again"
        ) from error
    except Exception as error:  # safetensors has an error of its own
        raise Unavailable(f"{path} could not be read ({error}): fetch it again") from error


def told(path: Path) -> str:
    """A weight file in words: its name and the beginning of its SHA-256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return f"{path.name} (sha256 {digest.hexdigest()[:12]})"


def library(name: str) -> str:
    """``"torch-fidelity 0.4.0"``."""
    try:
        return f"{name} {version(name)}"
    except PackageNotFoundError:
        return f"{name} (not installed as a package)"
