"""Vectors of many pictures in a file, a row each, written and read a part at a time: memory is that of a part."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from ..disk import OutputError, reason, replacing, space_for

CHUNK = 1000  # rows


def write(path: Path, parts: Iterable[np.ndarray], count: int) -> None:
    """Write ``count`` rows, (n, d) or (n,) a part, as .npy, whole or not at all.

    Raises:
        ValueError: other than so many rows.  OutputError: no room on the disk.
    """
    written = 0
    try:
        with replacing(path) as file:
            for part in parts:
                if not written:
                    head = {"descr": part.dtype.str, "fortran_order": False, "shape": (count, *part.shape[1:])}
                    np.lib.format.write_array_header_1_0(file, head)
                file.write(np.ascontiguousarray(part).data)
                written += len(part)
            if written != count:
                raise ValueError(f"{written} rows in place of {count}")
    except OSError as error:
        raise OutputError(f"{path} was not written: {reason(error)}. {space_for(path, 8192 * count)}") from error


class Rows:
    """The rows of a file; `len`, and iteration in parts of (≤ CHUNK, d)."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with open(path, "rb") as file:
            np.lib.format.read_magic(file)
            self.shape, _, self.dtype = np.lib.format.read_array_header_1_0(file)
            self.start = file.tell()

    def __len__(self) -> int:
        return self.shape[0]

    def part(self, start: int, end: int) -> np.ndarray:
        """Rows ``start`` … ``end − 1``."""
        width = int(np.prod(self.shape[1:], dtype=int))
        end = min(end, len(self))
        with open(self.path, "rb") as file:
            file.seek(self.start + start * width * self.dtype.itemsize)
            return np.fromfile(file, self.dtype, (end - start) * width).reshape(-1, *self.shape[1:])

    def __iter__(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), CHUNK):
            yield self.part(start, start + CHUNK)
