"""What a cache is to hold for some data, and which of it is missing: the data gone through once, nothing encoded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from ..disk import reason, write_atomically
from . import blocks
from .blocks import Present, block_name, picture_key, prompt_key, text_key
from .buckets import Size, bucket_for
from .items import DataError, Item, Skipped, Source, Unusable
from .pictures import size_of, without_warnings
from .settings import Settings

PICTURES_PER_BLOCK = 64  # what a kill can cost
PROMPTS_PER_BLOCK = 16  # of these one takes as long as some dozens of pictures
TEXTS_PER_BLOCK = 64
EMPTY = ""  # the caption of the unconditional teacher


class Row(NamedTuple):
    """One item of the data: its place in the source, name for people, repeats, keys of picture and caption, bucket."""

    place: int
    name: str
    repeats: int
    picture: str
    text: str
    bucket: Size


class PictureBlock(NamedTuple):
    """A block of latents to be made: its file's name; key, place in the source and bucket of each picture."""

    name: str
    keys: list[str]
    places: list[int]
    buckets: list[Size]


class TextBlock(NamedTuple):
    """A block of embedded captions to be made."""

    name: str
    captions: list[str]


@dataclass
class Plan:
    """What a source gives, and what of it a cache lacks.

    Attributes:
        rows: the items, in the source's order.  skipped: what it gave besides.
        captions: each distinct caption once, the empty one first.
        generated: whether the teacher makes the pictures.
        pictures, texts: the blocks that are missing, in the source's order.
    """

    rows: list[Row] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)
    generated: bool = False
    pictures: list[PictureBlock] = field(default_factory=list)
    texts: list[TextBlock] = field(default_factory=list)

    @property
    def name(self) -> str:
        """16 hexadecimal digits that stand for the data: rows, captions and what was skipped."""
        held = [self.rows, [(s.key, s.why) for s in self.skipped], self.captions]
        return hashlib.sha256(json.dumps(held).encode()).hexdigest()[:16]


def make_plan(
    source: Source,
    settings: Settings,
    folder: Path,
    fingerprint: str,
    captions: Sequence[str] = (),
    say: Callable[[str], None] = print,
) -> Plan:
    """Go through a source once, and look which blocks the folder has.

    Args:
        captions: more captions that are to be embedded, such as those of the validation pictures.

    Raises:
        DataError: nothing is left to train on.
    """
    with without_warnings():
        plan = _gone_through(source, settings, captions)
    there = blocks.present(folder, fingerprint, say)
    check_something_is_left([row for row in plan.rows if row.picture not in there.bad], skipped_of(plan, there), source)
    _cut(plan, there)
    return plan


def skipped_of(plan: Plan, there: Present) -> list[Skipped]:
    """What the source skipped, and the pictures that turned out to be damaged when they were decoded."""
    return plan.skipped + [Skipped(r.name, there.bad[r.picture]) for r in plan.rows if r.picture in there.bad]


def check_something_is_left(left: list, skipped: list[Skipped], source: Source) -> None:
    """Refuse data of which nothing can be used.

    Raises:
        DataError: with the reasons.
    """
    if left:
        return
    if not skipped:
        raise DataError(f"{source} holds nothing to train on: no pictures with captions, and no prompts")
    raise DataError(f"nothing in {source} can be used: all {len(skipped)} were skipped.\n{listed(skipped)}")


def listed(skipped: Sequence[Skipped], limit: int = 10) -> str:
    """The first of them, a line each."""
    lines = [f"  {item.key}: {item.why}" for item in skipped[:limit]]
    return "\n".join(lines + [f"  and {len(skipped) - limit} more"] * (len(skipped) > limit))


# ---- going through ----


def _gone_through(source: Source, settings: Settings, captions: Sequence[str]) -> Plan:
    plan, wanted = Plan(), {EMPTY: None}
    for place, item in enumerate(source):
        row = item if isinstance(item, Skipped) else _row(place, item, settings)
        if isinstance(row, Skipped):
            plan.skipped.append(row)
        else:
            plan.rows.append(row)
            plan.generated = item.open is None
            wanted[item.caption] = None
    plan.captions = list(wanted | dict.fromkeys(captions))
    return plan


def _row(place: int, item: Item, settings: Settings) -> Row | Skipped:
    text = text_key(item.caption)
    if item.open is None:
        if settings.teacher_steps < 1:
            raise ValueError("latents from prompts need Settings.teacher_steps and teacher_w: what the teacher did")
        return Row(place, item.key, item.repeats, prompt_key(item.caption, item.seed), text, settings.square)
    try:
        data = item.open()
        size = size_of(data, settings.min_side)
    except OSError as error:
        return Skipped(item.key, f"cannot be read: {reason(error)}")
    except Unusable as error:
        return Skipped(item.key, str(error))
    return Row(place, item.key, item.repeats, picture_key(data), text, bucket_for(*size, settings.buckets))


def _cut(plan: Plan, there: Present) -> None:
    """Cut what is missing into blocks, in the source's order.

    What a killed pass had finished is whole blocks, so the rest is cut as it was then.
    """
    missing: dict[str, Row] = {}
    for row in plan.rows:
        if row.picture not in there:
            missing.setdefault(row.picture, row)
    for rows in _parts(list(missing.values()), PROMPTS_PER_BLOCK if plan.generated else PICTURES_PER_BLOCK):
        keys = [row.picture for row in rows]
        name = block_name("pictures", keys)
        plan.pictures.append(PictureBlock(name, keys, [row.place for row in rows], [row.bucket for row in rows]))
    for captions in _parts([c for c in plan.captions if text_key(c) not in there], TEXTS_PER_BLOCK):
        plan.texts.append(TextBlock(block_name("texts", map(text_key, captions)), captions))


def _parts(values: list, count: int) -> Iterator[list]:
    return (values[i : i + count] for i in range(0, len(values), count))


# ---- for the other processes ----


class Missing(NamedTuple):
    """The blocks that are missing, and the name of the data."""

    data: str
    pictures: list[PictureBlock]
    texts: list[TextBlock]


def write_missing(path: Path, plan: Plan) -> None:
    """Write which blocks are missing, for the processes that share the work."""
    write_atomically(path, json.dumps(Missing(plan.name, plan.pictures, plan.texts)))


def read_missing(path: Path) -> Missing:
    """What `write_missing` wrote.

    Raises:
        DataError: it is not there.
    """
    try:
        data, pictures, texts = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(
            f"{path} is not there: the main process made no plan (see its message), or the folder of the cache is not "
            "one that all machines share. Name a shared one as data.cache"
        ) from error
    blocks = [PictureBlock(name, keys, places, [Size(*b) for b in buckets]) for name, keys, places, buckets in pictures]
    return Missing(data, blocks, [TextBlock(*block) for block in texts])
