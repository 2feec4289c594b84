"""Inception's 2,048 features of pictures, as FID and KID are worked out in.

By torch-fidelity (0.4, maintained; its network and its scaling of pictures repeat the original TensorFlow graph) from
its own weight file, or, where only that is there, by the same network as a TorchScript file, which StyleGAN's authors
made and clean-fid uses (clean-fid itself has not been released since 2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from .weights import Unavailable, Weights, library, load_state, told

WIDTH = 2048
FIDELITY = "weights-inception-2015-12-05-6726825d.pth"
FIDELITY_URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FIDELITY}"
SCRIPT = "inception-2015-12-05.pt"
SIZE = "96 MB"


class Inception:
    """Features (B, 2048) of pictures."""

    metrics = ("inception",)

    def __init__(self, weights: Weights, device: torch.device) -> None:
        path = weights.file((FIDELITY, SCRIPT), url=FIDELITY_URL, size=SIZE)
        self.device, self.by_script = device, path.name == SCRIPT
        self.network = (_script if self.by_script else _fidelity)(path).to(device)
        by = "TorchScript" if self.by_script else library("torch-fidelity")
        self.source = f"{by}, {told(path)}"

    def __call__(self, pictures: Tensor, captions: Sequence[str] = ()) -> dict[str, Tensor]:
        pictures = pictures.to(self.device)
        made = self.network(pictures, return_features=True) if self.by_script else self.network(pictures)[0]
        if made.shape[:-1] != (len(pictures),):
            raise Unavailable(f"{SCRIPT} gives {tuple(made.shape)}, no features of each picture: fetch it again")
        return {"inception": made}


def _script(path: Path) -> torch.nn.Module:
    try:
        return torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise Unavailable(f"{path} is damaged, or no TorchScript file: fetch it again") from error


def _fidelity(path: Path) -> torch.nn.Module:
    load_state(path)  # as plain data: torch-fidelity itself would unpickle anything
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except Exception as error:  # missing, or its torchvision does not go with this torch
        raise Unavailable(
            f"torch-fidelity cannot be imported ({type(error).__name__}: {error}): pip install "
            f"'tcd-toolkit[evaluate]', with the torchvision that belongs to this torch, or put {SCRIPT} into --weights"
        ) from error
    try:
        return FeatureExtractorInceptionV3(
            "inception-v3-compat", [str(WIDTH)], feature_extractor_weights_path=str(path)
        )
    except RuntimeError as error:
        raise Unavailable(f"{path} is not Inception's weights: fetch it again") from error
