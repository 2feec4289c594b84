"""LoRA files of every format, renamed so that the host's own loader takes all of their modules.

`convert` is given the file (`read_lora_file`), the host's map from LoRA module names to weights
(`comfy.lora.model_lora_keys_unet`) and the shapes of the model's weights. It refuses what does not belong to the model
and otherwise returns tensors for `comfy.lora.load_lora`, with a report. The host's scale is alpha / rank, or 1 without
an alpha; files that keep alpha in their metadata get it as tensors. Nothing here knows the host.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ..tcd_core.target_embedding import TARGET_EMBEDDING_PREFIX
from .lora_alpha import AdapterSettings
from .lora_file import read_lora_file
from .lora_keys import LoraModule, group_modules
from .lora_report import Report
from .lora_shapes import (
    BIASES,
    Shape,
    Target,
    bias_key,
    check_family,
    cross_attention_width,
    family,
    fits,
    target_shape,
)

__all__ = ["Conversion", "Report", "convert", "read_lora_file"]

_HOST_NAMES = (
    "diffusion_model.{stem}",
    "transformer.{stem}",
    "{stem}",
    "lora_unet_{flat}",
    "lora_transformer_{flat}",
    "lycoris_{flat}",
    "base_model.model.{stem}",
)
_SHOWN = 3


@dataclass(frozen=True)
class Conversion:
    """`tensors` for the host's `load_lora`; `targets`, the keys of the patches it must then return."""

    tensors: Mapping[str, Tensor]
    targets: frozenset[Target]
    report: Report


def convert(
    tensors: Mapping[str, Tensor],
    metadata: Mapping[str, str],
    key_map: Mapping[str, Target],
    shapes: Mapping[str, Shape | None],
) -> Conversion:
    """Rename a file's tensors for the host, after checking that they belong to the model.

    Args:
        tensors, metadata: as `read_lora_file` returns them.
        key_map: LoRA module name → weight key, or (key, (dimension, start, length)) for a part of a weight.
        shapes: weight key → shape, None where it can't be told (packed, quantised weights).

    Raises:
        ValueError: no module matches, a module has another shape than the model's weight, the cross-attention is
            another family's, the file is inconsistent, or it uses PEFT's form of DoRA. The text is for the user.
    """
    lora = {key: tensor for key, tensor in tensors.items() if not key.startswith(TARGET_EMBEDDING_PREFIX)}
    modules, unknown = group_modules(lora)
    of_model = [module for module in modules if not module.is_text_encoder]
    unknown = [key for key in unknown if not LoraModule(key, {}).is_text_encoder]
    check_family(of_model, shapes)
    matched = {module.name: _match(module, key_map, shapes) for module in of_model}
    matched = {name: match for name, match in matched.items() if match}
    report = Report(
        format=_format(of_model),
        modules=len(of_model) + len(unknown),
        matched=len(matched),
        unmatched=(*(module.name for module in of_model if module.name not in matched), *unknown),
        text_encoder=len(modules) - len(of_model),
        ranks=_ranks(of_model),
        alpha_told=AdapterSettings.from_metadata(metadata) is not None or any("alpha" in m.parts for m in of_model),
        target_embedding=len(lora) < len(tensors),
        metadata=dict(metadata),
    )
    if not matched:
        raise ValueError(_no_match(report, cross_attention_width(of_model)))
    present = [module for module in of_model if module.name in matched]
    _check_shapes(present, matched, shapes)
    _check_dora(present)
    return Conversion(*_rename(present, matched, shapes, AdapterSettings.from_metadata(metadata)), report)


def _match(module: LoraModule, key_map: Mapping[str, Target], shapes: Mapping) -> tuple[str, Target] | None:
    """The name under which the host knows the module, and its target; None when the model has no such weight."""
    stem = module.stem
    names = [module.name, *(name.format(stem=stem, flat=stem.replace(".", "_")) for name in _HOST_NAMES)]
    has_bias = not set(BIASES).isdisjoint(module.parts)
    for name in names:
        target = key_map.get(name)
        if target is None or (target if isinstance(target, str) else target[0]) not in shapes:
            continue
        if has_bias and not (isinstance(target, str) and bias_key(target) in shapes):
            continue
        return name, target
    return None


def _check_shapes(modules: list[LoraModule], matched: Mapping, shapes: Mapping) -> None:
    wrong = [module for module in modules if not fits(module, matched[module.name][1], shapes)]
    if not wrong:
        return
    first = wrong[0]
    parts = ", ".join(f"{part} {tuple(first.parts[part].shape)}" for part in sorted(set(first.parts) - {"alpha"}))
    raise ValueError(
        f"made for another model: the shapes differ in {len(wrong)} of the {len(modules)} modules that file and model "
        f"share by name. First: {first.name} has {parts}; the model's weight has "
        f"{target_shape(matched[first.name][1], shapes)}. Nothing was changed: use a LoRA made for this "
        "checkpoint's family."
    )


