"""Which shape a LoRA's module changes, and whether a model's weight has it.

Names alone do not tell families apart: an SDXL LoRA matches 79 of SD 1.5's modules by name and shape. So the
cross-attention width is compared first, then every same-named module.
"""

import math
import re
from collections.abc import Iterable, Mapping

from .lora_keys import LoraModule

Shape = tuple[int, ...]
# A target as the host's key map gives it: a weight's key, or (key, (dimension, start, length), …) for a part of it.
Target = str | tuple

_CROSS_ATTENTION = re.compile(r"(^|[._])attn2[._]to_k$")
BIASES = ("diff_b", "b_norm", "lora_up.bias")
_FAMILIES = {768: "SD 1.5", 1024: "SD 2.x", 2048: "SDXL"}


def delta_shapes(module: LoraModule) -> tuple[Shape, ...]:
    """The shapes (output, input, kernel …) the module's weight change can have; kernels may be folded into input.

    More than one where the format leaves it open (two generations of GLoRA); none where it is not told (OFT, which
    fits any weight of the right output width, and a change of the bias alone). `()`, which fits nothing, for tensors
    that do not fit each other.
    """
    try:
        return _delta_shapes(module)
    except IndexError:
        return ((),)


def _delta_shapes(module: LoraModule) -> tuple[Shape, ...]:
    shapes = {name: tuple(tensor.shape) for name, tensor in module.parts.items()}
    if module.kind == "lora":
        up, down = shapes["lora_up.weight"], shapes["lora_down.weight"]
        kernel = shapes.get("lora_mid.weight", down)[2:]
        return ((up[0], down[1], *kernel),) if min(len(up), len(down)) > 1 and up[1] == down[0] else ((),)
    if module.kind == "loha":
        return (_product(shapes, "hada_w1", "hada_t1"),)
    if module.kind == "lokr":
        first, second = _factor(shapes, "lokr_w1"), _factor(shapes, "lokr_w2", "lokr_t2")
        return ((first[0] * second[0], first[1] * second[1], *second[2:]),)
    if module.kind == "glora":
        b1, b2 = shapes["b1.weight"], shapes["b2.weight"]
        return ((b1[0], b2[1]), (b2[0], b1[1]))
    key = {"diff": "diff", "norm": "w_norm", "set": "set_weight"}.get(module.kind)
    return (shapes[key],) if key else ()


def _factor(shapes: Mapping[str, Shape], name: str, core: str = "") -> Shape:
    return shapes[name] if name in shapes else _product(shapes, name, core)


def _product(shapes: Mapping[str, Shape], name: str, core: str) -> Shape:
    """Shape of `a @ b`, or of the core tensor contracted with a and b (both then (rank, width))."""
    a, b = shapes[f"{name}_a"], shapes[f"{name}_b"]
    if core in shapes:
        return a[1], b[1], *shapes[core][2:]
    return (a[0], b[1]) if a[1] == b[0] else ()


def target_shape(target: Target, shapes: Mapping[str, Shape | None]) -> Shape | None:
    """The target's shape, the offset of a part respected; None when the model does not tell (packed weights)."""
    if isinstance(target, str):
        return shapes[target]
    shape = shapes[target[0]]
    if shape is None or target[1] is None:
        return shape
    dimension, _, length = target[1]
    return (*shape[:dimension], length, *shape[dimension + 1 :])


def fits(module: LoraModule, target: Target, shapes: Mapping[str, Shape | None]) -> bool:
    """Whether the host can apply the module to the target: equal output width and equal number of inputs.

    A 1×1 convolution and a linear layer fit each other.
    """
    wanted = target_shape(target, shapes)
    if wanted is None or "reshape_weight" in module.parts:
        return True
    return _weight_fits(module, wanted) and _bias_fits(module, target, shapes) and _dora_fits(module, wanted)


def _weight_fits(module: LoraModule, wanted: Shape) -> bool:
    if module.kind == "oft":
        blocks = module.parts["oft_blocks"].shape
        return len(blocks) in (3, 4) and blocks[-3] * blocks[-2] == wanted[0]
    found = delta_shapes(module)
    return not found or any(_folded(shape) == _folded(wanted) for shape in found)


def _bias_fits(module: LoraModule, target: Target, shapes: Mapping[str, Shape | None]) -> bool:
    bias = next((module.parts[name] for name in BIASES if name in module.parts), None)
    if bias is None or not isinstance(target, str):
        return True
    return shapes.get(bias_key(target)) in (None, tuple(bias.shape))


def _dora_fits(module: LoraModule, wanted: Shape) -> bool:
    """A DoRA scale has one value per output, or one per input."""
    dora = module.parts.get("dora_scale")
    return dora is None or dora.numel() in (wanted[0], math.prod(wanted[1:2]))


def bias_key(target: str) -> str:
    return target.removesuffix(".weight") + ".bias"


def _folded(shape: Shape) -> Shape:
    return (shape[0], math.prod(shape[1:])) if shape else ()


def cross_attention_width(modules: Iterable[LoraModule]) -> int | None:
    """Width of the text conditioning the modules were made for, read off their attn2.to_k; None without one."""
    for module in modules:
        if _CROSS_ATTENTION.search(module.stem):
            for shape in delta_shapes(module):
                if len(shape) > 1:
                    return shape[1]
    return None


def check_family(modules: Iterable[LoraModule], shapes: Mapping[str, Shape | None]) -> None:
    """Compare the cross-attention widths of file and model.

    Raises:
        ValueError: the file was made for a model whose text conditioning has another width.
    """
    in_model = {shape[1] for key, shape in shapes.items() if shape and key.endswith("attn2.to_k.weight")}
    in_file = cross_attention_width(modules)
    if in_model and in_file is not None and in_file not in in_model:
        raise ValueError(
            f"made for {family(in_file)}: cross-attention {in_file} wide; "
            f"this model is {family(min(in_model))}: {min(in_model)}. "
            "Nothing was changed: load a LoRA and a checkpoint of one family."
        )


def family(width: int) -> str:
    """The family whose text conditioning is so wide."""
    return _FAMILIES.get(width, "another family")
