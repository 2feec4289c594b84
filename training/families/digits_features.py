"""The features in which the digits are compared: a small classifier's, trained here, always in the same way.

Seed, data (the training half alone), steps and architecture are part of the metric: change one and figures of two
versions of this project no longer compare. On other processors the weights differ by rounding.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

FEATURES = 32
_STEPS, _BATCH, _LR, _SEED = 600, 128, 2e-3, 0


class DigitClassifier(nn.Module):
    """8 × 8 grey pictures in [−1, 1] → 32 features → 10 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(1, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(64, 64, 3, padding=1),
            nn.ReLU(),
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
    def features(self, pictures: Tensor) -> Tensor:
        """Penultimate features over ``scale``, shape (n, 32)."""
        return self.body(pictures.clamp(-1, 1)) / self.scale

    @torch.no_grad()
    def accuracy(self, pictures: Tensor, labels: Tensor) -> float:
        """Share of pictures recognised as their class."""
        return (self(pictures.clamp(-1, 1)).argmax(1) == labels).float().mean().item()


def train_classifier(pictures: Tensor, labels: Tensor) -> DigitClassifier:
    """The classifier in evaluation mode; pictures shifted by up to one pixel in training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(_SEED)
        model = DigitClassifier().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=_LR, weight_decay=1e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=_STEPS)
        for _ in range(_STEPS):
            rows = torch.randint(len(labels), (_BATCH,))
            shift = torch.randint(-1, 2, (2,)).tolist()
            x = functional.pad(pictures[rows], (1, 1, 1, 1), value=-1.0)
            x = x[:, :, 1 + shift[0] : 9 + shift[0], 1 + shift[1] : 9 + shift[1]]
            functional.cross_entropy(model(x), labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval().requires_grad_(False)
    model.scale = model.features(pictures).var(0).mean().sqrt()  # the training features' variances are 1 on average
    return model
