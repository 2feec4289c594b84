"""The tensors of safetensors files: names, shapes and types from the headers alone, values one by one when asked.

Nothing is ever unpickled. A file is judged by what it holds, whatever it is called.
"""

from __future__ import annotations

import json
import math
import pickletools
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..disk import human_size, reason
from .fingerprints import Stored, fingerprint

_LONGEST_HEADER = 100_000_000  # bytes, as the format's own library has it
_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16}
_BITS |= {"I32": 32, "U32": 32, "F32": 32, "I64": 64, "U64": 64, "F64": 64}
_CONVERT = (
    "It was not opened: unpickling runs whatever code it holds. If you trust it, load it in ComfyUI with Load "
    "Checkpoint and save it with Save Checkpoint, which writes a .safetensors file: give that one"
)
_OTHER_FORMATS = (  # (first bytes, what that is, what to do)
    (b"PK\x03\x04", "a pickle in a zip archive, as torch.save writes it", _CONVERT),
    (b"\x80", "a pickle, as torch.save writes it", _CONVERT),
    (b"GGUF", "a quantised GGUF model", "Training needs the original weights: give the .safetensors checkpoint"),
    (
        b"version https://git-lfs",
        "a Git LFS pointer: the line that stands for a large file which was not fetched",
        "Fetch it with `git lfs pull`, or download the file itself",
    ),
    (b"<", "a web page", "The download failed or asked for a login: download the file again"),
    (b"\x1f\x8b", "a gzip archive", "Unpack it first"),
)


class ModelError(ValueError):
    """A model that cannot be used; the message says what it is and what to give instead."""


class Weights:
    """The tensors of one model, in one file or several.

    Attributes:
        stored: name → where it lies.
        metadata: what the files' headers say besides.

    Args:
        files: .safetensors files; a name that two of them have is the later one's.

    Raises:
        ModelError: a file is missing, unreadable, damaged, cut short or of another format.
    """

    def __init__(self, files: Sequence[Path]) -> None:
        self.stored: dict[str, Stored] = {}
        self.metadata: dict[str, str] = {}
        for file in files:
            stored, metadata = _header(Path(file))
            self.stored |= stored
            self.metadata |= metadata

    def shape(self, name: str) -> tuple[int, ...] | None:
        """A tensor's shape; None if there is no such tensor."""
        return self.stored[name].shape if name in self.stored else None

    @property
    def n_bytes(self) -> int:
        """What all tensors take."""
        return sum(tensor.n_bytes for tensor in self.stored.values())

    @contextmanager
    def reading(self) -> Iterator:
        """``with weights.reading() as read: read(name)`` gives values on the CPU; they share the file's memory map.

        Raises:
            ModelError: a file was changed or removed after its header was read.
        """
        with ExitStack() as stack:
            files = {}

            def read(name: str) -> Tensor:
                path = self.stored[name].file
                try:
                    if path not in files:
                        files[path] = stack.enter_context(safe_open(path, framework="pt"))
                    return files[path].get_tensor(name)
                except (OSError, SafetensorError) as error:
                    raise ModelError(f"{path} could not be read ({error}): has it been changed or moved?") from error

            yield read

    def fingerprint(self, names: Sequence[str]) -> str:
        """Tells these tensors from others: a hash of all that they hold; see `fingerprints`.

        Raises:
            ModelError: a file was changed or removed after its header was read.
        """
        try:
            return fingerprint([(name, self.stored[name]) for name in names])
        except OSError as error:
            file = error.filename or self.stored[names[0]].file
            raise ModelError(f"{file} could not be read: {reason(error)}") from error


def _header(path: Path) -> tuple[dict[str, Stored], dict[str, str]]:
    try:
        size = path.stat().st_size
        with open(path, "rb") as file:
            start = file.read(64)
            length = int.from_bytes(start[:8], "little")
            if len(start) < 9 or start[8:9] != b"{" or length > _LONGEST_HEADER:
                raise ModelError(_no_safetensors(path, start))
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise ModelError(f"{path} could not be read: {reason(error)}") from error
    if len(text) < length:
        raise ModelError(_cut_short(path, size, None))
    try:
        entries = json.loads(text)
        metadata = entries.pop("__metadata__", {})
        stored = {name: _entry(path, 8 + length, entry) for name, entry in entries.items()}
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ModelError(f"{path} is damaged: its header makes no sense. Download or save it again") from error
    end = max((tensor.start + tensor.n_bytes for tensor in stored.values()), default=8 + length)
    if end > size:
        raise ModelError(_cut_short(path, size, end))
    return stored, metadata if isinstance(metadata, dict) else {}


def _entry(path: Path, offset: int, entry: dict) -> Stored:
    dtype, shape, (start, end) = str(entry["dtype"]), tuple(int(n) for n in entry["shape"]), entry["data_offsets"]
    n_bytes = int(end) - int(start)
    if (
        start < 0
        or min(shape, default=1) < 0
        or 8 * n_bytes != _BITS.get(dtype, 8) * math.prod(shape)
        and dtype in _BITS
    ):
        raise ValueError("offsets that do not fit the shape")
    return Stored(path, dtype, shape, offset + int(start), n_bytes)


def _cut_short(path: Path, size: int, end: int | None) -> str:
    of = f" of {human_size(end)}" if end else ""
    return f"{path} is cut short: {human_size(size)}{of} are there. Download or copy it again"


def _is_text_pickle(start: bytes) -> bool:
    """Whether these bytes begin as a pickle of protocol 0 or 1 does, which has no mark of its own: opcodes that follow
    on each other, an import or a memo among them. Opcodes are read, nothing is run."""
    found = []
    try:
        for opcode, _, _ in pickletools.genops(start):
            found.append(opcode.name)
    except (ValueError, IndexError, KeyError, UnicodeDecodeError):  # cut where the bytes end, or no pickle
        pass
    return len(found) > 2 and bool({"GLOBAL", "PUT", "BINPUT"} & set(found))


def _no_safetensors(path: Path, start: bytes) -> str:
    if not start:
        return f"{path} is empty. Download or copy it again"
    formats = _OTHER_FORMATS
    if _is_text_pickle(start):
        formats = ((b"", "a pickle", _CONVERT),)
    for first, what, advice in formats:
        if start.startswith(first):
            called = " in spite of its name" if path.suffix == ".safetensors" else ""
            return f"{path} is {what}{called}, no safetensors file. {advice}"
    if b"\0" not in start and start.decode("utf-8", "ignore").replace("\n", "").replace("\r", "").isprintable():
        return f"{path} is a text file, no model. Give a .safetensors checkpoint or a diffusers folder"
    return f"{path} is no safetensors file, or damaged from its first byte. Give a .safetensors checkpoint"
