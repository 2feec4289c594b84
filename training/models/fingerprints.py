"""What tells two models' weights apart: a hash over every byte of them, worked out once for a file that stays as it is.

The answer for a large file is remembered in the user's cache, beside huggingface_hub's, with the file's path, size and
times; in a place that can't be written to, the file is read again at each start. A memory that is damaged, or of a file
that has changed since, counts for nothing.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from huggingface_hub import cached_assets_path
from tqdm.auto import tqdm

_THREADS = min(8, os.cpu_count() or 1)
_CHUNK = 1 << 20  # bytes that each thread holds
_WORTH = 100_000_000  # bytes; fewer are read again in a fraction of a second
_SHOWN = 2.0  # seconds; a bar is shown of what takes longer
_SETTLED = 2.0  # seconds; a file changed since could change again without its time telling


class Stored(NamedTuple):
    """Where a tensor lies. ``dtype`` is the format's word: "F16", "BF16", "F32", …; ``start`` counts in the file."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    n_bytes: int


Tensors = Sequence[tuple[str, Stored]]
_known: dict[str, tuple[list, str]] = {}  # what this process has hashed: as in the files of `_Memory`


def fingerprint(tensors: Tensors) -> str:
    """64 hexadecimal digits, a hash over these tensors' names, types, shapes and all their values.

    The same for a copy of the file, and however the tensors are shared out over files.

    Raises:
        OSError: a file is gone, cannot be read or has become shorter.
    """
    tensors = sorted(tensors)
    files = sorted({str(stored.file.absolute()) for _, stored in tensors})
    before = [_stamp(file) for file in files]
    memory = _Memory(files, tensors, before)
    if known := memory.recall():
        return known
    found = _hashed(tensors)
    worth = sum(stored.n_bytes for _, stored in tensors) >= _WORTH
    if worth and before == [_stamp(file) for file in files]:
        memory.keep(found)
    return found


# ---- reading ----


def _hashed(tensors: Tensors) -> str:
    digest, total = hashlib.sha256(), sum(stored.n_bytes for _, stored in tensors)
    what = "hashing the weights, to know them again"
    pool = ThreadPoolExecutor(_THREADS)
    try:
        with tqdm(total=total, desc=what, unit="B", unit_scale=True, delay=_SHOWN) as progress:
            sums = pool.map(_sum_of, (stored for _, stored in tensors))
            for (name, stored), value in zip(tensors, sums, strict=True):
                digest.update(repr((name, stored.dtype, stored.shape)).encode() + value)
                progress.update(stored.n_bytes)
    finally:
        pool.shutdown(cancel_futures=True)
    return digest.hexdigest()


def _sum_of(stored: Stored) -> bytes:
    digest, left, buffer = hashlib.sha256(), stored.n_bytes, memoryview(bytearray(min(_CHUNK, stored.n_bytes)))
    with open(stored.file, "rb", buffering=0) as file:
        file.seek(stored.start)
        while left:
            count = file.readinto(buffer[:left])
            if not count:
                raise OSError(errno.EIO, "it has become shorter", str(stored.file))
            digest.update(buffer[:count])
            left -= count
    return digest.digest()


# ---- remembering ----


def _stamp(file: str) -> list[int]:
    """What changes when a file does; the last also where the time of its change is set back."""
    found = os.stat(file)
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns]


class _Memory:
    """A small file for these tensors of these files, wherever the assets of huggingface_hub are (HF_ASSETS_CACHE)."""

    def __init__(self, files: Sequence[str], tensors: Tensors, stamps: Sequence[list[int]]) -> None:
        wanted = [(name, str(of.file.absolute()), *of[1:]) for name, of in tensors]
        self.name = f"{_digest([files, wanted])[:32]}.json"
        self.of = [[file, *stamp] for file, stamp in zip(files, stamps, strict=True)]

    def recall(self) -> str | None:
        """What was kept, if it is whole and of the files as they are."""
        if _known.get(self.name, (None,))[0] == self.of:
            return _known[self.name][1]
        with suppress(OSError, ValueError, TypeError, LookupError):
            kept = json.loads((_folder() / self.name).read_text(encoding="utf-8"))
            if kept["files"] == self.of and kept["sum"] == _digest([self.of, kept["fingerprint"]]):
                return kept["fingerprint"]
        return None

    def keep(self, fingerprint: str) -> None:
        """Write it whole or not at all; whether it could be written does not matter."""
        newest = max(max(stamp[1:]) for _, *stamp in self.of)
        if time.time() - newest / 1e9 < _SETTLED:
            return
        _known[self.name] = self.of, fingerprint
        kept = {"files": self.of, "fingerprint": fingerprint, "sum": _digest([self.of, fingerprint])}
        with suppress(OSError):
            path = _folder() / self.name
            unfinished = path.with_name(f".{self.name}.{os.getpid()}.tmp")  # processes of one run may come together
            try:
                unfinished.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)


def _folder() -> Path:
    return cached_assets_path("tcd-toolkit", "fingerprints", "weights")


def _digest(values: list) -> str:
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()
