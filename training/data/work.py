"""One process's share of a pass: blocks of pictures decoded, encoded and written, then blocks of captions.

While one block is in the encoder, the pictures of the next are decoded by other threads.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm.auto import tqdm

from ..disk import reason
from . import blocks, pictures
from .blocks import picture_key, prompt_key, text_key
from .buckets import Size, fit, sizes_record
from .items import DataError, Item, Skipped, Source, Unusable
from .plan import PictureBlock, TextBlock
from .settings import Settings, fingerprint, identity

_DECODERS = min(8, os.cpu_count() or 1)


class Encoders(Protocol):
    """A family's VAE, text encoders and teacher. Nothing but ``fingerprint`` is asked for when the cache is complete.

    All of a pass's `latents` or `from_prompt` are called before the first of its `texts`, but for `texts([""])` at
    the very beginning. The same input must give the same output: no random numbers but those of the seeds.

    Attributes:
        fingerprint: stands for the weights and number formats of all three.
    """

    fingerprint: str

    def latents(self, pixels: Tensor) -> Tensor:
        """The mean of the posterior, scaled as the network takes it: (B, 3, H, W) in [−1, 1] → (B, 4, H/8, W/8)."""

    def texts(self, captions: list[str]) -> dict[str, Tensor]:
        """What the network is told of captions, each (B, …)."""

    def from_prompt(self, captions: list[str], seeds: list[int], size: tuple[int, int]) -> Tensor:
        """Latents that the teacher makes, (B, 4, H/8, W/8); ``size`` is height and width in pixels."""


class Loaded(NamedTuple):
    """A picture, (height, width, 3) in uint8, or the prompt of one, ready for the encoder."""

    key: str
    name: str
    record: tuple[int, ...]
    pixels: np.ndarray | None
    prompt: str
    seed: int | None

    @property
    def bucket(self) -> tuple[int, int]:
        """Height and width."""
        return self.record[4:]


class Bad(NamedTuple):
    """A picture that turned out to be damaged."""

    key: str
    why: str


@dataclass
class Work:
    """A process's share; see `cache.encode` for the attributes.

    Attributes:
        folder: of the cache's identity.
        quiet: no progress bar.
    """

    source: Source
    encoders: Encoders
    folder: Path
    settings: Settings
    picture_batch: int = 4
    text_batch: int = 32
    quiet: bool = True

    @cached_property
    def fingerprint(self) -> str:
        """Of the cache's identity."""
        return fingerprint(identity(self.settings, self.encoders.fingerprint))

    def pictures(self, todo: Sequence[PictureBlock]) -> None:
        """Make and write blocks of latents.

        Raises:
            DataError: the data are not what they were; the encoder gave NaN.
            OutputError: the disk is full or not writable.
        """
        total = sum(len(block.keys) for block in todo)
        with pictures.without_warnings(), self._progress(total, "encoding pictures") as progress:
            for block, loaded in _decoded(self.source, todo, partial(load, random_crop=self.settings.crop == "random")):
                good = [item for item in loaded if isinstance(item, Loaded)]
                latents = {}
                for items in _batches(good, self.picture_batch):
                    latents.update(self._latents(items))
                    progress.update(len(items))
                size = {item.key: item.record for item in good}
                bad = {item.key: item.why for item in loaded if isinstance(item, Bad)}
                progress.update(len(bad))
                self._write(block.name, latents, block.keys, size=size, bad=bad)

    def texts(self, todo: Sequence[TextBlock]) -> None:
        """Make and write blocks of embedded captions; raises as `pictures` does."""
        with self._progress(sum(len(block.captions) for block in todo), "encoding captions") as progress:
            for block in todo:
                embedded = {}
                for i in range(0, len(block.captions), self.text_batch):
                    captions = block.captions[i : i + self.text_batch]
                    with torch.no_grad():
                        parts = self.encoders.texts(captions)
                    for name, tensor in parts.items():
                        rows = _separate(tensor, captions, "the text encoder")
                        embedded.update({f"{text_key(c)}.{name}": row for c, row in zip(captions, rows, strict=True)})
                    progress.update(len(captions))
                self._write(block.name, embedded, [text_key(caption) for caption in block.captions])

    def _latents(self, items: list[Loaded]) -> dict[str, Tensor]:
        with torch.no_grad():
            if items[0].pixels is None:
                prompts, seeds = [item.prompt for item in items], [item.seed for item in items]
                latents = self.encoders.from_prompt(prompts, seeds, items[0].bucket)
            else:
                latents = self.encoders.latents(as_pixels([item.pixels for item in items]))
        who = "the teacher" if items[0].pixels is None else "the VAE"
        rows = _separate(latents, [item.name for item in items], who)
        return {f"{item.key}.latents": row for item, row in zip(items, rows, strict=True)}

    def _write(self, name: str, tensors: dict[str, Tensor], keys: list[str], **said) -> None:
        blocks.write(self.folder / name, tensors, self.fingerprint, keys, **said)

    def _progress(self, total: int, what: str) -> tqdm:
        return tqdm(total=total, desc=what, disable=self.quiet or total == 0)


