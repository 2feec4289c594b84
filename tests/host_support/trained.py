"""What the tests of the trainer's files in the host share: the driver's job, and how far two results are apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file

from host_support.host import Host

DRIVER = Path(__file__).parents[1] / "host" / "drivers" / "trained_lora_driver.py"


@dataclass(frozen=True)
class Answers:
    """The host's side: tensors and answers by case."""

    tensors: dict[str, torch.Tensor]
    told: dict[str, dict]


def ask(
    comfyui: Host, folder: Path, job: Mapping, forward: Mapping[str, torch.Tensor], cases: Sequence[dict]
) -> Answers:
    """One run of the driver over all cases, with files in ``folder``.

    Args:
        job: the teacher's folder, its tokens' file, its prediction, the folder of LoRA files.
        forward: x, t and tokens of a forward pass to repeat.
    """
    files = [folder / name for name in ("job.json", "results.safetensors", "answers.json")]
    save_file(dict(forward), folder / "forward.safetensors")
    files[0].write_text(json.dumps({**job, "cases": list(cases), "forward": str(folder / "forward.safetensors")}))
    comfyui.run_driver(DRIVER, *files)
    return Answers(load_file(files[1]), json.loads(files[2].read_text()))


def merged_weights(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """W + ΔW of every module with a LoRA, as peft merges it."""
    layers = {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}
    weights = {n: m.get_base_layer().weight + m.get_delta_weight("default") for n, m in layers.items()}
    return {f"{name}.weight": weight.contiguous() for name, weight in weights.items()}


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    """Largest difference, in units of the data, or of the largest value where that is more."""
    return float((found - expected).abs().max() / expected.abs().max().clamp(min=1.0))
