"""What shapes are judged by: Fréchet distance in features, attributes found as asked, complexity."""

from __future__ import annotations

import torch
from torch import Tensor

from ..catalogue import SHAPES, known
from ..metrics import complexity, frechet_distance
from .shapes_detector import found, train_detectors
from .shapes_pictures import as_floats, draw_pictures
from .shapes_scenes import Scene, attributes, draw_scenes
from .shapes_text import tokens

PICTURES = 500  # generated, each of a caption of its own
REAL = 4000  # real scenes compared with
FLOOR_DRAWS = 5
_SEED = 1000  # of the scenes compared with, plus 100 for each fold; the draws of the floor come after it


class ShapesJudge:
    """Values of a set of generated pictures, one for each of some captions whose scenes nothing was trained with.

    Attributes:
        labels: captions to generate, as token numbers.
        captions: the same in words.
        metrics: their descriptions, the main one first.
        floors: real pictures' own, the mean over other draws of as many scenes of the same part as are generated:
            their distance; attributes found in them as their captions say, which is the detectors' accuracy;
            complexity.
        floor_ranges: metric → (least, greatest) over these draws.
    """

    def __init__(self, train: Tensor, train_attributes: Tensor, part: str, fold: int = 0) -> None:
        seed = _SEED + 100 * fold
        scenes = draw_scenes(part, REAL, seed)
        self.metrics = known(*SHAPES)
        self.captions = [scene.caption() for scene in scenes[:PICTURES]]
        self.labels = tokens(self.captions)
        self._asked = torch.from_numpy(attributes(scenes[:PICTURES]))
        self._detectors = train_detectors(train, train_attributes)
        self._features, _ = self._read(as_floats(draw_pictures(scenes, seed)))
        draws = [self._real(draw_scenes(part, PICTURES, seed + 1 + i), seed + 1 + i) for i in range(FLOOR_DRAWS)]
        of_each = {metric: [values[metric] for values in draws] for metric in draws[0]}
        self.floors = {metric: sum(values) / len(values) for metric, values in of_each.items()}
        self.floor_ranges = {metric: (min(values), max(values)) for metric, values in of_each.items()}

    def __call__(self, pictures: Tensor) -> dict[str, float]:
        """Metric → value, of pictures in [−1, 1] (clipped to it) in the order of ``labels``."""
        return self._values(pictures.clamp(-1, 1), self._asked)

    def shown(self, count: int) -> Tensor:
        """Rows of pictures to show: the first, which are as random as any."""
        return torch.arange(count)

    def found(self, pictures: Tensor) -> Tensor:
        """Which attributes are found as asked, (n, attributes), NaN where none was asked."""
        return found(self._read(pictures.clamp(-1, 1))[1], self._asked)

    def _real(self, scenes: list[Scene], seed: int) -> dict[str, float]:
        return self._values(as_floats(draw_pictures(scenes, seed)), torch.from_numpy(attributes(scenes)))

    def _values(self, pictures: Tensor, asked: Tensor) -> dict[str, float]:
        features, scores = self._read(pictures)
        of_each = [frechet_distance(a, b) for a, b in zip(features, self._features, strict=True)]
        share = found(scores, asked).nanmean().item()
        return {"fd": sum(of_each) / len(of_each), "attributes": share, "complexity": complexity(pictures)}

    def _read(self, pictures: Tensor) -> tuple[tuple[Tensor, ...], tuple[tuple[Tensor, ...], ...]]:
        """Features and scores of the attributes by each detector."""
        features, scores = zip(*(detector.read(pictures) for detector in self._detectors), strict=True)
        return features, scores
