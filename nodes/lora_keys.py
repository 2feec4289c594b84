"""What the names in a LoRA file say: which tensor is which part of which module, and in whose format.

Formats: kohya (`lora_unet_…`, with diffusers' or the original model's names), ComfyUI (`diffusion_model.…`), LyCORIS
(`lycoris_…`), diffusers (`unet.…`, `transformer.…`, old `…processor.to_q_lora…`) and PEFT (`base_model.model.…`,
`unet.base_model.model.…`, with or without an adapter's name in the key).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

# A part's canonical name is the suffix the host's loader reads. Order matters only where two patterns could match.
_PARTS = (
    ("lora_up.weight", r"\.lora_up\.weight|[._]lora\.up\.weight|\.lora_linear_layer\.up\.weight"),
    ("lora_down.weight", r"\.lora_down\.weight|[._]lora\.down\.weight|\.lora_linear_layer\.down\.weight"),
    ("lora_up.weight", r"\.lora_B(?:\.[^.]+)?\.weight|\.lora_B"),
    ("lora_down.weight", r"\.lora_A(?:\.[^.]+)?\.weight|\.lora_A"),
    ("lora_up.bias", r"\.lora_B(?:\.[^.]+)?\.bias"),
    ("magnitude", r"\.lora_magnitude_vector(?:\.[^.]+)?(?:\.weight)?"),
    ("alpha", r"[._]lora\.alpha|\.alpha"),
)
_VERBATIM = (
    "lora_mid.weight hada_w1_a hada_w1_b hada_w2_a hada_w2_b hada_t1 hada_t2 lokr_w1 lokr_w1_a lokr_w1_b lokr_w2 "
    "lokr_w2_a lokr_w2_b lokr_t2 a1.weight a2.weight b1.weight b2.weight oft_blocks rescale w_norm b_norm diff diff_b "
    "set_weight dora_scale reshape_weight"
).split()
_PATTERNS = [(part, re.compile(f"(?:{pattern})$")) for part, pattern in _PARTS] + [
    (part, re.compile(rf"\.{re.escape(part)}$")) for part in _VERBATIM
]
_TEXT_ENCODER = re.compile(r"lora_(prior_)?te\d?_|text_encoders?(_\d)?\.|(base_model\.model\.)?text_model\.")
_PREFIXES = re.compile(
    r"(?:base_model\.model\.|model\.diffusion_model\.|diffusion_model\.|unet\.|transformer\."
    r"|lora_unet_|lora_transformer_|lycoris_)+"
)
# The tensor whose presence makes a module one of a kind, by canonical part name.
_KINDS = {
    "lora_up.weight": "lora",
    "lora_down.weight": "lora",
    "hada_w1_a": "loha",
    "lokr_w1": "lokr",
    "lokr_w1_a": "lokr",
    "lokr_w2": "lokr",
    "lokr_w2_a": "lokr",
    "a1.weight": "glora",
    "oft_blocks": "oft",
    "diff": "diff",
    "w_norm": "norm",
    "set_weight": "set",
}
_FORMATS = (
    (r"lora_unet_|lora_transformer_", "kohya"),
    (r"lycoris_", "LyCORIS"),
    (r"(model\.)?diffusion_model\.", "ComfyUI (diffusion_model.…)"),
    (r"unet\.base_model\.model\.", "PEFT (unet.base_model.model.…)"),
    (r"base_model\.model\.", "PEFT (base_model.model.…)"),
    (r".*\.processor\.", "diffusers, attention processors"),
    (r"unet\.", "diffusers (unet.…)"),
    (r"transformer\.", "diffusers (transformer.…)"),
)


@dataclass(frozen=True)
class LoraModule:
    """One module's tensors: `name` as the file has it, `parts` by canonical part name."""

    name: str
    parts: Mapping[str, Tensor]

    @property
    def kinds(self) -> tuple[str, ...]:
        """Which ways of changing the module's weight it holds: "lora", "loha", "lokr", "glora", "oft", "diff" …"""
        return tuple(dict.fromkeys(_KINDS[part] for part in self.parts if part in _KINDS))

    @property
    def kind(self) -> str | None:
        """The one way it changes the weight; None where it changes the bias alone."""
        return next(iter(self.kinds), None)

    @property
    def is_text_encoder(self) -> bool:
        return _TEXT_ENCODER.match(self.name) is not None

    @property
    def stem(self) -> str:
        """The name without the format's prefixes, as the model's own code would write it."""
        return stem_of(self.name)

    @property
    def format(self) -> str:
        return next((label for pattern, label in _FORMATS if re.match(pattern, self.name)), "bare module names")


