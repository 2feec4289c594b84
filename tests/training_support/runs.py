"""What lies in a run's folder, for comparing it with another's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

METRICS = ("fd", "fd_pixels", "accuracy", "complexity")


def files_in(folder: Path) -> set[str]:
    """Every file in a folder, by its path there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def bytes_in(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file in a folder: when it was last written, and what it holds."""
    return {name: ((folder / name).stat().st_mtime_ns, (folder / name).read_bytes()) for name in files_in(folder)}


def tensors_in(folder: Path) -> dict[str, Tensor]:
    """Every weight that a run saved, teacher and students, by file and name."""
    files = sorted(folder.rglob("*.safetensors"))
    return {f"{path.relative_to(folder)}: {name}": w for path in files for name, w in load_file(path).items()}


def metadata_of(path: Path) -> dict[str, str]:
    """A safetensors file's metadata."""
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata() or {})


def figures_in(report: Mapping) -> dict:
    """What a report measured: all that does not depend on the time it took."""
    tables = (*METRICS, "gamma_sweep", "student_x_gamma", "forms", "n_samples", "seeds", "spread", "tcd_below_lcm")
    return {name: report[name] for name in tables}


def numbers_in(data) -> list:
    """Every leaf of nested dicts and lists that is a number, or None, which stands for one that is not finite."""
    if isinstance(data, Mapping):
        return [number for value in data.values() for number in numbers_in(value)]
    if isinstance(data, list):
        return [number for value in data for number in numbers_in(value)]
    return [] if isinstance(data, str | bool) else [data]


def is_finite(data) -> bool:
    """Whether there are numbers in a report's part, and all of them finite."""
    numbers = numbers_in(data)
    return bool(numbers) and all(number is not None and math.isfinite(number) for number in numbers)
