"""scikit-learn's bundled digits (1,797 grey pictures of 8 × 8, no download): split and normalisation, fixed here.

One half trains, the other is held out for the reported figures. Choices are made on a third of the training half
(`against="validation"`), with which nothing is then trained.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold, train_test_split
from torch import Tensor

CLASSES = 10
SPLIT_SEED = 0
FOLDS = 3


class Split(NamedTuple):
    """Pictures (n, 1, 8, 8) in [−1, 1] and their classes (n,)."""

    train: Tensor
    train_labels: Tensor
    reference: Tensor
    reference_labels: Tensor


def load_split(against: str = "held_out", fold: int = 0) -> Split:
    """What to train on and what to compare with; every class has its share of each part.

    Args:
        against: "held_out", for figures that are reported, or "validation", for choosing.
        fold: which third of the training half is the validation part.
    """
    pictures, labels = load_digits(return_X_y=True)
    pictures = (pictures.reshape(-1, 1, 8, 8) / 8.0 - 1.0).astype(np.float32)
    train, held_out = train_test_split(np.arange(len(labels)), test_size=0.5, random_state=SPLIT_SEED, stratify=labels)
    if against == "validation":
        folds = StratifiedKFold(FOLDS, shuffle=True, random_state=SPLIT_SEED).split(train, labels[train])
        inner, outer = list(folds)[fold]
        train, held_out = train[inner], train[outer]
    parts = (pictures[train], labels[train], pictures[held_out], labels[held_out])
    return Split(*(torch.from_numpy(part) for part in parts))


def subset_like(labels: Tensor, wanted: Tensor, seed: int = SPLIT_SEED) -> Tensor:
    """Rows of a set whose class counts are those of ``wanted``, as far as the set goes, drawn without repetition."""
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    rows = []
    for digit in range(CLASSES):
        of_class = order[labels[order] == digit]
        rows.append(of_class[: int((wanted == digit).sum())])
    return torch.cat(rows)