def stem_of(name: str) -> str:
    """`unet.base_model.model.down_blocks.0.….attn1.processor.to_out` → `down_blocks.0.….attn1.to_out.0`."""
    stem = _PREFIXES.sub("", name, count=1) if _PREFIXES.match(name) else name
    if ".processor." in stem:
        stem = re.sub(r"\.to_out$", ".to_out.0", stem.replace(".processor.", "."))
    return stem


def split_key(key: str) -> tuple[str, str] | None:
    """`("lora_unet_x", "lora_up.weight")` of `lora_unet_x.lora_up.weight`; None for a key of no known format."""
    for part, pattern in _PATTERNS:
        match = pattern.search(key)
        if match and match.start() > 0:
            return key[: match.start()], part
    return None


def group_modules(tensors: Mapping[str, Tensor]) -> tuple[list[LoraModule], list[str]]:
    """Group a file's tensors by module; also the keys that belong to no format known here.

    Raises:
        ValueError: two tensors claim to be the same part of one module, a module is incomplete, or it holds two
            ways of changing one weight (the host would silently apply one of them).
    """
    groups: dict[str, dict[str, Tensor]] = {}
    unknown = []
    for key, tensor in tensors.items():
        split = split_key(key)
        if split is None:
            unknown.append(key)
            continue
        parts = groups.setdefault(split[0], {})
        if split[1] in parts:
            raise ValueError(f"{split[0]} has two tensors for {split[1]}: the file mixes two adapters; split them")
        parts[split[1]] = tensor
    modules = []
    for name, parts in groups.items():
        module = LoraModule(name, parts)
        if module.kind or "diff_b" in parts:
            _check_parts(module)
            modules.append(module)
        else:
            unknown += [f"{name}.{part}" for part in parts]
    return modules, unknown


_REQUIRED = {
    "lora": ("lora_up.weight", "lora_down.weight"),
    "loha": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"),
    "glora": ("a1.weight", "a2.weight", "b1.weight", "b2.weight"),
}


def _check_parts(module: LoraModule) -> None:
    """Raise ValueError for a module with parts missing, empty tensors, or more than one kind."""
    parts = module.parts
    missing = [part for part in _REQUIRED.get(module.kind, ()) if part not in parts]
    if module.kind == "lokr":
        for factor in ("lokr_w1", "lokr_w2"):
            if factor not in parts:
                missing += [part for part in (f"{factor}_a", f"{factor}_b") if part not in parts]
    if ("hada_t1" in parts) != ("hada_t2" in parts):
        missing.append("hada_t1 or hada_t2")
    if missing:
        raise ValueError(
            f"the file is incomplete: {module.name} lacks {', '.join(missing)}. Download or export it again."
        )
    if len(module.kinds) > 1:
        raise ValueError(
            f"{module.name} holds {' and '.join(module.kinds)} for one weight, of which only one would be applied: "
            "export the LoRA again with one of them"
        )
    if "alpha" in parts and parts["alpha"].numel() != 1:
        raise ValueError(f"{module.name} has an alpha of shape {tuple(parts['alpha'].shape)}: it should be one number")
    empty = next((part for part, tensor in parts.items() if tensor.numel() == 0), None)
    if empty:
        raise ValueError(f"{module.name} has an empty tensor ({empty}): it was saved incompletely; export it again")
