"""A cache's files: blocks of latents and of embedded captions, named after what is in them.

All blocks of one identity stand in one folder and are never changed: a block is written whole, in one step, and holds
what it was planned to hold, so whoever finds one can use it. Each says of which identity it is.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..disk import reason, write_atomically
from .items import DataError

Kind = Literal["pictures", "texts"]
_METADATA = "tcd_cache"  # one entry: the order of several is not the same in each file


def picture_key(data: bytes) -> str:
    """A picture file's content, as 64 hexadecimal digits."""
    return hashlib.sha256(b"picture\n" + data).hexdigest()


def prompt_key(prompt: str, seed: int) -> str:
    """The picture that the teacher makes of a prompt and a seed."""
    return hashlib.sha256(f"prompt {seed}\n{prompt}".encode()).hexdigest()


def text_key(caption: str) -> str:
    """A caption."""
    return hashlib.sha256(f"text\n{caption}".encode()).hexdigest()


def block_name(kind: Kind, keys: Iterable[str]) -> str:
    """The file name of the block that was planned to hold these keys."""
    return f"{kind}-{hashlib.sha256(' '.join(keys).encode()).hexdigest()[:24]}.safetensors"


@dataclass
class Present:
    """What the blocks of a folder hold.

    Attributes:
        block: key → name of the file it is in.
        size: picture's key → its size record, see `buckets.sizes_record`.
        bad: key of a picture that could not be read → the reason.
    """

    block: dict[str, str] = field(default_factory=dict)
    size: dict[str, tuple[int, ...]] = field(default_factory=dict)
    bad: dict[str, str] = field(default_factory=dict)

    def __contains__(self, key: str) -> bool:
        return key in self.block or key in self.bad


def write(path: Path, tensors: dict[str, Tensor], fingerprint: str, keys: list[str], **said) -> None:
    """Write a block whole or not at all.

    Args:
        keys: what it was planned to hold.
        said: more for its head: "size" and "bad", as in `Present`.

    Raises:
        OutputError: the disk is full or not writable.
    """
    head = json.dumps({"settings": fingerprint, "keys": keys, **said}, sort_keys=True)
    write_atomically(path, safetensors.torch.save(tensors, {_METADATA: head}))


def present(folder: Path, fingerprint: str, say: Callable[[str], None] = lambda line: None) -> Present:
    """Look through the blocks of a folder; those that are damaged or of another identity count as not there."""
    found = Present()
    for path in sorted(folder.glob("*-*.safetensors")):
        try:
            head = _head(path)
            if head["settings"] != fingerprint:
                raise ValueError("it is of other settings")
            bad = dict(head.get("bad", {}))
            inside = [key for key in head["keys"] if key not in bad]
            size = {key: tuple(size) for key, size in head.get("size", {}).items()}
        except (OSError, SafetensorError, ValueError, LookupError, TypeError, AttributeError) as error:
            say(f"{path} is not used, and encoded again if it is needed: {error}")
            continue
        found.bad.update(bad)
        found.size.update(size)
        for key in inside:
            found.block.setdefault(key, path.name)
    return found


def _head(path: Path) -> dict:
    with safe_open(path, "pt") as file:  # refuses a file that is not as long as its header says
        return json.loads((file.metadata() or {})[_METADATA])


class Reader:
    """Tensors of a folder's blocks, memory-mapped: what is not asked for is not read.

    Args:
        limit: how many files are held open at a time.
    """

    def __init__(self, folder: Path, limit: int = 128) -> None:
        self.folder, self.limit = folder, limit
        self._open: OrderedDict[str, safe_open] = OrderedDict()

    def __call__(self, block: str, key: str, names: Iterable[str]) -> list[Tensor]:
        """A key's tensors of these names: "latents" of a picture's, the text encoders' of a caption's.

        Raises:
            DataError: the file has gone, or is damaged.
        """
        try:
            file = self._file(block)
            return [file.get_tensor(f"{key}.{name}") for name in names]
        except (OSError, SafetensorError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            raise DataError(
                f"the cache's file {self.folder / block} cannot be read: {why}. Start the run again: what is missing "
                "is encoded again"
            ) from error

    def names(self, block: str, key: str) -> list[str]:
        """The names of a key's tensors."""
        return sorted(name.partition(".")[2] for name in self._file(block).keys() if name.startswith(f"{key}."))

    def _file(self, block: str):
        if block in self._open:
            self._open.move_to_end(block)
        else:
            self._open[block] = safe_open(self.folder / block, "pt")
            if len(self._open) > self.limit:
                self._open.popitem(last=False)
        return self._open[block]
