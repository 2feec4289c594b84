"""Checkpoints of a run: one file each, whole or not there, checked before it is trusted.

A checkpoint is ``step_00000300.pt``: what ``torch.save`` writes, then a footer of sha256 (32 bytes), length of what is
before it (8 bytes, little-endian) and `MAGIC`. A cut file has no footer, a damaged one another sum: neither is read.
"""

from __future__ import annotations

import hashlib
import logging
import mmap
import re
import struct
from collections import OrderedDict
from pathlib import Path
from typing import BinaryIO

import torch

from training.disk import reason, replacing, space_for

logger = logging.getLogger(__name__)

MAGIC = b"TCDCKPT1"
_FOOTER = struct.Struct("<32sQ8s")
_NAME = re.compile(r"step_(\d{8,})\.pt")


class CheckpointError(RuntimeError):
    """A checkpoint could not be written; the message names the last good one and how to go on."""


# ---- writing ----


def save(folder: Path, step: int, state: dict, keep: int) -> Path:
    """Write the checkpoint of a step, then delete all but the newest ``keep``. On one process only.

    The file stands on the disk before an older one is deleted, and an interrupted one never bears a checkpoint's name.
    Checkpoints of later steps, which a run that went on from an earlier one has left behind, are deleted as well.

    Args:
        folder: the checkpoints' folder; made if only it is missing.
        step: optimiser steps done so far.
        state: tensors, numbers, strings, None, in dicts, lists and tuples of any depth: what can be loaded without
            running code.
        keep: how many checkpoints stay, this one included; at least 1.

    Returns:
        The checkpoint's path.

    Raises:
        CheckpointError: disk full, folder gone or not writable; the earlier checkpoints are all still there.
        TypeError: ``state`` holds something that could not be loaded again.
        ValueError: ``step`` is negative or ``keep`` is below 1.
    """
    if step < 0 or keep < 1:
        raise ValueError(f"a checkpoint needs step >= 0 and keep >= 1, got step {step} and keep {keep}")
    needed = _size(state, "state")
    path = Path(folder) / f"step_{step:08d}.pt"
    try:
        path.parent.mkdir(exist_ok=True)
        for left_over in path.parent.glob(".step_*.pt.tmp"):
            left_over.unlink(missing_ok=True)
        with replacing(path) as file:
            _write(state, file)
    except OSError as error:
        raise CheckpointError(_not_written(path, step, needed, error)) from error
    _delete_old(path, keep)
    return path


def _size(value, where: str) -> int:
    """Bytes of a state's tensors, and a look at everything in it: only what ``weights_only`` loads may be there."""
    if isinstance(value, torch.Tensor):
        return value.numel() * value.element_size()
    if type(value) in (dict, OrderedDict):
        return sum(_size(k, f"a key of {where}") + _size(v, f"{where}[{k!r}]") for k, v in value.items())
    if type(value) in (list, tuple, torch.Size):
        return sum(_size(item, f"{where}[{i}]") for i, item in enumerate(value))
    if value is None or type(value) in (bool, int, float, str, bytes):
        return 16
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}, which a checkpoint cannot give back: "
        "only tensors, numbers, strings, None, dicts, lists and tuples are loaded. Turn it into one of these"
    )


class _Summing:
    """What ``torch.save`` writes into: passes it on and sums it up.

    An error (disk full, Ctrl-C) is kept and raised by `finish`: raised here, it would come out of torch as another.
    """

    def __init__(self, file: BinaryIO):
        self.file, self.sum, self.length, self.error = file, hashlib.sha256(), 0, None

    def write(self, data) -> int:
        if self.error is None:
            try:
                self.file.write(data)
                self.sum.update(data)
            except BaseException as error:
                self.error = error
        n_bytes = memoryview(data).nbytes
        self.length += n_bytes
        return n_bytes

    def flush(self) -> None:
        pass

    def finish(self) -> None:
        if self.error is not None:
            raise self.error
        self.file.write(_FOOTER.pack(self.sum.digest(), self.length, MAGIC))


def _write(state: dict, file: BinaryIO) -> None:
    summing = _Summing(file)
    torch.save(state, summing)
    summing.finish()


def _not_written(path: Path, step: int, needed: int, error: OSError) -> str:
    good = last_good(path.parent)
    go_on = (
        f"The last good one is {good}: free space or make the folder writable, then go on from there with --resume."
        if good
        else "There is no earlier one: free space or make the folder writable, then begin again."
    )
    return f"checkpoint {path} of step {step} was not written: {reason(error)}. {space_for(path, needed)} {go_on}"


def _delete_old(newest_path: Path, keep: int) -> None:
    paths = _checkpoints(newest_path.parent)
    position = paths.index(newest_path)
    for path in [*paths[position + keep :], *paths[:position]]:
        try:
            path.unlink()
        except OSError as error:
            logger.warning("the old checkpoint %s could not be deleted: %s", path, reason(error))


# ---- reading ----


def newest(folder: Path) -> tuple[Path, dict] | None:
    """The newest whole checkpoint and its state, tensors on the CPU; None if there is none.

    One that is cut short, damaged or not readable is skipped with a logged warning, for the one before. Nothing is
    unpickled before its sum was found right, and then by ``weights_only``, which runs no code.
    """
    for path in _checkpoints(Path(folder)):
        try:
            return path, _load(path)
        except (OSError, ValueError) as error:
            logger.warning("the checkpoint %s is skipped: %s", path, error)
    return None


def last_good(folder: Path) -> Path | None:
    """The newest whole checkpoint's path, by its sum, without loading it."""
    for path in _checkpoints(Path(folder)):
        try:
            with open(path, "rb") as file:
                _checked_length(file)
            return path
        except (OSError, ValueError):
            continue
    return None


def newest_step(folder: Path) -> int:
    """The step of `last_good`; 0 if there is none."""
    path = last_good(Path(folder))
    return int(_NAME.fullmatch(path.name)[1]) if path else 0


def _checkpoints(folder: Path) -> list[Path]:
    """Files with a checkpoint's name, newest step first; [] if there is no such folder."""
    try:
        found = [(int(match[1]), path) for path in folder.iterdir() if (match := _NAME.fullmatch(path.name))]
    except OSError:
        return []
    return [path for _, path in sorted(found, reverse=True)]


def _load(path: Path) -> dict:
    with open(path, "rb") as file:
        length = _checked_length(file)
        with mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as payload:
            try:
                return torch.load(payload, map_location="cpu", weights_only=True)
            except MemoryError:
                raise
            except Exception as error:
                kind = type(error).__name__  # torch's own words advise to load it unsafely
                raise ValueError(f"it is whole, but torch {torch.__version__} cannot load it ({kind})") from error


def _checked_length(file: BinaryIO) -> int:
    """How many bytes stand before the footer, once their sum is known to be right.

    Raises:
        ValueError: the file is cut short or damaged.
    """
    length = file.seek(0, 2) - _FOOTER.size
    file.seek(max(length, 0))
    footer = file.read()
    if length <= 0 or not footer.endswith(MAGIC):
        raise ValueError("it is cut short, or no checkpoint")
    digest, said, _ = _FOOTER.unpack(footer)
    if said != length:
        raise ValueError(f"it is damaged: {length} bytes where {said} were written")
    file.seek(0)
    found, left = hashlib.sha256(), length
    while part := file.read(min(1 << 20, left)):
        found.update(part)
        left -= len(part)
    if found.digest() != digest:
        raise ValueError("it is damaged: its checksum is wrong")
    return length
