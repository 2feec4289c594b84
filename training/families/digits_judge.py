"""What the digits are judged by: Fréchet distances in features and in pixels, class accuracy, complexity."""

from __future__ import annotations

import torch
from torch import Tensor

from ..catalogue import DIGITS, known
from ..metrics import complexity, frechet_distance
from .digits_data import CLASSES, Split, subset_like
from .digits_features import accuracy, train_classifiers


class DigitsJudge:
    """Values of a set of generated pictures, one for each real picture and with its label.

    Attributes:
        metrics: how each is called, written and judged.
        labels: the labels to generate, those of the real pictures compared with.
        floors: the real pictures' own values: distances of the training part from the compared part, class counts and
            so n alike; accuracy and complexity of the compared part.
        floor_ranges: (least, greatest) distance between halves of all the real pictures, drawn anew 20 times: how far
            a floor depends on which pictures fall into which half.
    """

    def __init__(self, split: Split) -> None:
        self.metrics = known(*DIGITS)
        self.labels = split.reference_labels
        self._pictures = split.reference
        self._classifiers = train_classifiers(split.train, split.train_labels)
        self._features, _ = self._read(split.reference)
        others = split.train[subset_like(split.train_labels, split.reference_labels)]
        self.floors = self(split.reference) | self._distances(others, self._read(others)[0])
        self.floor_ranges = {"fd": self._redrawn(split)}

    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """Metric → value, of pictures in [−1, 1] (clipped to it) in the order of ``labels``."""
        pictures = pictures.clamp(-1, 1)
        features, scores = self._read(pictures)
        own = {"accuracy": accuracy(scores, self.labels), "complexity": complexity(pictures)}
        return self._distances(pictures, features) | own

    def shown(self, count: int) -> Tensor:
        """Rows of pictures to show: the same number of each class, class by class along a line."""
        lines = [[(self.labels == digit).nonzero()[line, 0] for digit in range(CLASSES)] for line in range(count // 10)]
        return torch.stack([row for line in lines for row in line])

    def _redrawn(self, split: Split, draws: int = 20) -> tuple[float, float]:
        """Range of the distance in features between two disjoint random sets of like class counts."""
        pictures, labels = torch.cat([split.train, split.reference]), torch.cat([split.train_labels, self.labels])
        features, _ = self._read(pictures)
        found = []
        for draw in range(draws):
            first = subset_like(labels, self.labels, seed=draw)
            rest = torch.ones(len(labels), dtype=torch.bool)
            rest[first] = False
            rest = rest.nonzero()[:, 0]
            second = rest[subset_like(labels[rest], self.labels, seed=draw)]
            of_each = [frechet_distance(f[first], f[second]) for f in features]
            found.append(sum(of_each) / len(of_each))
        return min(found), max(found)

    def _read(self, pictures: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Features and class scores by each classifier."""
        features, scores = zip(*(classifier.read(pictures) for classifier in self._classifiers), strict=True)
        return features, scores

    def _distances(self, pictures: Tensor, features: tuple[Tensor, ...]) -> dict[str, float]:
        """Fréchet distances from the reference: in features, the mean over the classifiers, and in pixels."""
        of_features = [frechet_distance(a, b) for a, b in zip(features, self._features, strict=True)]
        return {"fd": sum(of_features) / len(of_features), "fd_pixels": frechet_distance(pictures, self._pictures)}
