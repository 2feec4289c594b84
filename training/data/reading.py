"""A finished cache of some data: batches from it, read where they lie.

A cache's folder holds, for each identity (see `settings`), a folder of blocks, and in it one folder for each set of
data that was encoded, with its index and the list of what was skipped:

    <cache>/<identity>/settings.json, pictures-….safetensors, texts-….safetensors
    <cache>/<identity>/data-…/index.json, skipped.txt

Sets of data share the blocks, and so do runs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ..disk import reason, write_atomically
from ..draws import generator_for
from .blocks import Present, Reader, text_key
from .items import DataError, Skipped
from .order import Order
from .plan import EMPTY, Plan
from .settings import VERSION, check_same

SETTINGS, INDEX, SKIPPED = "settings.json", "index.json", "skipped.txt"
CAPTIONS = 64  # of the captions in words, so many stand in an index


class Examples(NamedTuple):
    """A batch, or a process's part of it.

    Attributes:
        rows: which items of the cache, (B,).
        latents: (B, 4, h, w), as the VAE or the teacher gave them.
        texts: what the network is told, each (B, …).
        sizes: original height and width, the crop's top and left, target height and width in pixels, (B, 6) float32.
    """

    rows: Tensor
    latents: Tensor
    texts: dict[str, Tensor]
    sizes: Tensor


class Cache:
    """Encoded data; `Cache.open` one, or `cache.encode` it.

    Attributes:
        folder: that of the index.
        identity: what it was made with.
        names: of the items, for people.  repeats: how often an epoch holds each.
        epoch: items in an epoch, repeats counted.
    """

    def __init__(self, folder: Path, index: dict) -> None:
        self.folder, self.identity = Path(folder), index["identity"]
        items = index["items"]
        self.names, self.repeats = items["name"], items["repeats"]
        self._pictures, self._captions = items["picture"], items["text"]
        self.sizes = torch.tensor(items["size"], dtype=torch.float32).reshape(-1, 6)
        self._files, self._file_of = list(index["files"]), index["file_of"]
        self._text_names, self._first_captions = index["texts"], index["captions"]
        self._read = Reader(self.folder.parent)
        of_bucket: dict[tuple[int, int], list[int]] = {}
        # by what they hold: the order of batches is the same when files were moved or renamed
        for row in sorted(range(len(self)), key=lambda row: (self._pictures[row], self._captions[row])):
            size = items["size"][row]
            of_bucket.setdefault((size[5], size[4]), []).extend([row] * self.repeats[row])
        self._order = Order(of_bucket)
        self._buckets = {bucket: len(rows) for bucket, rows in sorted(of_bucket.items())}
        self.epoch = sum(self.repeats)

    @classmethod
    def open(cls, folder: Path, made_with: dict | None = None) -> Cache:
        """Open a finished cache.

        Args:
            folder: `Cache.folder` of before: that of an index.
            made_with: the identity it must have, see `settings.identity`; None takes it as it is.

        Raises:
            DataError: it is not finished, damaged, a file of it is missing, or it was made with other settings.
        """
        folder = Path(folder)
        index = _read_index(folder)
        for about, found in ((folder, index["identity"]), (folder.parent, _settings(folder.parent, index))):
            check_same(found, index["identity"] if made_with is None else made_with, about)
        for name, n_bytes in index["files"].items():
            _check_length(folder.parent / name, n_bytes)
        return cls(folder, index)

    def __len__(self) -> int:
        """How many items; repeats are not counted."""
        return len(self.names)

    @property
    def buckets(self) -> dict[tuple[int, int], int]:
        """(width, height) in pixels → items of that size in an epoch."""
        return dict(self._buckets)

    def batch(
        self,
        step: int,
        count: int,
        seed: int,
        stream: str,
        part: slice = slice(None),  # noqa: B008 - never changed
        dropout: float = 0.0,
    ) -> Examples:
        """A step's batch, from the arguments alone, all of one size; see `order` for which items it holds.

        Args:
            count: items in the whole batch, over all processes.
            stream: the phase's name; each has its own order.
            part: rows of the batch to give; the others are not read.
            dropout: share of captions that are replaced by the empty one.
        """
        rows = self._order.batch(step, count, seed, stream)
        dropped = torch.rand(count, generator=generator_for(seed, f"{stream} dropout", step)).numpy() < dropout
        rows, dropped = rows[part], dropped[part]
        empty = text_key(EMPTY)
        return Examples(
            torch.from_numpy(rows),
            torch.stack([self._tensors(self._pictures[row], ["latents"])[0] for row in rows]),
            self._embedded([empty if out else self._captions[row] for row, out in zip(rows, dropped, strict=True)]),
            self.sizes[rows],
        )

    def texts(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """The embeddings of captions, each (B, …): of the data's, the empty one, and those `encode` was given besides.

        Raises:
            DataError: one was not encoded.
        """
        keys = [text_key(caption) for caption in captions]
        for key, caption in zip(keys, captions, strict=True):
            if key not in self._file_of:
                raise DataError(f"the caption {caption!r} is not in the cache {self.folder}: encode it with the data")
        return self._embedded(keys)

    def captions(self, count: int) -> list[str]:
        """The first distinct captions of the data, up to ``count`` and up to `CAPTIONS`."""
        return self._first_captions[:count]

    def _embedded(self, keys: Sequence[str]) -> dict[str, Tensor]:
        columns = zip(*(self._tensors(key, self._text_names) for key in keys), strict=True)
        return {name: torch.stack(column) for name, column in zip(self._text_names, columns, strict=True)}

    def _tensors(self, key: str, names: Sequence[str]) -> list[Tensor]:
        return self._read(self._files[self._file_of[key]], key, names)


# ---- the index ----


def index_folder(blocks: Path, data: str) -> Path:
    """Where the index of some data stands; ``data`` is `Plan.name`."""
    return blocks / f"data-{data}"


def write_index(folder: Path, identity: dict, plan: Plan, there: Present, skipped: Sequence[Skipped]) -> Path:
    """Write the index of a plan whose blocks are all there, and the list of what was skipped; gives the folder.

    Raises:
        OutputError: the disk is full or not writable.
    """
    folder.mkdir(exist_ok=True)
    rows = [row for row in plan.rows if row.picture in there.block]
    keys = {row.picture for row in rows} | {text_key(caption) for caption in plan.captions}
    shown = {row.text for row in rows}
    files = sorted({there.block[key] for key in keys})
    number = {name: i for i, name in enumerate(files)}
    index = {
        "version": VERSION,
        "identity": identity,
        "files": {name: (folder.parent / name).stat().st_size for name in files},
        "captions": list(islice((c for c in plan.captions if text_key(c) in shown), CAPTIONS)),
        "texts": Reader(folder.parent).names(there.block[text_key(EMPTY)], text_key(EMPTY)),
        "items": {
            "name": [row.name for row in rows],
            "repeats": [row.repeats for row in rows],
            "picture": [row.picture for row in rows],
            "text": [row.text for row in rows],
            "size": [there.size[row.picture] for row in rows],
        },
        "file_of": {key: number[there.block[key]] for key in sorted(keys)},
    }
    write_atomically(folder / SKIPPED, "".join(f"{item.key}: {item.why}\n" for item in skipped))
    write_atomically(folder / INDEX, json.dumps(index) + "\n")
    return folder


def _read_index(folder: Path) -> dict:
    path = folder / INDEX
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["version"] != VERSION:
            raise ValueError(f"it is of version {index['version']}, this is version {VERSION}")
        return index
    except FileNotFoundError:
        raise DataError(
            f"{folder} is no finished cache: it has no {INDEX}. Start the run again to encode the data"
        ) from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    except (ValueError, LookupError, TypeError) as error:
        raise DataError(
            f"{path} is damaged ({error}). Delete it, and start the run again: what is encoded stays"
        ) from None


def _settings(blocks: Path, index: dict) -> dict:
    """The identity of the blocks' folder, whatever its name says."""
    try:
        return json.loads((blocks / SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise DataError(
            f"{blocks / SETTINGS} is missing or damaged: it says what the cache was made with. Start the run again"
        ) from None


def _check_length(path: Path, n_bytes: int) -> None:
    found = path.stat().st_size if path.is_file() else None
    if found != n_bytes:
        what = "is missing" if found is None else f"is damaged: {found} bytes where {n_bytes} were written"
        raise DataError(f"the cache's file {path} {what}. Start the run again: what is missing is encoded again")
