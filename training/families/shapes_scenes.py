"""Scenes of one to three objects, their captions, and captions read back: all there is to know of a picture in words.

    caption  = object [place]  |  object relation object  |  object relation object relation object,  "on" background
    object   = "a" [size] colour [texture] shape          size: medium, texture: plain where no word is there
    relation = "left of" | "right of" | "above" | "below"   (of three objects one across and one up or down)

"a small red circle left of a blue square on white" and "a blue square right of a small red circle on white" are one
scene told in two ways. A scene belongs to one of the parts "train", "validation", "held_out" by its own hash, however
it is told: the parts never share a scene, whatever the seed.
"""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

SHAPES = ("circle", "square", "triangle", "diamond", "cross")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple")
SIZES = ("small", "medium", "large")
TEXTURES = ("plain", "striped", "dotted")
BACKGROUNDS = ("white", "grey", "black", "beige")
UNSAID = {"medium", "plain"}  # no word stands for them
PLACES = {  # of an object alone: its cell (x, y), 0 left or top, 1 right or bottom
    "in the centre": (0.5, 0.5),
    "at the top left": (0.0, 0.0),
    "at the top right": (1.0, 0.0),
    "at the bottom left": (0.0, 1.0),
    "at the bottom right": (1.0, 1.0),
}
RELATIONS = {"left of": (1, 0), "right of": (-1, 0), "above": (0, 1), "below": (0, -1)}  # cells from it to the other
ACROSS, UP_OR_DOWN = ("left of", "right of"), ("above", "below")
PARTS = {"train": 6, "validation": 1, "held_out": 1}  # eighths of all scenes
COUNTS = (0.2, 0.4, 0.4)  # probability of one, two, three objects


class Thing(NamedTuple):
    """An object."""

    shape: str
    colour: str
    size: str
    texture: str

    def words(self) -> str:
        named = [w for w in (self.size, self.colour, self.texture, self.shape) if w not in UNSAID]
        return " ".join(["a", *named])


class Scene(NamedTuple):
    """A background, one to three objects in the order they are told, and where they are.

    Attributes:
        where: the place of one object, or the relation of each object to the next.
    """

    background: str
    things: tuple[Thing, ...]
    where: tuple[str, ...]

    def caption(self) -> str:
        words = [self.things[0].words()]
        if len(self.things) == 1:
            words.append(self.where[0])
        for relation, thing in zip(self.where, self.things[1:], strict=False):
            words += [relation, thing.words()]
        return " ".join([*words, "on", self.background])

    def cells(self) -> list[tuple[float, float]]:
        """(x, y) of each object, in its own order: 0 left or top, 0.5 the middle, 1 right or bottom."""
        if len(self.things) == 1:
            return [PLACES[self.where[0]]]
        steps = np.array([(0, 0), *(RELATIONS[relation] for relation in self.where)]).cumsum(0)
        spans = steps.max(0) - steps.min(0)
        places = np.where(spans > 0, steps - steps.min(0), 0.5)
        return [(float(x), float(y)) for x, y in places]

    def in_order(self) -> list[tuple[tuple[float, float], Thing]]:
        """(cell, object), line by line from the top left: the same however the scene is told."""
        return sorted(zip(self.cells(), self.things, strict=True), key=lambda item: (item[0][1], item[0][0]))

    def part(self) -> str:
        """Which of `PARTS` the scene belongs to."""
        told = repr((self.background, self.in_order())).encode()
        eighth, bound = hashlib.sha256(told).digest()[0] % sum(PARTS.values()), 0
        for part, share in PARTS.items():
            bound += share
            if eighth < bound:
                return part
        raise AssertionError


def draw_scenes(part: str, count: int, seed: int) -> list[Scene]:
    """``count`` scenes of a part, each drawn alone: two may be equal."""
    found, drawn = [], _drawn(np.random.default_rng([seed, *part.encode()]))
    while len(found) < count:
        scene = next(drawn)
        if scene.part() == part:
            found.append(scene)
    return found


def _drawn(generator: np.random.Generator) -> Iterator[Scene]:
    while True:
        count = 1 + int(np.searchsorted(np.cumsum(COUNTS), generator.random(), side="right"))
        lists = (SHAPES, COLOURS, SIZES, TEXTURES)
        things = tuple(
            Thing(*(of[i] for of, i in zip(lists, row, strict=True)))
            for row in generator.integers([len(of) for of in lists], size=(count, len(lists)))
        )
        background = BACKGROUNDS[generator.integers(len(BACKGROUNDS))]
        if count == 1:
            where = (list(PLACES)[generator.integers(len(PLACES))],)
        else:
            both = (ACROSS[generator.integers(2)], UP_OR_DOWN[generator.integers(2)])
            first = int(generator.integers(2))
            where = (both[first], both[1 - first])[: count - 1]
        yield Scene(background, things, where)


