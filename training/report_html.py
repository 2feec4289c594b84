"""report.html: a report's blocks as one page that needs nothing else: no network, no script, pictures inside.

The page is built as a tree, so that whatever a LoRA or a prompt is called stays text; its policy allows no script and
no address but the pictures'. Plots are drawn as SVG, once for light and once for dark.
"""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple
from xml.etree.ElementTree import Element, SubElement, tostring

from PIL import Image

from .document import ASKED, Block, Code, Heading, Paragraph, Picture, Strong, Table, Text, clean, parts, present
from .report_sections import sections

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
LARGEST = 1_000_000  # bytes of a picture that is embedded as it is; larger ones as WebP


class Source(NamedTuple):
    """A picture's address; dark: the one for dark pages, where there is one."""

    light: str
    dark: str | None
    size: tuple[int, int]


def to_html(report: dict, pictures: Sequence[Path] = ()) -> str:
    """The report as a page; takes what `to_json` gives, and the pictures that were written."""
    return page(sections(report), sources(report, pictures))


def sources(report: dict, pictures: Sequence[Path]) -> dict[str, Source]:
    """File name → the picture inside the page: plots drawn anew as SVG, others from their files."""
    from .plot_style import DARK, LIGHT, as_svg
    from .plots import PLOTS

    found = {}
    for path in map(Path, pictures):
        if path.name in PLOTS:
            light, dark = (as_svg(PLOTS[path.name], report, theme) for theme in (LIGHT, DARK))
            found[path.name] = Source(_uri(light, "svg+xml"), _uri(dark, "svg+xml"), _svg_size(light))
        else:
            found[path.name] = _from_file(path)
    return found


def page(blocks: Sequence[Block], pictures: Mapping[str, Source] | None = None) -> str:
    """A whole page of blocks; its title is the first heading's, its contents are the headings of level 2."""
    blocks = present(blocks, pictures or {})
    title = next((_plain(block.text) for block in blocks if isinstance(block, Heading)), "Report")
    html = Element("html", lang="en")
    head = SubElement(html, "head")
    SubElement(head, "meta", charset="utf-8")
    SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    SubElement(head, "meta", name="viewport", content="width=device-width, initial-scale=1")
    _say(SubElement(head, "title"), title)
    SubElement(head, "style").text = (files(__package__) / "report.css").read_text(encoding="utf-8")
    body = SubElement(html, "body")
    header, main = SubElement(body, "header"), SubElement(body, "main")
    anchors = [f"s{i}" for i in range(len(blocks))]
    target: Element = header
    for block, anchor in zip(blocks, anchors, strict=True):
        if isinstance(block, Heading) and block.level > 1 and target is header:
            _contents(header, blocks, anchors)
            target = main
        _block(target, block, anchor, pictures or {})
    return "<!DOCTYPE html>\n" + tostring(html, encoding="unicode", method="html") + "\n"


def _contents(parent: Element, blocks: Sequence[Block], anchors: Sequence[str]) -> None:
    entries = SubElement(SubElement(parent, "nav", {"aria-label": "Contents"}), "ul")
    for block, anchor in zip(blocks, anchors, strict=True):
        if isinstance(block, Heading) and block.level == 2:
            _say(SubElement(SubElement(entries, "li"), "a", href=f"#{anchor}"), block.text)


def _block(parent: Element, block: Block, anchor: str, pictures: Mapping[str, Source]) -> None:
    if isinstance(block, Heading):
        _say(SubElement(parent, f"h{block.level}", id=anchor), block.text)
    elif isinstance(block, Paragraph):
        _say(SubElement(parent, "p"), block.text)
    elif isinstance(block, Picture):
        _figure(parent, block, pictures[block.name])
    else:
        _table(parent, block)


def _table(parent: Element, block: Table) -> None:
    """In a frame that scrolls, and that the keyboard reaches."""
    frame = SubElement(
        parent, "div", {"class": "table", "role": "region", "tabindex": "0", "aria-label": clean(block.caption)}
    )
    table = SubElement(frame, "table", {"class": "numbers" if block.numbers else "words"})
    _say(SubElement(table, "caption"), block.caption)
    starts = _starts(block)
    head = SubElement(table, "thead")
    if block.spans:
        row = SubElement(head, "tr")
        SubElement(row, "td")
        for name, columns in block.spans:
            kind = {"scope": "colgroup", "colspan": str(columns), "class": "start"}
            _say(SubElement(row, *(("th", kind) if name else ("td", {"colspan": str(columns)}))), name)
    if any(block.head):
        row = SubElement(head, "tr")
        for i, cell in enumerate(block.head):
            kind = ("th", {"scope": "col"}) if cell else ("td",)
            figure = i and block.numbers and isinstance(cell, str)
            _say(_started(SubElement(row, *kind), i in starts), _broken(cell) if figure else cell)
    body = SubElement(table, "tbody")
    for cells in block.rows:
        row = SubElement(body, "tr")
        for i, cell in enumerate(cells):
            kind = ("td",) if i else ("th", {"scope": "row"})
            figure = i and block.numbers and isinstance(cell, str)
            _say(_started(SubElement(row, *kind), i in starts), _broken(cell) if figure else cell)


def _broken(figure: str) -> str:
    """A figure that may be broken before its brackets, and nowhere else."""
    return re.sub(" (?![(\\[])", "\u00a0", figure)


def _starts(block: Table) -> set[int]:
    """Columns at which a named group begins."""
    found, start = set(), 1
    for name, columns in block.spans:
        if name:
            found.add(start)
        start += columns
    return found


def _started(element: Element, start: bool) -> Element:
    if start:
        element.set("class", "start")
    return element


def _figure(parent: Element, block: Picture, source: Source) -> None:
    figure = SubElement(parent, "figure")
    picture = SubElement(figure, "picture")
    if source.dark:
        SubElement(picture, "source", media="(prefers-color-scheme: dark)", srcset=source.dark)
    width, height = map(str, source.size)
    SubElement(picture, "img", src=source.light, alt=clean(block.alt), width=width, height=height)
    if block.caption:
        _say(SubElement(figure, "figcaption"), block.caption)
    if block.asked:
        _say(SubElement(parent, "p"), ASKED)
        entries = SubElement(parent, "ol")
        for entry in block.asked:
            _say(SubElement(entries, "li"), entry)


def _say(element: Element, text: Text) -> None:
    """Put a text's parts into an element, which is empty."""
    last = None
    for part in parts(text):
        tag = {Strong: "strong", Code: "code"}.get(type(part))
        if tag:
            last = SubElement(element, tag)
            last.text = clean(part)
        elif last is None:
            element.text = (element.text or "") + clean(part)
        else:
            last.tail = (last.tail or "") + clean(part)


def _plain(text: Text) -> str:
    return "".join(parts(text))


# -- pictures ----------------------------------------------------------------------------------------------------------


def _from_file(path: Path) -> Source:
    data, kind = path.read_bytes(), "png"
    with Image.open(path) as image:
        size = image.size
        if len(data) > LARGEST:
            smaller = io.BytesIO()
            image.convert("RGB").save(smaller, "webp", quality=88)
            data, kind = smaller.getvalue(), "webp"
    return Source(_uri(data, kind), None, size)


def _uri(data: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _svg_size(data: bytes) -> tuple[int, int]:
    """Width and height from its view box, in points."""
    box = re.search(rb'viewBox="0 0 ([\d.]+) ([\d.]+)"', data)
    width, height = (float(side) for side in box.groups())
    return round(width * 4 / 3), round(height * 4 / 3)
