"""Lists of numbers as people type them into a text field."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

MAX_SEED = 0xFFFFFFFFFFFFFFFF  # as in the host's own nodes
SHOWN = 20  # characters of a wrong piece that an error quotes


def parse_numbers(text: str, what: str) -> list[float]:
    """Numbers separated by commas, semicolons, blanks or new lines; ValueError names the first piece that is none."""
    numbers = []
    for piece in _pieces(text):
        try:
            numbers.append(float(_plain(piece)))
        except ValueError:
            message = f"{what}: {piece[:SHOWN]!r} is not a number; write numbers separated by commas"
            raise ValueError(message) from None
    return numbers


def parse_integers(text: str, what: str, least: int, most: int) -> list[int]:
    """Whole numbers from least to most, separated as above, exact at any size; ValueError names the first wrong one."""
    numbers = []
    for piece in _pieces(text):
        try:
            numbers.append(int(_plain(piece)))
        except ValueError:
            message = f"{what}: {piece[:SHOWN]!r} is not a whole number; write whole numbers separated by commas"
            raise ValueError(message) from None
        if not least <= numbers[-1] <= most:
            raise ValueError(f"{what}: {piece[:SHOWN]} does not lie in {least} … {most}")
    return numbers


def _plain(piece: str) -> str:
    """Digits, points and signs as Chinese and Japanese keyboards write them too, in ASCII."""
    return unicodedata.normalize("NFKC", piece)


def _pieces(text: str) -> Iterator[str]:
    """What stands between the separators; commas as Chinese and Japanese keyboards write them count too."""
    return filter(None, re.split(r"[,;\s，；、]+", text or ""))