# -- captions read back --------------------------------------------------------------------------------------------


def read(caption: str) -> Scene:
    """The scene that a caption tells.

    Raises:
        ValueError: the caption is outside the grammar; the message says at which word, and what may stand there.
    """
    words = _Words(caption)
    things, where = [_thing(words)], []
    relations = list(RELATIONS)
    while (phrase := words.phrase((*PLACES, *relations) if len(things) == 1 else relations)) is not None:
        if phrase in PLACES:
            where.append(phrase)
            break
        where.append(phrase)
        things.append(_thing(words))
        if len(things) == 2:
            relations = list(UP_OR_DOWN if phrase in ACROSS else ACROSS)
        if len(things) == 3:
            break
    if not where:
        raise words.wrong([*PLACES, *RELATIONS])
    words.one_of(("on",), also=[] if len(things) == 3 or where[0] in PLACES else relations)
    scene = Scene(words.one_of(BACKGROUNDS), tuple(things), tuple(where))
    words.end()
    return scene


def _thing(words: _Words) -> Thing:
    words.one_of(("a",))
    size = words.maybe(SIZES, "medium")
    colour = words.one_of(COLOURS, also=[] if size != "medium" else [s for s in SIZES if s not in UNSAID])
    texture = words.maybe(TEXTURES, "plain")
    shape = words.one_of(SHAPES, also=[] if texture != "plain" else [t for t in TEXTURES if t not in UNSAID])
    return Thing(shape, colour, size, texture)


class _Words:
    """A caption's words, read from the left."""

    def __init__(self, caption: str) -> None:
        self.caption, self.words, self.at = caption, caption.split(), 0

    def phrase(self, phrases) -> str | None:
        """The phrase that stands next, if it is one of these."""
        for phrase in phrases:
            length = len(phrase.split())
            if self.words[self.at : self.at + length] == phrase.split():
                self.at += length
                return phrase
        return None

    def maybe(self, words, unsaid: str) -> str:
        return self.phrase([w for w in words if w not in UNSAID]) or unsaid

    def one_of(self, words, also=()) -> str:
        found = self.phrase(words)
        if found is None:
            raise self.wrong([*words, *also])
        return found

    def end(self) -> None:
        if self.at < len(self.words):
            raise self.wrong(["the end"])

    def wrong(self, expected: list[str]) -> ValueError:
        """An error that names the word and what may stand in its place."""
        word = self.words[self.at] if self.at < len(self.words) else None
        near = difflib.get_close_matches(word or "", expected, 1)
        return ValueError(
            f'"{self.caption}" is no caption of shapes: '
            + (f'"{word}" (word {self.at + 1})' if word else "its end")
            + f" stands where {_either(expected)} is wanted"
            + (f'; did you mean "{near[0]}"?' if near else "")
        )


def _either(words: list[str]) -> str:
    quoted = [f'"{word}"' if word != "the end" else word for word in words]
    return quoted[0] if len(quoted) == 1 else ", ".join(quoted[:-1]) + " or " + quoted[-1]


# -- in numbers ----------------------------------------------------------------------------------------------------

SLOTS = 3  # objects at most, in the order of `Scene.in_order`
ATTRIBUTES = ("background", "arrangement", *(name for _ in range(SLOTS) for name in Thing._fields))
ARRANGEMENTS = [
    *([place] for place in PLACES.values()),
    [(0.0, 0.5), (1.0, 0.5)],
    [(0.5, 0.0), (0.5, 1.0)],
    *([c for c in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0), (1.0, 1.0)) if c != free] for free in list(PLACES.values())[1:]),
]
CLASSES = (len(BACKGROUNDS), len(ARRANGEMENTS), *[len(SHAPES), len(COLOURS), len(SIZES), len(TEXTURES)] * SLOTS)
ABSENT = -1  # an attribute of an object that is not there


def attributes(scenes: list[Scene]) -> np.ndarray:
    """The scenes' attributes as class numbers, (n, len(ATTRIBUTES)): how they are told makes no difference."""
    found = np.full((len(scenes), len(ATTRIBUTES)), ABSENT)
    for row, scene in zip(found, scenes, strict=True):
        placed = scene.in_order()
        row[:2] = BACKGROUNDS.index(scene.background), ARRANGEMENTS.index([cell for cell, _ in placed])
        for slot, (_, thing) in enumerate(placed):
            numbers = [of.index(w) for of, w in zip((SHAPES, COLOURS, SIZES, TEXTURES), thing, strict=True)]
            row[2 + 4 * slot : 6 + 4 * slot] = numbers
    return found