def load(item: Item, key: str, bucket: Size, random_crop: bool = False) -> Loaded | Bad:
    """Read and decode a picture, and crop it to its bucket.

    Raises:
        DataError: it is not the picture that was planned.
    """
    if item.open is None:
        if prompt_key(item.caption, item.seed) != key:
            raise _changed(item.key)
        return Loaded(key, item.key, sizes_record(bucket, bucket, fit(bucket, bucket)), None, item.caption, item.seed)
    try:
        data = item.open()
    except OSError as error:
        raise DataError(f"{item.key} cannot be read any more: {reason(error)}. Start it again") from error
    if picture_key(data) != key:
        raise _changed(item.key)
    try:
        size = pictures.size_of(data)
        right, down = _crop_of(key) if random_crop else (0.5, 0.5)
        crop = fit(size, bucket, right, down)
        return Loaded(key, item.key, sizes_record(size, bucket, crop), pictures.read(data, bucket, crop), "", None)
    except Unusable as error:
        return Bad(key, str(error))


def as_pixels(pictures: list[np.ndarray]) -> Tensor:
    """(B, 3, H, W) in [−1, 1], float32, of pictures (H, W, 3) in uint8."""
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float().div(127.5).sub(1.0).contiguous()


def _crop_of(key: str) -> tuple[float, float]:
    """Where a picture's random crop lies, 0 … 1 to the right and down."""
    numbers = np.frombuffer(hashlib.sha256(f"crop {key}".encode()).digest()[:8], dtype=">u4")
    return tuple((numbers / 2**32).tolist())


def _decoded(
    source: Source, todo: Sequence[PictureBlock], load: Callable[..., Loaded | Bad]
) -> Iterator[tuple[PictureBlock, list[Loaded | Bad]]]:
    """Each block with its items decoded, one block ahead."""
    pending: deque[tuple[PictureBlock, list[Future]]] = deque()
    with ThreadPoolExecutor(_DECODERS) as pool:
        for block, items in _arriving(source, todo):
            pending.append((block, [pool.submit(load, *a) for a in zip(items, block.keys, block.buckets, strict=True)]))
            if len(pending) > 1:
                block, futures = pending.popleft()
                yield block, [future.result() for future in futures]
        for block, futures in pending:
            yield block, [future.result() for future in futures]


def _arriving(source: Source, todo: Sequence[PictureBlock]) -> Iterator[tuple[PictureBlock, list[Item]]]:
    """Each block with its items, the source gone through once: the blocks' places ascend."""
    blocks_left, items = deque(todo), []
    for place, item in enumerate(source if todo else ()):
        if place != blocks_left[0].places[len(items)]:
            continue
        if isinstance(item, Skipped):
            raise _changed(item.key)
        items.append(item)
        if len(items) == len(blocks_left[0].places):
            yield blocks_left.popleft(), items
            items = []
        if not blocks_left:
            return
    if blocks_left:
        raise _changed(str(source))


def _batches(items: list[Loaded], count: int) -> Iterator[list[Loaded]]:
    """Up to ``count`` of one bucket at a time."""
    of_bucket: dict[tuple[int, int], list[Loaded]] = {}
    for item in items:
        of_bucket.setdefault(item.bucket, []).append(item)
    for same in of_bucket.values():
        yield from (same[i : i + count] for i in range(0, len(same), count))


def _separate(batch: Tensor, names: list[str], who: str) -> list[Tensor]:
    """The rows of an encoder's output, on the CPU; each is to be finite."""
    for name, row in zip(names, batch, strict=True):
        if not torch.isfinite(row).all():
            raise DataError(
                f"{who} gave NaN or infinity for {name!r}: its weights are damaged, or its number format overflows, as "
                "fp16 does in SDXL's VAE (bf16 and fp32 do not)"
            )
    return [row.clone(memory_format=torch.contiguous_format) for row in batch.detach().cpu()]


def _changed(name: str) -> DataError:
    return DataError(f"{name} was changed while the data were being read. Start it again: what is encoded stays")
