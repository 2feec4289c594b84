"""A trained LoRA into a ComfyUI's folders, with a workflow that is ready to run: ``--comfyui PATH``.

What the workflow needs is read off the LoRA's own metadata (`lora_metadata`) and, for what ComfyUI will take the
checkpoint to be, off the checkpoint's header. Nothing that lies in ComfyUI's folders is overwritten.
"""

from __future__ import annotations

import json
import os
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from safetensors import SafetensorError, safe_open

from .comfyui_folders import ComfyUI, find_comfyui, listed, place

TEMPLATE = "comfyui_workflow.json"  # the example workflows' layout, nothing filled in
PROMPT = "a lighthouse on a cliff above a stormy sea, dramatic light, highly detailed"
NO_CHECKPOINT = "choose-your-checkpoint.safetensors"
FAMILIES = {
    "stable-diffusion-v1/lora": ("sd15", "Stable Diffusion 1.5"),
    "stable-diffusion-v2-512/lora": ("sd21", "Stable Diffusion 2.1"),
    "stable-diffusion-v2-768-v/lora": ("sd21", "Stable Diffusion 2.1 (v)"),
    "stable-diffusion-xl-v1-base/lora": ("sdxl", "Stable Diffusion XL"),
}
_SD2_PROBE = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
_SD2_SPREAD = 0.09  # of the probe: ComfyUI takes more for v-prediction


@dataclass(frozen=True)
class Exported:
    """What `export` left in ComfyUI's folders, and what there is to be done by hand, in sentences."""

    lora: Path
    workflow: Path
    notes: tuple[str, ...]

    def __str__(self) -> str:
        lines = [f"In ComfyUI: LoRA {self.lora}", f"            workflow {self.workflow} (Workflows, in the sidebar)"]
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])


def export(
    comfyui: str | os.PathLike,
    lora: Path,
    checkpoint: str | os.PathLike | None,
    *,
    zero_terminal_snr: bool = False,
    prompt: str = "",
    steps: int | None = None,
    gamma: float | None = None,
) -> Exported:
    """Copy a LoRA into ComfyUI's models/loras and put a workflow that uses it into the list of saved workflows.

    Each is written whole or not at all, under its own name or, where another file has that, the next free one (``-2``);
    a file that is there already with the same content is kept.

    Args:
        comfyui: see `find_comfyui`.
        lora: a file that this trainer wrote.
        checkpoint: the model it was distilled from: a file, a diffusers folder or a Hub name; None if not known.
        zero_terminal_snr: that model was trained with alpha = 0 at the last time.
        prompt: of the workflow; "" is an example.
        steps, gamma: None are those that the LoRA's metadata recommend.

    Raises:
        ValueError: no ComfyUI there, or no LoRA of a model that ComfyUI's checkpoint loader takes.
        OutputError: a file could not be written; the LoRA is still where it was.
    """
    found, metadata = find_comfyui(comfyui), _metadata(lora)
    family, base = _family(lora, metadata)
    name, file, notes = _checkpoint(found, checkpoint, base)
    if not found.has_this_pack():
        notes.append(f"The workflow uses this project's nodes: install it in {found.root / 'custom_nodes'} first")
    placed = place(found.loras / lora.name, lora, f"The LoRA is whole in {lora}: copy it by hand.")
    prediction = "v_prediction" if metadata.get("modelspec.prediction_type") == "v" else "eps"
    sampling = (prediction, zero_terminal_snr)
    side = int(_number(metadata["modelspec.resolution"], 512))
    steps = steps or int(_number(metadata["tcd.steps"], 4))
    gamma = _number(metadata["tcd.gamma"], 0.2) if gamma is None else gamma
    workflow = _filled(
        {
            "CheckpointLoaderSimple": [name],
            "ModelSamplingDiscrete": [*sampling],
            "TCDToolkit_LoraLoader": [placed.name, 1.0],
            "EmptyLatentImage": [side, side, 1],
            "TCDToolkit_KSampler": [42, "fixed", steps, 1.0, gamma, 1.0, _order(metadata)],
            "SaveImage": [placed.stem],
            "MarkdownNote": [_note(name, placed.name, base, steps, gamma, notes)],
        },
        prompt or PROMPT,
    )
    if sampling == _as_comfyui_takes_it(file, family):
        _without_model_sampling(workflow)
    workflow["id"] = str(uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(workflow)))
    text = json.dumps(workflow, indent=1, ensure_ascii=False) + "\n"
    by_hand = f"The LoRA is in place, {placed}: use it with an example workflow of this project."
    written = place(found.workflows / f"{placed.stem}.json", text.encode(), by_hand)
    return Exported(placed, written, tuple(notes))


