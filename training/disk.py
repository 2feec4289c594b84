"""The disk: files written whole or not at all, and a look at it before a run.

After a crash, a kill or a full disk at any moment, a file written here is the whole old one or the whole new one.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO


class OutputError(RuntimeError):
    """A run's folder cannot be used; the message says why and what to do."""


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A binary file to write that becomes ``path`` when the block ends, on the disk and in one step.

    Whatever happens, ``path`` is the whole old file or the whole new one. The data stand in ``.<name>.tmp`` beside it
    until then: removed if the block fails, overwritten by the next attempt if the process is killed. One writer per
    path at a time (a run's folder has its `lock`).

    Raises:
        OSError: the disk is full, the folder is gone or not writable.
    """
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def _sync_folder(folder: Path) -> None:
    """Put a rename on the disk; a no-op on systems and file systems that cannot open or sync a folder."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def write_atomically(path: Path, data: bytes | str) -> None:
    """Write a file whole or not at all: after a crash at any moment ``path`` is the old file or the new one.

    Args:
        path: the file; its folder must exist.
        data: its content; text is written as UTF-8 with newlines as they are.

    Raises:
        OutputError: the disk is full, the folder is gone or not writable; the old file is still there.
    """
    data = data.encode("utf-8") if isinstance(data, str) else data
    try:
        with replacing(Path(path)) as file:
            file.write(data)
    except OSError as error:
        raise OutputError(f"{path} was not written: {reason(error)}. {space_for(path, len(data))}") from error


def check_writable(folder: Path, needed_bytes: int) -> None:
    """Refuse a folder that a run could not be written to, before hours are spent on it.

    Writes and syncs a small file, and compares the free space. The folder need not exist yet: then the nearest one
    above it that does is tried, and nothing is left there.

    Args:
        folder: where the run is to be written.
        needed_bytes: what it will take at most, bytes.

    Raises:
        OutputError: a file is in the way, the folder or the disk is not writable, or too little space is free.
    """
    folder = Path(folder)
    there = folder.absolute()
    while not os.path.exists(there) and there != there.parent:
        there = there.parent
    if not os.path.isdir(there):
        raise OutputError(f"cannot write to {folder}: {there} is a file, not a folder. Choose another with --output")
    probe = there / f".write-test-{os.getpid()}"
    try:
        with replacing(probe) as file:
            file.write(bytes(4096))
        probe.unlink()
        free = shutil.disk_usage(there).free
    except OSError as error:
        with suppress(OSError):
            probe.unlink()
        raise OutputError(
            f"cannot write to {folder}: {reason(error)} (tried in {there}). "
            "Make it writable, or choose another folder with --output"
        ) from error
    if free < needed_bytes:
        raise OutputError(
            f"too little space for {folder}: the run needs about {human_size(needed_bytes)} and {human_size(free)} are "
            "free. Free some, or choose a folder on another disk with --output"
        )


def reason(error: OSError) -> str:
    """What the system says went wrong: ``"No space left on device"``."""
    return error.strerror or str(error) or type(error).__name__


def space_for(path: Path, needed_bytes: int) -> str:
    """A sentence for people: what a file takes, and what is free where it is to stand."""
    needed = f"It takes about {human_size(needed_bytes)}"
    try:
        return f"{needed}, {human_size(shutil.disk_usage(Path(path).parent).free)} are free."
    except OSError:
        return f"{needed}; its folder cannot be reached."


def human_size(n_bytes: float) -> str:
    """A number of bytes for people: ``"812 bytes"``, ``"3.4 MB"``, ``"1.2 GB"`` (powers of 1000)."""
    for scale, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if n_bytes >= scale:
            return f"{n_bytes / scale:.1f} {unit}"
    return f"{n_bytes:.0f} bytes"
