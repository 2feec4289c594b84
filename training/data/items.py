"""What a source of data gives, one by one: an item to encode, or something that was skipped and why."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

CAPTION_LIMIT = 65536  # bytes: what is longer is some other file
_BYTE_ORDER_MARKS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


class DataError(ValueError):
    """The data, or the cache of them, cannot be used; the message says why and what to do."""


class Unusable(ValueError):
    """One picture or caption cannot be used; the message is the reason, without a name."""


@dataclass(frozen=True)
class Item:
    """A picture with its caption, or a prompt whose picture the teacher makes.

    Attributes:
        key: its name for people: a path within the folder, shard and sample, a line of the prompts.
        repeats: how often an epoch holds it.
        open: reads the picture's file; None for a prompt.
        seed: of a prompt's latents; None for a picture.
    """

    key: str
    caption: str
    repeats: int = 1
    open: Callable[[], bytes] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Skipped:
    """Something that is not used: its name for people, and the reason."""

    key: str
    why: str


Source: TypeAlias = Iterable[Item | Skipped]


def caption_of(data: bytes) -> str:
    """A caption from a file's bytes, its runs of white space made single spaces.

    Raises:
        Unusable: it is empty, not UTF-8 (a byte order mark is fine) or too long for a caption.
    """
    if len(data) > CAPTION_LIMIT:
        raise Unusable(f"its caption has {len(data)} bytes, which is no caption: {CAPTION_LIMIT} at most")
    encoding = _BYTE_ORDER_MARKS.get(data[:2])
    if encoding or b"\0" in data:
        raise Unusable(f"its caption is {encoding or 'UTF-16 or binary'}, not UTF-8: save it as UTF-8")
    try:
        caption = " ".join(data.decode("utf-8-sig").split())
    except UnicodeDecodeError as error:
        raise Unusable(
            f"its caption is not UTF-8 (byte 0x{data[error.start]:02x} at position {error.start}): save it as UTF-8"
        ) from None
    if not caption:
        raise Unusable("its caption is empty")
    return caption
