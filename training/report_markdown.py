"""report.md: a report's blocks as Markdown."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from urllib.parse import quote

from .document import ASKED, Block, Code, Heading, Paragraph, Picture, Strong, Table, Text, clean, parts, present
from .report_sections import sections


def to_markdown(report: dict, pictures: Collection[str] = ()) -> str:
    """The report for a reader who knows nothing of the run; takes what `to_json` gives.

    Args:
        pictures: names of the pictures that lie beside it; others are left out.
    """
    return render(sections(report), pictures)


def render(blocks: Sequence[Block], pictures: Collection[str] = ()) -> str:
    return "\n\n".join(map(_block, present(blocks, pictures))) + "\n"


def _block(block: Block) -> str:
    if isinstance(block, Heading):
        return f"{'#' * block.level} {inline(block.text)}"
    if isinstance(block, Paragraph):
        return inline(block.text)
    if isinstance(block, Picture):
        asked = "\n".join(f"{i}. {inline(entry)}" for i, entry in enumerate(block.asked, 1))
        return f"![{inline(block.alt)}]({quote(block.name)})" + (f"\n\n{ASKED}\n\n{asked}" if asked else "")
    return _table(block)


def _table(table: Table) -> str:
    """Column groups, which Markdown has not, are named in the head of their first column."""
    head, start = [inline(cell) for cell in table.head], 1
    for name, columns in table.spans:
        if name:
            head[start] = f"{inline(name)}: {head[start]}"
        start += columns
    rule = ["---", *["---:" if table.numbers else "---"] * (len(head) - 1)]
    rows = [[inline(cell) for cell in row] for row in table.rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def inline(text: Text) -> str:
    """One line; what would be markup or HTML in it is not."""
    return "".join(_part(part) for part in parts(text))


def _part(part: str) -> str:
    line = " ".join(clean(part).split("\n"))
    if isinstance(part, Code):
        fence = "`" * (1 + max(map(len, re.findall("`+", line)), default=0))
        pad = " " if "`" in line else ""
        return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")
    escaped = re.sub(r"[\\`*|]|\](?=[(\[:])|[<&](?=[A-Za-z/!?#])", r"\\\g<0>", line)
    return f"**{escaped}**" if isinstance(part, Strong) else escaped
