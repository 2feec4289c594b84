"""Files to be judged, headers without weights, checkpoints with something changed; and models compared."""

import json
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor


def hollow(path: Path, shapes: Mapping[str, tuple[int, ...]], dtype: str = "F16") -> Path:
    """A file of any size that takes no space: a true header, and nothing but zeros, which the disk does not hold."""
    entries, at, size = {}, 0, {"F16": 2, "F32": 4}[dtype]
    for name, shape in shapes.items():
        end = at + size * prod(shape)
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [at, end]}
        at = end
    header = json.dumps(entries).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(header)) + header)
        file.truncate(8 + len(header) + at)
    return path


def few(path: Path, *keys: str, metadata: Mapping[str, str] | None = None) -> Path:
    """A file with a few small tensors, or none."""
    save_file({key: torch.zeros(2, 2) for key in keys}, path, metadata)
    return path


def altered(source: Path, path: Path, change: Callable[[dict[str, Tensor]], None], metadata=None) -> Path:
    """A copy of a checkpoint with its tensors changed."""
    tensors = load_file(source)
    change(tensors)
    save_file(tensors, path, metadata)
    return path


def without(start: str) -> Callable[[dict[str, Tensor]], None]:
    """Takes away the tensors whose names begin so."""

    def change(tensors: dict[str, Tensor]) -> None:
        for name in [name for name in tensors if name.startswith(start)]:
            del tensors[name]

    return change


def same(left: torch.nn.Module, right: torch.nn.Module) -> None:
    """Two models have the same tensors, bit for bit."""
    left, right = left.state_dict(), right.state_dict()
    assert left.keys() == right.keys()
    for name, value in left.items():
        assert value.dtype == right[name].dtype and torch.equal(value, right[name]), name