def _check_dora(modules: list[LoraModule]) -> None:
    """Refuse PEFT's DoRA: W' = m (W + ΔW) / ‖W + ΔW‖, where the host divides by ‖W‖, so no scale expresses it."""
    dora = next((module.name for module in modules if "magnitude" in module.parts), None)
    if dora:
        raise ValueError(
            f"{dora} is a DoRA in PEFT's form (lora_magnitude_vector), which ComfyUI's DoRA arithmetic can't express: "
            "it would give other weights. Nothing was changed: merge the adapter into its model, or train it without "
            "use_dora."
        )


def _rename(
    modules: list[LoraModule], matched: Mapping, shapes: Mapping, settings: AdapterSettings | None
) -> tuple[dict[str, Tensor], frozenset[Target]]:
    """The tensors under the host's names, and the targets the host must find.

    Raises:
        ValueError: two modules of the file aim at one weight.
    """
    tensors: dict[str, Tensor] = {}
    owners: dict[Target, str] = {}
    for module in modules:
        name, target = matched[module.name]
        parts = _host_parts(module, settings, target_shape(target, shapes))
        targets = [target] if module.kind else []
        targets += [bias_key(target)] if {"diff_b", "b_norm"} & set(parts) else []
        for each in targets:
            if owners.setdefault(each, module.name) != module.name:
                raise ValueError(f"{owners[each]} and {module.name} change the same weight: the file mixes two LoRAs")
        tensors |= {f"{name}.{part}": tensor for part, tensor in parts.items()}
    return tensors, frozenset(owners)


def _host_parts(module: LoraModule, settings: AdapterSettings | None, shape: Shape | None) -> dict[str, Tensor]:
    """One module's tensors as the host reads them: alpha added, PEFT's bias scaled, whole weights in the shape."""
    parts = dict(module.parts)
    scale = 1.0
    if "alpha" in parts:
        scale = parts["alpha"].item() / _rank(module)
    elif settings:
        scale = settings.scale(module.stem, _rank(module))
        parts |= _with_scale(module, scale)
    if "lora_up.bias" in parts:  # PEFT: W' x + b' = W x + b + scale (B A x + b_B)
        parts["diff_b"] = parts.pop("lora_up.bias").float() * scale
    return parts if shape is None else parts | _reshaped(parts, shape)


def _reshaped(parts: Mapping[str, Tensor], shape: Shape) -> dict[str, Tensor]:
    """Whole weights and DoRA scales in the target's number of dimensions, which the host demands of them."""
    result = {}
    for whole in {"diff", "w_norm", "set_weight"} & set(parts):
        if tuple(parts[whole].shape) != shape:
            result[whole] = parts[whole].reshape(shape)
    scale = parts.get("dora_scale")
    if scale is not None and scale.ndim != len(shape):
        axis = 0 if scale.shape[0] == shape[0] else 1
        result["dora_scale"] = scale.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    return result


def _with_scale(module: LoraModule, scale: float) -> dict[str, Tensor]:
    """The parts that make the host apply `scale`: alpha = scale · rank; LoKr, whose rank may be untold, is scaled."""
    if module.kind in ("lora", "loha"):
        return {"alpha": torch.tensor(scale * _rank(module))}
    if module.kind == "lokr":
        factor = "lokr_w1" if "lokr_w1" in module.parts else "lokr_w1_a"
        return {factor: module.parts[factor].float() * scale}
    return {}


def _rank(module: LoraModule) -> int:
    """The rank the host divides alpha by; 1 where the format has none."""
    for part in ("lora_down.weight", "hada_w1_b", "lokr_w2_b", "lokr_w1_b"):
        if part in module.parts:
            return module.parts[part].shape[0]
    return 1


def _ranks(modules: list[LoraModule]) -> tuple[int, ...]:
    return tuple(sorted({_rank(module) for module in modules if module.kind in ("lora", "loha")}))


def _format(modules: list[LoraModule]) -> str:
    return ", ".join(label for label, _ in Counter(module.format for module in modules).most_common()) or "none known"


def _no_match(report: Report, width: int | None) -> str:
    if not report.modules and report.text_encoder:
        return (
            f"this file changes only text encoders ({report.text_encoder} modules), and this node patches the model "
            "alone: use ComfyUI's Load LoRA for it"
        )
    if not report.modules:
        return "this file holds no LoRA modules: it may be an embedding, a VAE or a whole model"
    names = ", ".join(report.unmatched[:_SHOWN])
    made_for = "another model" if width is None else f"{family(width)} (cross-attention {width} wide)"
    return (
        f"made for {made_for}: none of the file's {report.modules} modules exist in this one. "
        f"Format: {report.format}; first names: {names}. Nothing was changed: use a LoRA made for this checkpoint's "
        "family."
    )
