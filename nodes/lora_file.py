"""Reading LoRA files: safetensors only, nothing is ever unpickled, and damage is named before a model is touched.

The file is read into memory instead of being mapped: a disk that is unplugged then gives an error instead of ending
the process, and a file that is overwritten later does not change weights in use.
"""

import json
import os
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor

# Key under which a PEFT adapter_config.json, lying beside its weights, joins the file's metadata.
ADAPTER_CONFIG = "adapter_config.json"
PEFT_WEIGHTS = "adapter_model.safetensors"
_EXTENSIONS = (".safetensors", ".sft")
_DOWNLOAD_AGAIN = "Download or copy the file again."
# By dtype: the whole number of its size, and the bits that are all set in infinity (where it has one) and NaN alone.
_NOT_FINITE = {
    torch.float64: (torch.int64, 0x7FF0_0000_0000_0000),
    torch.float32: (torch.int32, 0x7F80_0000),
    torch.bfloat16: (torch.int16, 0x7F80),
    torch.float16: (torch.int16, 0x7C00),
    torch.float8_e5m2: (torch.uint8, 0x7C),
    torch.float8_e4m3fn: (torch.uint8, 0x7F),
}
_SIGNATURES = (
    (b"PK\x03\x04", "a zip archive, as PyTorch's pickle files (.pt, .bin, .ckpt) are"),
    (b"\x80", "a Python pickle, as old .pt, .bin and .ckpt files are"),
    (b"version https://git-lfs", "a Git LFS pointer, the placeholder of a file that was not downloaded"),
    (b"<", "a web page, saved in place of the file it was to download"),
    (b"GGUF", "a GGUF file"),
)


def read_lora_file(path: str | os.PathLike) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a LoRA's tensors (on the CPU) and its header's metadata.

    A PEFT `adapter_config.json` beside a file named `adapter_model.safetensors` is added to the metadata under that
    name: such files keep their alpha there.

    Raises:
        ValueError: the file can't be read, is not whole safetensors, holds no tensors, or holds NaN or infinity.
    """
    path = Path(path)
    if path.suffix.lower() not in _EXTENSIONS:
        raise ValueError(
            f"{path.name} is not a .safetensors file. Other formats can run code when they are opened and are "
            "refused: convert the file to safetensors, or look for a .safetensors version of it."
        )
    data = _read(path)
    header_end = _check_frame(data, path.name)
    try:
        tensors = safetensors.torch.load(data)
    except Exception as error:  # safetensors' own error, or torch's at a dtype this torch does not know
        raise ValueError(
            f"{path.name} is damaged: its header and its data do not agree ({error}). {_DOWNLOAD_AGAIN}"
        ) from error
    if not tensors:
        raise ValueError(f"{path.name} holds no tensors, so it is not a LoRA. {_DOWNLOAD_AGAIN}")
    _check_finite(tensors, path.name)
    metadata = dict(json.loads(data[8:header_end]).get("__metadata__") or {})
    config = _adapter_config(path)
    return tensors, metadata | ({ADAPTER_CONFIG: config} if config else {})


def fingerprint(path: str | os.PathLike) -> str:
    """A string that changes when the file, or the PEFT settings beside it, changes on disk; never raises."""
    path = Path(path)
    parts = []
    for file in (path, path.with_name(ADAPTER_CONFIG)) if path.name == PEFT_WEIGHTS else (path,):
        try:
            status = file.stat()
            parts.append(f"{status.st_mtime_ns}:{status.st_size}")
        except OSError:
            parts.append("absent")
    return " ".join(parts)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ValueError(
            f"{path.name} could not be read ({error.strerror or error}). Check that the file still exists, that its "
            "disk is connected and that it may be read; then press R to refresh the list."
        ) from error


def _check_frame(data: bytes, name: str) -> int:
    """Check length and start of the header; return where it ends, in bytes from the file's start."""
    if not data:
        raise ValueError(f"{name} is empty. {_DOWNLOAD_AGAIN}")
    header_end = 8 + int.from_bytes(data[:8], "little")
    starts_well = data[8:9] == b"{"
    if starts_well and header_end <= len(data):
        return header_end
    for signature, meaning in _SIGNATURES:
        if not starts_well and data.startswith(signature):
            raise ValueError(
                f"{name} is not a safetensors file but {meaning}. It was not opened. "
                "Get the .safetensors version of this LoRA."
            )
    if starts_well or len(data) <= 8:
        raise ValueError(f"{name} is truncated: it ends after {len(data)} bytes, in its header. {_DOWNLOAD_AGAIN}")
    raise ValueError(f"{name} is not a safetensors file: its header is unreadable. {_DOWNLOAD_AGAIN}")


def _check_finite(tensors: dict[str, Tensor], name: str) -> None:
    for key, tensor in tensors.items():
        if not _is_finite(tensor):
            raise ValueError(
                f"{name} holds NaN or infinity, first in {key}: its training diverged or the file is damaged. "
                "It would turn every picture black; use another version of this LoRA."
            )


def _is_finite(tensor: Tensor) -> bool:
    """Whether no element is NaN or infinite: whether none has all the bits of `_NOT_FINITE` set.

    Bits, in numpy, because it stays at one pass on one thread: torch's reductions share a thread pool, whose waiting
    cost seconds for a file of 400 MB on a busy machine.
    """
    if not tensor.is_floating_point() or tensor.numel() == 0:
        return True
    if tensor.dtype not in _NOT_FINITE:
        return bool(torch.isfinite(tensor.float()).all())
    whole_number, bits = _NOT_FINITE[tensor.dtype]
    return bool((tensor.view(whole_number).numpy() & bits).max() != bits)


def _adapter_config(path: Path) -> str | None:
    """The text of a PEFT adapter_config.json beside the file, when the file bears PEFT's name."""
    config = path.with_name(ADAPTER_CONFIG)
    if path.name != PEFT_WEIGHTS or not config.exists():
        return None
    return _read(config).decode("utf-8", errors="replace")
