"""What a report consists of, whatever it is written as: headings, paragraphs, tables and pictures.

`report_markdown` and `report_html` write the same blocks, so that neither can say what the other does not. Every text
is plain: names that came with the data (LoRAs, prompts, files) are escaped by the writers, not here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field


class Strong(str):
    """A text to stand out."""


class Code(str):
    """A name or a number to be copied."""


Text = str | Sequence[str]  # parts, of which some are Strong or Code


@dataclass(frozen=True)
class Heading:
    text: Text
    level: int = 2


@dataclass(frozen=True)
class Paragraph:
    text: Text


@dataclass(frozen=True)
class Table:
    """A table whose first column names its rows.

    Attributes:
        caption: what it shows, for who does not see where it stands.
        head: column heads, the first column's included.
        numbers: all columns but the first are figures.
        spans: (title, columns) of column groups, from the second column on; a title "" names nothing.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: bool = True
    spans: Sequence[tuple[str, int]] = field(default=())


@dataclass(frozen=True)
class Picture:
    """A picture by the name it was written under; left out where it was not.

    Attributes:
        alt: what is to be seen on it.
        asked: what its pictures were asked for, in reading order within each cell.
    """

    name: str
    alt: str
    caption: str = ""
    asked: Sequence[str] = ()


Block = Heading | Paragraph | Table | Picture
ASKED = "Asked for, in reading order within each cell:"


def parts(text: Text) -> Sequence[str]:
    return [text] if isinstance(text, str) else text


def clean(text: str) -> str:
    """Without control characters, which no page may hold."""
    return text.translate(CONTROL)


CONTROL = dict.fromkeys([*range(9), 11, 12, *range(14, 32), 127], " ")


def present(blocks: Sequence[Block], pictures: Collection[str]) -> list[Block]:
    """Without pictures that were not written, and then without headings that nothing follows."""
    kept: list[Block] = []
    for block in reversed([b for b in blocks if not isinstance(b, Picture) or b.name in pictures]):
        if isinstance(block, Heading) and (not kept or isinstance(kept[-1], Heading) and kept[-1].level <= block.level):
            continue
        kept.append(block)
    return kept[::-1]
