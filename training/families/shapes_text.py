"""Captions as token numbers, and the small transformer that reads them for the teacher's cross-attention.

The transformer first learns to read by itself (`learn_to_read`: seconds), as the text encoder of a large model does,
and is then trained on with the teacher. A teacher whose encoder begins from noise has to find out through its pictures'
error which word belongs to which object, and spends most of its training on that.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from . import shapes_scenes as scenes
from .shapes_scenes import ABSENT, COLOURS, SHAPES, SIZES, TEXTURES, Scene, draw_scenes

_PHRASES = (scenes.SIZES, scenes.COLOURS, scenes.TEXTURES, scenes.SHAPES, scenes.PLACES, scenes.RELATIONS)
_SAID = [phrase for phrases in (*_PHRASES, scenes.BACKGROUNDS) for phrase in phrases if phrase not in scenes.UNSAID]
# of token numbers; 0 is a place without a word, and a caption of nothing else the empty one
WORDS = list(dict.fromkeys(["", "a", "on", *(word for phrase in _SAID for word in phrase.split())]))
LENGTH = 21  # words of the longest caption: three objects of five, two relations of two, the background
EMPTY = 0
MEANT = (3, 3, len(SHAPES), len(COLOURS), len(SIZES), len(TEXTURES))  # classes of what `meanings` says of a word
_SCENES, _SEED = 20_000, 1  # to learn reading from
_STEPS, _BATCH, _LR = 500, 128, 4e-3


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


def meanings(told: Sequence[Scene]) -> Tensor:
    """What each word of the captions is about, (n, LENGTH, 6): its object's column and row, shape, colour, size and
    texture, as class numbers of `MEANT`; `ABSENT` for the words between objects and for places without a word."""
    meant = torch.full((len(told), LENGTH, len(MEANT)), ABSENT)
    for row, scene in zip(meant, told, strict=True):
        at, relations = 0, iter(scene.where if len(scene.things) > 1 else ())
        for thing, (x, y) in zip(scene.things, scene.cells(), strict=True):
            kinds = zip((SHAPES, COLOURS, SIZES, TEXTURES), thing, strict=True)
            end = at + len(thing.words().split())
            row[at:end] = torch.tensor([int(2 * x), int(2 * y), *(of.index(word) for of, word in kinds)])
            at = end + len(next(relations, "").split())
    return meant


def learn_to_read(encoder: TextEncoder, seed: int) -> float:
    """Train the encoder to tell of every word what its object is and where; the last batch's cross-entropy."""
    told = draw_scenes("train", _SCENES, _SEED)
    numbers, meant = tokens([scene.caption() for scene in told]), meanings(told)
    generator = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Linear(encoder.norm.normalized_shape[0], sum(MEANT))
    parameters = [*encoder.parameters(), *head.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=_LR, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=_STEPS)
    for _ in range(_STEPS):
        rows = torch.randint(len(told), (_BATCH,), generator=generator)
        scores = head(encoder(numbers[rows])).flatten(0, 1).split(MEANT, dim=1)
        wanted = meant[rows].flatten(0, 1).unbind(1)
        loss = sum(cross_entropy(of, is_, ignore_index=ABSENT) for of, is_ in zip(scores, wanted, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return loss.item()
