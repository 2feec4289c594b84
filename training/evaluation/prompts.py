"""What is asked for: prompts from a text file, a line each, or COCO's captions, one per picture."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from ..data.items import DataError, Unusable, caption_of
from ..disk import reason

COCO_CAPTIONS = "captions_val2017.json"
COCO_PICTURES = "val2017"
COCO_COUNT = 5000


class Prompt(NamedTuple):
    """A prompt; ``turn`` counts the same one's earlier places in the list, whose pictures are to be others."""

    text: str
    turn: int

    @property
    def key(self) -> int:
        """Below 2⁶³: what its noise is keyed by, beside the seed; follows from the prompt, not from its place."""
        return int.from_bytes(hashlib.sha256(f"{self.turn}\n{self.text}".encode()).digest()[:8], "big") >> 1


def read_prompts(path: Path, count: int | None = None) -> list[Prompt]:
    """The first ``count`` prompts of a file with one a line; blank lines and lines that begin with # are passed over.

    Raises:
        DataError: it cannot be read, is not UTF-8 (the line is named), or holds no prompt.
    """
    data = _bytes_of(path, "a text file with one prompt per line")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise DataError(f"--prompts: {path} is UTF-16, not UTF-8: save it as UTF-8")
    texts = []
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").splitlines(), 1):
        if not line.strip() or line.strip().startswith(b"#"):
            continue
        try:
            texts.append(caption_of(line))
        except Unusable as error:
            problem = str(error).replace("its caption", "the prompt")
            raise DataError(f"--prompts: {path}, line {number}: {problem}") from None
    if not texts:
        raise DataError(f"--prompts: {path} holds no prompt: write one per line")
    return numbered(texts[:count])


def read_coco(folder: Path, count: int | None = None) -> tuple[list[Prompt], Path]:
    """COCO-2017 validation as in the paper's protocol: each picture's first caption, by picture; and the pictures.

    Args:
        folder: with captions_val2017.json, in it or in its ``annotations``, and the pictures in ``val2017``.

    Raises:
        DataError: one of them is missing, damaged or something else.
    """
    folder = Path(folder)
    places = [folder / "annotations" / COCO_CAPTIONS, folder / COCO_CAPTIONS]
    path = next((place for place in places if place.is_file()), places[0])
    pictures = folder / COCO_PICTURES
    if not pictures.is_dir():
        raise DataError(f"--coco: {pictures} is missing: unpack COCO's 2017 Val images there")
    try:
        listed = json.loads(_bytes_of(path, "COCO's 2017 Train/Val annotations, unpacked"))
        captions: dict[int, tuple[int, str]] = {}
        for of in listed["annotations"]:
            known = captions.get(of["image_id"])
            if known is None or of["id"] < known[0]:
                captions[of["image_id"]] = (of["id"], caption_of(of["caption"].encode()))
        names = [image["file_name"] for image in listed["images"]]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"--coco: {path} does not hold COCO's captions ({error}): unpack it again") from error
    if len(names) != COCO_COUNT:
        raise DataError(
            f"--coco: {path} lists {len(names)} pictures, COCO-2017 validation has {COCO_COUNT}: unpack it again"
        )
    missing = sum(not (pictures / name).is_file() for name in names)
    if missing or len(captions) != len(names):
        what = f"{missing} of its {len(names)} pictures are not in {pictures}" if missing else "not each has a caption"
        raise DataError(f"--coco: {path} and its pictures do not belong together, {what}: unpack both again")
    return numbered([captions[image][1] for image in sorted(captions)][:count]), pictures


def numbered(texts: Sequence[str]) -> list[Prompt]:
    """Prompts with their turns."""
    seen: Counter[str] = Counter()
    prompts = []
    for text in texts:
        prompts.append(Prompt(text, seen[text]))
        seen[text] += 1
    return prompts


def _bytes_of(path: Path, what: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}. Give {what}") from error
