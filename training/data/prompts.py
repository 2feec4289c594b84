"""Prompts alone: the teacher makes the start latents itself, for people with no pictures."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from ..disk import reason
from .items import DataError, Item, Skipped, Unusable, caption_of


class Prompts:
    """A text file with a prompt per line; blank lines and lines that begin with ``#`` are passed over.

    Each prompt gives ``seeds`` items. Their seeds follow from the prompt, and not from its place in the file: prompts
    that are added or moved leave the latents of the others as they are. A prompt that stands there twice has twice as
    many items, all different.

    Raises:
        DataError: the file cannot be read.
    """

    def __init__(self, path: str | os.PathLike, seeds: int = 1) -> None:
        if seeds < 1:
            raise DataError(f"data.prompt_seeds must be at least 1, got {seeds}")
        self.path, self.seeds = Path(path), seeds
        self._lines()

    def __str__(self) -> str:
        return f"the prompts in {self.path}"

    def __iter__(self) -> Iterator[Item | Skipped]:
        seen: Counter[str] = Counter()
        for number, line in enumerate(self._lines(), 1):
            if not line.strip() or line.strip().startswith(b"#"):
                continue
            try:
                prompt = caption_of(line)
            except Unusable as error:
                yield Skipped(f"line {number}", str(error).replace("its caption", "the prompt"))
                continue
            for turn in range(seen[prompt], seen[prompt] + self.seeds):
                yield Item(f"line {number}, picture {turn + 1}", prompt, seed=seed_of(prompt, turn))
            seen[prompt] += self.seeds

    def _lines(self) -> list[bytes]:
        try:
            return self.path.read_bytes().removeprefix(b"\xef\xbb\xbf").splitlines()
        except OSError as error:
            raise DataError(
                f"data.prompts: {self.path} cannot be read: {reason(error)}. Name a text file with one prompt per line"
            ) from error


def seed_of(prompt: str, turn: int) -> int:
    """The seed, below 2⁶³, of a prompt's picture number ``turn``."""
    return int.from_bytes(hashlib.sha256(f"{turn}\n{prompt}".encode()).digest()[:8], "big") >> 1
