"""CLIP's vocabulary and its tokenizers, without a download.

The package holds the 48,894 merges of CLIP's byte-pair encoding (OpenAI's, MIT licence, see NOTICE.md beside them). The
49,408 tokens follow from them: 256 bytes, the same as ends of words, every merge joined, and the two marks.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from functools import lru_cache
from pathlib import Path

from transformers import CLIPTokenizer

from .weights import ModelError

SIZE = 49_408
LENGTH = 77  # tokens of a caption, with start and end
START, END = "<|startoftext|>", "<|endoftext|>"
PAD = {  # what captions are filled up with: CLIP-L with the end mark, the OpenCLIP encoders with "!", whose id is 0
    "sd15": (END,),
    "sd21": ("!",),
    "sdxl": (END, "!"),
}
_MERGES = Path(__file__).parent / "clip_merges.txt.gz"
_FILES = ("vocab.json", "merges.txt")


def merges() -> list[str]:
    """CLIP's merges in their order, ``"i n"``, ``"t h"``, …"""
    lines = gzip.decompress(_MERGES.read_bytes()).decode("utf-8").split("\n")
    return [line for line in lines[1:] if line]


@lru_cache(maxsize=1)
def vocabulary() -> dict[str, int]:
    """Token → id."""
    symbols = _byte_symbols()
    tokens = [
        *symbols,
        *(f"{symbol}</w>" for symbol in symbols),
        *("".join(pair.split()) for pair in merges()),
        START,
        END,
    ]
    return {token: index for index, token in enumerate(tokens)}


def _byte_symbols() -> list[str]:
    """A printable character for each byte: itself where it is one, else one from 256 up, printable bytes first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [chr(byte) for byte in printable] + [chr(256 + n) for n in range(256 - len(printable))]


def write_vocabulary(folder: Path) -> None:
    """Write `vocab.json` and `merges.txt`, as transformers reads them."""
    (folder / _FILES[0]).write_text(json.dumps(vocabulary(), ensure_ascii=False), encoding="utf-8")
    (folder / _FILES[1]).write_text("\n".join(["#version: 0.2", *merges(), ""]), encoding="utf-8")


def tokenizers(family: str, folder: str | Path = "") -> list[CLIPTokenizer]:
    """The tokenizers of a family's text encoders, each caption 77 tokens long.

    Args:
        family: "sd15", "sd21" or "sdxl".
        folder: with another vocab.json and merges.txt than CLIP's own.

    Raises:
        ModelError: the folder lacks one of them, or they aren't CLIP's.
    """
    if not folder:
        with tempfile.TemporaryDirectory() as temporary:
            write_vocabulary(Path(temporary))
            return [_tokenizer(Path(temporary), pad) for pad in PAD[family]]
    folder = Path(folder).expanduser()
    absent = [name for name in _FILES if not (folder / name).is_file()]
    if absent:
        raise ModelError(
            f"{folder} holds no CLIP vocabulary: {' and '.join(absent)} missing. Give a folder with both "
            "(ComfyUI has one: comfy/sd1_tokenizer), or leave model.vocabulary empty for the standard one"
        )
    made = [_tokenizer(folder, pad) for pad in PAD[family]]
    if len(made[0]) != SIZE or made[0].bos_token_id != SIZE - 2 or made[0].eos_token_id != SIZE - 1:
        raise ModelError(
            f"{folder} is no CLIP vocabulary: {len(made[0]):,} tokens, not {SIZE:,} with {START} and {END} last"
        )
    return made


def _tokenizer(folder: Path, pad: str) -> CLIPTokenizer:
    try:
        made = CLIPTokenizer.from_pretrained(
            str(folder),
            local_files_only=True,
            bos_token=START,
            eos_token=END,
            unk_token=END,
            pad_token=END,
            model_max_length=LENGTH,
        )
        made.pad_token = pad  # told at once, "!" would become a mark, and be id 0 in captions too, where it is 256
    except Exception as error:  # transformers has many errors for broken files
        raise ModelError(f"the CLIP vocabulary in {folder} can't be read: {error}") from error
    made.name_or_path = "clip"
    return made
