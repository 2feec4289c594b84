"""Captions as token numbers, and the small transformer that reads them for the teacher's cross-attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from . import shapes_scenes as scenes

_PHRASES = (scenes.SIZES, scenes.COLOURS, scenes.TEXTURES, scenes.SHAPES, scenes.PLACES, scenes.RELATIONS)
_SAID = [phrase for phrases in (*_PHRASES, scenes.BACKGROUNDS) for phrase in phrases if phrase not in scenes.UNSAID]
# of token numbers; 0 is a place without a word, and a caption of nothing else the empty one
WORDS = list(dict.fromkeys(["", "a", "on", *(word for phrase in _SAID for word in phrase.split())]))
LENGTH = 21  # words of the longest caption: three objects of five, two relations of two, the background
EMPTY = 0


def tokens(captions: Sequence[str]) -> Tensor:
    """Token numbers (n, LENGTH) of captions in the grammar; the empty caption is ``EMPTY`` everywhere.

    Raises:
        ValueError: a caption outside the grammar; see `shapes_scenes.read`.
    """
    numbers = torch.full((len(captions), LENGTH), EMPTY)
    for row, caption in zip(numbers, captions, strict=True):
        if caption:
            scenes.read(caption)
        words = [WORDS.index(word) for word in caption.split()]
        row[: len(words)] = torch.tensor(words, dtype=torch.long)
    return numbers


def captions(numbers: Tensor) -> list[str]:
    """The captions of token numbers (n, LENGTH)."""
    return [" ".join(WORDS[i] for i in row if i != EMPTY) for row in numbers.tolist()]


class TextEncoder(nn.Module):
    """Token numbers (B, LENGTH) → states (B, LENGTH, width): two layers of a pre-norm transformer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(len(WORDS), width)
        self.position = nn.Parameter(0.5 * torch.randn(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)

    def forward(self, numbers: Tensor) -> Tensor:
        return self.norm(self.layers(self.embedding(numbers) + self.position))
