"""Picture files: written whole or not at all, read a batch at a time."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..data.buckets import Size, fit
from ..data.items import DataError, Unusable
from ..data.pictures import read, size_of
from ..disk import OutputError, reason, replacing, space_for


def to_bytes(pictures: Tensor) -> np.ndarray:
    """Pictures (B, 3, H, W) in [−1, 1] as (B, H, W, 3) uint8; what is not finite becomes grey."""
    finite = torch.nan_to_num(pictures.float(), nan=0.0, posinf=0.0, neginf=0.0).clamp(-1, 1)
    return ((finite + 1) * 127.5).round().byte().permute(0, 2, 3, 1).contiguous().cpu().numpy()


def write(path: Path, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) uint8 as PNG, whole or not at all.

    Raises:
        OutputError: the disk is full or the folder is gone.
    """
    data = io.BytesIO()
    Image.fromarray(picture).save(data, "png", compress_level=1)
    try:
        with replacing(path) as file:
            file.write(data.getbuffer())
    except OSError as error:
        size = data.getbuffer().nbytes
        raise OutputError(f"{path} was not written: {reason(error)}. {space_for(path, size)}") from error


def load(path: Path, size: Size | None = None) -> np.ndarray:
    """A picture (H, W, 3) uint8: as it is, or scaled and cropped in the middle to a size.

    Raises:
        DataError: it is missing, damaged, or no picture.
    """
    try:
        data = path.read_bytes()
        own = size_of(data)
        wanted = size or own
        return read(data, wanted, fit(own, wanted))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {reason(error)}") from error
    except Unusable as error:
        raise DataError(f"{path} is {error}: delete it, or copy it again") from error


def batches(paths: Sequence[Path], count: int, size: Size | None = None) -> Iterator[Tensor]:
    """The pictures of these files as uint8 (≤ count, 3, H, W), in order; all must have one size, or are brought to one.

    Raises:
        DataError: a file is missing or damaged, or has another size than the first.
    """
    for i in range(0, len(paths), count):
        part = paths[i : i + count]
        arrays = [load(path, size) for path in part]
        for path, array in zip(part, arrays, strict=True):
            if array.shape != arrays[0].shape:
                raise DataError(f"{path} is {_size(array)} pixels, {part[0]} {_size(arrays[0])}: pictures of one size")
        yield torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]} × {array.shape[0]}"
