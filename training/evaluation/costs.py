"""What pictures cost: wall time, network evaluations and peak memory; a line for each batch, kept beside them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import torch


@dataclass
class Cost:
    """Of one batch.

    Attributes:
        batch: its number.
        pictures: in it, those that fill it up counted.
        seconds: of sampling and decoding.
        evaluations: passes of one picture through the network; with guidance two a step.
        peak_bytes: the device's peak memory meanwhile, on a CPU the process's; None where that is not known.
        broken: numbers of the prompts whose pictures were not finite.
    """

    batch: int
    pictures: int
    seconds: float = 0.0
    evaluations: int = 0
    peak_bytes: int | None = None
    broken: list[int] = field(default_factory=list)


@contextmanager
def measured(cost: Cost, device: torch.device) -> Iterator[None]:
    """Fill in a batch's seconds and peak memory when the block ends."""
    _reset_peak(device)
    started = time.perf_counter()
    yield
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    cost.seconds, cost.peak_bytes = time.perf_counter() - started, _peak(device)


def counted(network: Callable, cost: Cost, passes: int) -> Callable:
    """A network that counts its evaluations; ``passes`` of one picture each."""

    def call(*arguments: Any):
        cost.evaluations += passes
        return network(*arguments)

    return call


def append(path: Path, cost: Cost) -> None:
    """Add a line to a process's own file; a line that a kill cut short is passed over by `read`."""
    with open(path, "a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(asdict(cost))}")


def read(folder: Path, cell: str) -> list[Cost]:
    """The batches of a cell, each once, by whichever process."""
    found: dict[int, Cost] = {}
    for path in sorted(folder.glob(f"{cell}.*.jsonl")):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            with suppress(ValueError, TypeError):
                cost = Cost(**json.loads(line))
                found.setdefault(cost.batch, cost)
    return [found[batch] for batch in sorted(found)]


def summed(costs: list[Cost], pictures: int) -> dict[str, float | None]:
    """``{"seconds", "evaluations", "peak_bytes"}`` of so many pictures, by the median batch: the first warms up."""
    if not costs:
        return {"seconds": float("nan"), "evaluations": float("nan"), "peak_bytes": None}
    peaks = [cost.peak_bytes for cost in costs if cost.peak_bytes is not None]
    return {
        "seconds": pictures * median(cost.seconds / cost.pictures for cost in costs),
        "evaluations": median(cost.evaluations for cost in costs),
        "peak_bytes": max(peaks, default=None),
    }


def _reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")  # Linux: the peak starts again from what is resident


def _peak(device: torch.device) -> int | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * int(next(line for line in lines if line.startswith("VmHWM")).split()[1])
    return None
