"""What the digits are judged by: Fréchet distances in features and in pixels, class accuracy, complexity."""

from __future__ import annotations

import torch
from torch import Tensor

from ..metrics import complexity, frechet_distance
from .digits_data import CLASSES, Split, subset_like
from .digits_features import accuracy, train_classifiers


class DigitsJudge:
    """Values of a set of generated pictures, one for each real picture and with its label.

    Attributes:
        labels: the labels to generate, those of the real pictures compared with.
        floors: the real pictures' own values: distances of the training part from the compared part, class counts and
            so n alike; accuracy and complexity of the compared part.
    """

    def __init__(self, split: Split) -> None:
        self.labels = split.reference_labels
        self._pictures = split.reference
        self._classifiers = train_classifiers(split.train, split.train_labels)
        self._features = [classifier.features(split.reference) for classifier in self._classifiers]
        self.floors = self(split.reference) | self._distances(
            split.train[subset_like(split.train_labels, split.reference_labels)]
        )

    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """Metric → value, of pictures in [−1, 1] (clipped to it) in the order of ``labels``."""
        pictures = pictures.clamp(-1, 1)
        own = {"accuracy": accuracy(self._classifiers, pictures, self.labels), "complexity": complexity(pictures)}
        return self._distances(pictures) | own

    def shown(self, count: int) -> Tensor:
        """Rows of pictures to show: the same number of each class, class by class along a line."""
        lines = [[(self.labels == digit).nonzero()[line, 0] for digit in range(CLASSES)] for line in range(count // 10)]
        return torch.stack([row for line in lines for row in line])

    def _distances(self, pictures: Tensor) -> dict[str, float]:
        """Fréchet distances from the reference: in features, the mean over the classifiers, and in pixels."""
        pairs = zip(self._classifiers, self._features, strict=True)
        of_features = [frechet_distance(classifier.features(pictures), features) for classifier, features in pairs]
        return {"fd": sum(of_features) / len(of_features), "fd_pixels": frechet_distance(pictures, self._pictures)}
