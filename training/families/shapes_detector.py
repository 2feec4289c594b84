"""The detectors that shapes are judged by: networks that read a scene's attributes off its picture.

Trained here, always in the same way, on real training scenes. Their penultimate features are what Fréchet distances are
taken in, the mean over the detectors; what they together see is compared with what a caption asks for. Seeds, data,
steps and architecture are part of the metric: change one and figures of two versions of this project no longer compare.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .classifiers import convolution, train_classifier
from .shapes_pictures import as_floats
from .shapes_scenes import ABSENT, CLASSES

FEATURES = 64
SEEDS = (0, 1)
_STEPS, _BATCH, _LR = 2000, 64, 4e-3


class ShapesDetector(nn.Module):
    """32 × 32 pictures in [−1, 1] → 64 features → scores of the classes of every attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.PixelUnshuffle(2),
            *convolution(12, 48),
            *convolution(48, 64, stride=2),
            *convolution(64, 96),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(96 * 16, 256),
            nn.BatchNorm1d(256),
            nn.ReLU(),
            nn.Linear(256, FEATURES),
        )
        self.head = nn.Sequential(nn.ReLU(), nn.Linear(FEATURES, sum(CLASSES)))
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Scores of the classes, (n, classes) for each of `ATTRIBUTES`."""
        return self.head(self.body(pictures)).split(CLASSES, dim=1)

    @torch.no_grad()
    def read(self, pictures: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Penultimate features over ``scale``, (n, 64), and log-probabilities of every attribute's classes."""
        features = torch.cat([self.body(part.clamp(-1, 1)) for part in pictures.split(512)])
        scores = self.head(features).split(CLASSES, dim=1)
        return features / self.scale, tuple(of.log_softmax(1) for of in scores)


def train_detectors(pictures: Tensor, attributes: Tensor) -> list[ShapesDetector]:
    """The detectors, in evaluation mode, of pictures in 8 bits; attributes as `shapes_scenes.attributes` gives them."""
    return [_train(pictures, attributes, seed) for seed in SEEDS]


def _train(pictures: Tensor, attributes: Tensor, seed: int) -> ShapesDetector:
    def loss(model: ShapesDetector, rows: Tensor) -> Tensor:
        scores = model(as_floats(pictures[rows]))
        told = attributes[rows].unbind(1)
        return (
            sum(
                functional.cross_entropy(of, wanted, ignore_index=ABSENT, reduction="sum")
                for of, wanted in zip(scores, told, strict=True)
            )
            / (attributes[rows] != ABSENT).sum()
        )

    model = train_classifier(ShapesDetector, loss, len(pictures), seed, steps=_STEPS, batch=_BATCH, lr=_LR)
    features, _ = model.read(as_floats(pictures[:4000]))
    model.scale = features.var(0).mean().sqrt()  # the training features' variances are 1 on average
    return model


def found(scores: Sequence[tuple[Tensor, ...]], asked: Tensor) -> Tensor:
    """Which attributes the detectors together find as asked: (n, attributes), NaN where none was asked.

    Args:
        scores: of each detector, for each attribute log-probabilities (n, classes).
        asked: class numbers (n, attributes), `ABSENT` where there is no such object.
    """
    seen = torch.stack([sum(of).argmax(1) for of in zip(*scores, strict=True)], dim=1)
    return torch.where(asked == ABSENT, torch.nan, (seen == asked).float())
