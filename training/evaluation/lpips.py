"""LPIPS between pictures, by torchmetrics, which carries its linear layers; AlexNet's weights are torchvision's."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from .weights import Unavailable, Weights, library, told

ALEXNET = "alexnet-owt-7be5be79.pth"
ALEXNET_URL = f"https://download.pytorch.org/models/{ALEXNET}"


class Lpips:
    """Distances (B,) of pictures (B, 3, H, W) uint8 from others of the same size."""

    def __init__(self, weights: Weights, device: torch.device) -> None:
        path = weights.file((ALEXNET,), url=ALEXNET_URL, size="244 MB")
        try:
            from torchmetrics.image.lpip import LearnedPerceptualImagePatchSimilarity
        except Exception as error:  # missing, or its torchvision does not go with this torch
            raise Unavailable(
                f"torchmetrics or torchvision cannot be imported ({type(error).__name__}: {error}): pip install "
                "'tcd-toolkit[evaluate]', with the torchvision that belongs to this torch"
            ) from error
        try:
            with _hub_of(path):
                made = LearnedPerceptualImagePatchSimilarity("alex")
        except Exception as error:  # of torchvision's reading
            raise Unavailable(f"{path} is not AlexNet's weights ({error}): fetch it again") from error
        self.network, self.device = made.net.to(device).eval().requires_grad_(False), device
        self.source = f"{library('torchmetrics')}, {told(path)}"

    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        a, b = (x.to(self.device).float() / 127.5 - 1 for x in (a, b))
        return self.network(a, b).flatten()


class _hub_of:
    """Within the block torchvision finds a weight file where torch's cache of URLs would have it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        import tempfile

        self.before, self.folder = torch.hub.get_dir(), tempfile.TemporaryDirectory()
        place = Path(self.folder.name) / "checkpoints"
        place.mkdir()
        try:
            (place / self.path.name).symlink_to(self.path.resolve())
        except OSError:  # a system without links
            import shutil

            shutil.copy(self.path, place)
        torch.hub.set_dir(self.folder.name)

    def __exit__(self, *error) -> None:
        torch.hub.set_dir(self.before)
        self.folder.cleanup()
