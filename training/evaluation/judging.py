"""Every cell's pictures through every metric's network, one network in memory at a time, a batch of pictures at a time.

What a network gives of each picture lies in ``scores/<cell>/<name>-<source>.npy``, where it is found again: measuring
goes on where it was interrupted, and other weights make other files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..metrics import complexity
from . import pictures, rows
from .cells import Cell
from .clip_like import Aesthetic, ClipScore, Hps, PickScore
from .generation import picture_path
from .image_reward import ImageReward
from .inception import Inception
from .lpips import Lpips
from .prompts import Prompt
from .reference import Reference, square
from .weights import Unavailable, Weights

BATCH = 16  # pictures that a metric's network sees at a time


class Network(Protocol):
    """What a metric is worked out by.

    Attributes:
        metrics: names of what it gives.
        source: library and weights, with their versions.
    """

    metrics: tuple[str, ...]
    source: str

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        """Of pictures (B, 3, H, W) uint8 and their captions: name → (B,) or (B, d)."""


class Complexity:
    """Mean absolute difference of neighbouring pixels; the paper's IC9600 has no package, nor weights to be fetched."""

    metrics = ("complexity",)
    source = "mean absolute difference of neighbouring pixels (a stand-in for IC9600)"

    def __init__(self, weights: Weights, device: torch.device) -> None:
        """Needs neither."""

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        scaled = pictures.float() / 127.5 - 1
        return {"complexity": torch.tensor([complexity(picture) for picture in scaled], dtype=torch.float64)}


NETWORKS: dict[str, Callable[[Weights, torch.device], Network]] = {
    "inception": Inception,
    "complexity": Complexity,
    "image_reward": ImageReward,
    "pick_score": PickScore,
    "clip_score": ClipScore,
    "hps": Hps,
    "aesthetic": Aesthetic,
}
DIVERSITY = "diversity"


@dataclass
class Judging:
    """The passes over pictures that are there.

    Attributes:
        folder: the evaluation's.
        side: of the pictures, px.
        process, processes: every ``processes``-th set of pictures is this process's.
        wait: until all processes have come here.
        sources: network → library and weights, of those that could be loaded.
        left_out: network → why it could not.
    """

    folder: Path
    prompts: Sequence[Prompt]
    cells: Sequence[Cell]
    reference: Reference | None
    side: int
    weights: Weights
    device: torch.device
    process: int = 0
    processes: int = 1
    wait: Callable[[], None] = lambda: None
    sources: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def run(self, networks: Sequence[str], diversity: bool) -> None:
        """All passes; afterwards every file is there.

        Raises:
            DataError: a picture is missing or damaged.  OutputError: no room on the disk.
        """
        for name in networks:
            network = self._loaded(name, NETWORKS[name])
            if network:
                with torch.inference_mode():
                    self._pass(name, network)
            del network
            self._free()
        if diversity and (pairs := self._seeds()):
            lpips = self._loaded(DIVERSITY, Lpips)
            if lpips:
                with torch.inference_mode():
                    self._diversity(lpips, pairs)
        self.wait()

    def path(self, cell: str, name: str) -> Path:
        """The file of what a network gave of a set of pictures."""
        digest = hashlib.sha256(self.sources[name].encode()).hexdigest()[:8]
        return self.folder / "scores" / cell / f"{name}-{digest}.npy"

    @property
    def reference_name(self) -> str:
        """The real pictures' set; they are scaled to the generated ones' size."""
        return f"reference-{self.reference.sha256[:8]}-{self.side}px"

    def scores(self, cell: Cell, name: str) -> np.ndarray:
        """A number for each picture, (n,)."""
        return np.concatenate(list(rows.Rows(self.path(cell.name, name))))

    def features(self, cell: str) -> rows.Rows:
        """Inception's features of a set."""
        return rows.Rows(self.path(cell, "inception"))

    def files(self, cell: Cell) -> list[Path]:
        """A cell's pictures."""
        return [picture_path(self.folder, cell, i) for i in range(len(self.prompts))]

    # -- passes --------------------------------------------------------------------------------------------------------

    def _loaded(self, name: str, load: Callable):
        """The network; None, with the reason noted, if it is not to be had. The main process fetches."""
        network = None
        if self.process:
            self.wait()
        try:
            network = load(self.weights, self.device)
            self.sources[name] = network.source
        except Unavailable as error:
            self.left_out[name] = str(error)
        if not self.process:
            self.wait()
        return network

    def _pass(self, name: str, network: Network) -> None:
        captions = [prompt.text for prompt in self.prompts]
        sets = [(cell.name, self.files(cell), captions, None) for cell in self.cells]
        if self.reference and self.reference.pictures and name in ("inception", "complexity"):
            real = list(self.reference.pictures)
            sets.insert(0, (self.reference_name, real, [""] * len(real), square(self.side)))
        own = [of for of in sets[self.process :: self.processes] if not self._there(of[0], name, len(of[1]))]
        with tqdm(
            total=sum(len(files) for _, files, _, _ in own), desc=name, unit="picture", disable=self.process > 0
        ) as progress:
            for cell, files, texts, size in own:
                target = self.path(cell, name)
                target.parent.mkdir(parents=True, exist_ok=True)
                rows.write(target, self._given(name, network, files, texts, size, progress), len(files))

    def _given(self, name, network, files, texts, size, progress) -> Iterator[np.ndarray]:
        for i, batch in enumerate(pictures.batches(files, BATCH, size)):
            yield network(batch, texts[i * BATCH : i * BATCH + len(batch)])[name].cpu().numpy()
            progress.update(len(batch))

    def _diversity(self, lpips: Lpips, groups: Sequence[Sequence[Cell]]) -> None:
        """Mean distance of each prompt's pictures from different seeds, over all pairs of seeds."""
        count = len(self.prompts)
        own = [of for of in groups[self.process :: self.processes] if not self._there(of[0].name, DIVERSITY, count)]
        with tqdm(total=count * len(own), desc=DIVERSITY, unit="picture", disable=self.process > 0) as progress:
            for cells in own:
                target = self.path(cells[0].name, DIVERSITY)
                target.parent.mkdir(parents=True, exist_ok=True)
                rows.write(target, self._distances(lpips, cells, progress), count)

    def _distances(self, lpips: Lpips, cells: Sequence[Cell], progress) -> Iterator[np.ndarray]:
        for seeds in zip(*(pictures.batches(self.files(cell), BATCH) for cell in cells), strict=True):
            pairs = [lpips(a, b) for a, b in combinations(seeds, 2)]
            yield torch.stack(pairs).mean(0).cpu().numpy()
            progress.update(len(seeds[0]))

    def _seeds(self) -> list[list[Cell]]:
        """Cells that differ in their seed alone, where there are several."""
        groups: dict[tuple, list[Cell]] = {}
        for cell in self.cells:
            groups.setdefault((cell.method.name, cell.gamma, cell.steps), []).append(cell)
        return [cells for cells in groups.values() if len(cells) > 1]

    def _there(self, cell: str, name: str, count: int) -> bool:
        path = self.path(cell, name)
        return path.is_file() and len(rows.Rows(path)) == count

    def _free(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
