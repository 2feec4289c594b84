"""The features in which the digits are compared: those of four small classifiers, trained here, always in the same way.

A distance in one classifier's features depends on its training seed, so distances are the mean over four. Seeds, data
(the training half alone), steps and architecture are part of the metric: change one and figures of two versions of this
project no longer compare. On other processors the weights differ by rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from .classifiers import convolution, train_classifier

FEATURES = 32
SEEDS = (0, 1, 2, 3)
_STEPS, _BATCH, _LR = 800, 64, 2e-3


class DigitClassifier(nn.Module):
    """8 × 8 grey pictures in [−1, 1] → 32 features → 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            *convolution(1, 32),
            *convolution(32, 32),
            nn.MaxPool2d(2),
            *convolution(32, 64),
            *convolution(64, 64),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.3),
            nn.Linear(64 * 4, FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(FEATURES, 10)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, pictures: Tensor) -> Tensor:
        """Class scores, shape (n, 10)."""
        return self.head(self.body(pictures))

    @torch.no_grad()
    def read(self, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Penultimate features over ``scale``, shape (n, 32), and log-probabilities of the classes, (n, 10)."""
        features = self.body(pictures.clamp(-1, 1))
        return features / self.scale, self.head(features).log_softmax(1)


def train_classifiers(pictures: Tensor, labels: Tensor) -> list[DigitClassifier]:
    """The classifiers, in evaluation mode."""
    return [_train(pictures, labels, seed) for seed in SEEDS]


def accuracy(scores: Sequence[Tensor], labels: Tensor) -> float:
    """Share of pictures that classifiers with these scores together recognise as their class."""
    return (sum(scores).argmax(1) == labels).float().mean().item()


def _train(pictures: Tensor, labels: Tensor, seed: int) -> DigitClassifier:
    """One of them, on the pictures as they are."""

    def loss(model: DigitClassifier, rows: Tensor) -> Tensor:
        return functional.cross_entropy(model(pictures[rows]), labels[rows])

    model = train_classifier(DigitClassifier, loss, len(labels), seed, steps=_STEPS, batch=_BATCH, lr=_LR)
    model.scale = model.read(pictures)[0].var(0).mean().sqrt()  # the training features' variances are 1 on average
    return model