def _checkpoint(found: ComfyUI, given: str | os.PathLike | None, base: str) -> tuple[str, Path | None, list[str]]:
    """(the name to write into the workflow, the file if it is one, what to do by hand)."""
    another = f"choose a checkpoint of {base} in the workflow's first node"
    if given is None:
        return NO_CHECKPOINT, None, [f"It is not known what the LoRA was distilled from: {another}"]
    file = Path(given).expanduser()
    if not file.is_file():
        return NO_CHECKPOINT, None, [f"The LoRA was distilled from {given}, which is no single file: {another}"]
    for folder in found.checkpoints:
        for model in listed(folder):
            if os.path.samefile(model, file):
                return os.path.relpath(model, folder), file, []
    return (
        file.name,
        file,
        [
            f"The checkpoint {file.absolute()} is in none of ComfyUI's folders: put it, or a link to it, into "
            f"{found.checkpoints[0]}, or {another}"
        ],
    )


# -- what the LoRA and the checkpoint are ------------------------------------------------------------------------------


def _metadata(lora: Path) -> dict[str, str]:
    try:
        with safe_open(lora, framework="pt") as file:
            metadata = dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise ValueError(f"cannot read the LoRA {lora}: {error}") from error
    if missing := {"modelspec.architecture", "modelspec.resolution", "tcd.steps", "tcd.gamma"} - metadata.keys():
        raise ValueError(f"{lora} is no LoRA of this trainer: its metadata lack {', '.join(sorted(missing))}")
    return metadata


def _family(lora: Path, metadata: dict[str, str]) -> tuple[str, str]:
    architecture = metadata["modelspec.architecture"]
    if architecture not in FAMILIES:
        raise ValueError(
            f"{lora.name} is of architecture {architecture}, which ComfyUI's checkpoint loader has no models of: only "
            f"LoRAs of {', '.join(name for _, name in FAMILIES.values())} have a place there. Leave out --comfyui"
        )
    return FAMILIES[architecture]


def _number(text: str, otherwise: float) -> float:
    """The first number of a recommendation in words: 4 of "4", "4 to 8", "4x4"."""
    found = re.search(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else otherwise


def _order(metadata: dict[str, str]) -> str:
    return "2" if metadata.get("tcd.form") == "tcf2" else "1"


def _as_comfyui_takes_it(file: Path | None, family: str) -> tuple[str, bool]:
    """(prediction, zero terminal SNR) that ComfyUI's own loader sees in a checkpoint.

    It asks no config: Stable Diffusion 1 is always epsilon, 2 is told by the spread of one weight, XL by two marks.
    Of a file that is not safetensors, and of one not known, it is taken to see a plain epsilon model.
    """
    try:
        with safe_open(file, framework="pt") as tensors:
            keys = set(tensors.keys())
            if family == "sdxl" and "v_pred" in keys:
                return "v_prediction", "ztsnr" in keys
            if family == "sd21" and _SD2_PROBE in keys:
                spread = tensors.get_tensor(_SD2_PROBE).float().std(unbiased=False)
                return ("v_prediction" if spread > _SD2_SPREAD else "eps"), False
    except (OSError, SafetensorError, TypeError):
        pass
    return "eps", False


# -- the workflow ------------------------------------------------------------------------------------------------------


def _filled(values: dict[str, list], prompt: str) -> dict:
    """The template with these widgets' values by node type, and the prompt."""
    workflow = json.loads((resources.files(__package__) / TEMPLATE).read_text(encoding="utf-8"))
    for node in workflow["nodes"]:
        node["widgets_values"] = values.get(node["type"], node["widgets_values"])
        if node.get("title") == "Positive prompt":
            node["widgets_values"] = [prompt]
    return workflow


def _without_model_sampling(workflow: dict) -> None:
    """Take out the node that tells ComfyUI what the model predicts: its file says so."""
    node = next(node for node in workflow["nodes"] if node["type"] == "ModelSamplingDiscrete")
    before, after = node["inputs"][0]["link"], node["outputs"][0]["links"][0]
    ends = {link[0]: link for link in workflow["links"]}
    ends[before][3:5] = ends[after][3:5]
    lora = next(other for other in workflow["nodes"] if other["id"] == ends[after][3])
    lora["inputs"][0]["link"] = before
    workflow["nodes"].remove(node)
    workflow["links"].remove(ends[after])


def _note(checkpoint: str, lora: str, base: str, steps: int, gamma: float, notes: Sequence[str]) -> str:
    files = [f"- **Checkpoint**, in `models/checkpoints`: `{checkpoint}`", f"- **LoRA**, in `models/loras`: `{lora}`"]
    settings = (
        f"{steps} steps, cfg 1, gamma {gamma:g}: what the LoRA was made for. For more detail take more steps and more "
        f"gamma. It also goes with other checkpoints of {base}, the better the nearer they are to its own."
    )
    to_do = ["## To do", "\n".join(f"- {note}" for note in notes)] if notes else []
    return "\n\n".join([*to_do, "## Files", "\n".join(files), "## Settings", settings])
