"""Webdataset shards: tar files in which the files of one sample have one name, and stand one after the other.

A sample is ``0001.jpg`` (``.jpeg .png .webp .bmp``) with ``0001.txt``, ``0001.caption`` or a ``0001.json`` that holds a
"caption". Shards are read from their beginning to their end, a sample at a time, and nothing is unpacked to the disk.
"""

from __future__ import annotations

import glob
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import closing
from typing import BinaryIO

from ..disk import reason
from .folder import PICTURES
from .items import CAPTION_LIMIT, DataError, Item, Skipped, Unusable, caption_of

_PICTURES = tuple(end[1:] for end in PICTURES)
_CAPTIONS = ("txt", "caption", "json")
_FILE_LIMIT = 1 << 29  # bytes: a larger file in a shard is not read
_JSON_LIMIT = 1 << 22


class Shards:
    """The samples of webdataset shards, in the shards' order.

    Args:
        urls: paths or http(s) addresses, with braces (``data-{0000..0127}.tar``) or, for paths, ``*``; several joined
            with ``::``.

    Raises:
        DataError: the library is missing; there is no such file; an address would run a command (``pipe:``).
    """

    def __init__(self, urls: str) -> None:
        try:
            from webdataset.shardlists import expand_urls
        except ImportError as error:
            raise DataError(
                "data.shards needs the library webdataset: pip install webdataset. Or unpack the shards, "
                "and name the folder as data.images"
            ) from error
        self.pattern = urls
        self.urls = [path for url in expand_urls(urls) for path in _checked(url)]

    def __str__(self) -> str:
        return f"the shards {self.pattern}"

    def __iter__(self) -> Iterator[Item | Skipped]:
        for url in self.urls:
            yield from _samples(url)


def _checked(url: str) -> list[str]:
    """A shard's address, or those of a path with ``*``, once it is known that it may be opened."""
    if url.startswith(("http://", "https://")):
        return [url]
    if ":" in url and not os.path.exists(url) and "*" not in url:
        why = "would run a command" if url.startswith("pipe:") else "is neither a file nor an http(s) address"
        raise DataError(f"data.shards: {url} {why}, and is not opened. Download the shards, and name the files")
    found = sorted(glob.glob(url)) if "*" in url else [url]
    missing = [path for path in found if not os.path.isfile(path)]
    if missing or not found:
        raise DataError(
            f"data.shards: there is no file {(missing or [url])[0]}. Name paths of .tar files, such as "
            "data-{0000..0127}.tar for 128 of them"
        )
    return found


def _samples(url: str) -> Iterator[Item | Skipped]:
    """One shard's items; if it is damaged, those before the damage, and at last the shard itself as skipped."""
    from webdataset.tariterators import group_by_keys

    shard, damage, doubles, count = os.path.basename(url), [], [], 0
    before = None  # a sample is given out when the next one has come: of the last it is not known whether it is whole
    for sample in group_by_keys(_files(url, damage), handler=_keep_in(doubles)):
        if before is not None:
            count += 1
            yield _item(shard, before)
        before = sample
    last = None if before is None else _item(shard, before)
    if isinstance(last, Item) or (last is not None and not damage):
        count += 1
        yield last
    for error in doubles:
        yield Skipped(url, f"a file that is in it twice, the second time: {error}")
    if damage and count == 0 and "://" in url:
        raise DataError(
            f"data.shards: {url} gave nothing: {damage[0]}. Check the address and the network, and run it again: what "
            "is encoded stays"
        )
    if damage:
        yield Skipped(
            url,
            f"the shard is damaged after {count} samples ({damage[0]}): what follows is lost, the samples before are "
            "used. Copy or download it again",
        )


def _files(url: str, damage: list) -> Iterator[dict]:
    """Name and content of the files in a shard that matter; an error ends it and goes to ``damage``."""
    try:
        with closing(_stream(url)) as stream, tarfile.open(fileobj=stream, mode="r|*", tarinfo=_Member) as archive:
            for member in archive:
                ending = member.name.rpartition(".")[2].lower()
                known = ending in _PICTURES + _CAPTIONS and not os.path.basename(member.name).startswith(("__", "._"))
                if member.isreg() and known and member.size <= _FILE_LIMIT:
                    yield {"fname": member.name, "data": archive.extractfile(member).read(), "__url__": url}
                archive.members = []  # else it keeps every header it has seen
    except MemoryError:
        raise
    except Exception as error:  # tar, gzip, xz and the connection have their own
        damage.append(reason(error) if isinstance(error, OSError) else error)


class _Member(tarfile.TarInfo):
    """A header that is damaged or cut off is an error: tarfile itself takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive):
        try:
            return super().fromtarfile(archive)
        except tarfile.EOFHeaderError:
            raise
        except tarfile.EmptyHeaderError:
            raise tarfile.ReadError("it ends without a tar file's end mark: cut short") from None
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(f"{error} at byte {archive.offset}") from None


def _stream(url: str) -> BinaryIO:
    if "://" not in url:
        return open(url, "rb")
    from webdataset.gopen import gopen

    return gopen(url)


def _keep_in(errors: list):
    def handle(error: Exception) -> bool:
        errors.append(error.args[0] if error.args else error)
        return True  # go on

    return handle


def _item(shard: str, sample: dict) -> Item | Skipped:
    key = f"{shard}/{sample['__key__']}"
    picture = next((sample[end] for end in _PICTURES if end in sample), None)
    if picture is None:
        return Skipped(key, f"no picture: none of its files is named {sample['__key__']}.jpg, .png, .webp or .bmp")
    try:
        return Item(key, _caption(sample), 1, lambda: picture)
    except Unusable as error:
        return Skipped(key, str(error))


def _caption(sample: dict) -> str:
    for end in ("txt", "caption"):
        if end in sample:
            return caption_of(sample[end])
    if "json" not in sample:
        raise Unusable("no caption: neither .txt nor .caption nor .json beside it")
    try:
        if len(sample["json"]) > _JSON_LIMIT:
            raise ValueError
        caption = json.loads(sample["json"])["caption"]
    except (ValueError, LookupError, TypeError, RecursionError):
        caption = None
    if not isinstance(caption, str):
        raise Unusable('no caption: its .json does not hold a "caption"')
    return caption_of(caption.encode("utf-8", "replace")[: CAPTION_LIMIT + 1])
