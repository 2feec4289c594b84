"""What a safetensors file is when it is no checkpoint of these families, and what to give instead."""

from __future__ import annotations

import re

from .names import UNET
from .weights import Weights

_WHOLE = (
    "Give the checkpoint itself: UNet, VAE and text encoder in one .safetensors file, as they lie in ComfyUI's "
    "models/checkpoints"
)
_LATER = "Such transformers can't be distilled here: sd15, sd21 and sdxl can"
_KNOWN = "Give an SD 1.5, SD 2.1 or SDXL checkpoint"
_FOLDER = "Give the folder above it, the one with model_index.json"
_ORIGINAL = "Give a diffusers folder, or a checkpoint under the original names"
_PLAIN = "Training needs its original weights: give the fp16, bf16 or fp32 file"
_QUANTISED = r"\.(absmax|quant_map|quant_state\..*|scale_weight|weight_scale)$|(^|\.)scaled_fp8$"
_KEYS = (  # (a pattern of keys that only such files have, what it is, what to give)
    (r"lora_(down|up|A|B)\b|\.hada_w|\.lokr_w|\.dora_scale$", "a LoRA", f"It belongs on top of a checkpoint. {_WHOLE}"),
    (r"^(control_model\.|controlnet_|input_hint_block\.)", "a ControlNet", _WHOLE),
    (r"^(emb_params|string_to_param|clip_[lg])$", "a textual-inversion embedding", _WHOLE),
    (r"motion_modules\.", "an AnimateDiff motion module", _WHOLE),
    (r"(^|\.)joint_blocks\.\d", "a Stable Diffusion 3 model", _LATER),
    (r"(^|\.)double_blocks\.\d+\.img_attn", "a Flux model", _LATER),
    (r"(^|\.)(single_transformer_blocks|transformer_blocks)\.\d+\.attn\.", "a diffusion transformer", _LATER),
    (r"(^|\.)(clip_txt_mapper|clip_mapper)\.weight$", "a Stable Cascade model", _KNOWN),
    (r"^down_blocks\.\d.*\.resnets\.\d", "the UNet of a diffusers folder by itself", _FOLDER),
    (r"^(unet|vae|text_encoder)\.", "a pipeline under diffusers' names in one file", _ORIGINAL),
    (_QUANTISED, "a quantised model", _PLAIN),
)
_WITHOUT_UNET = (
    (
        r"^((first_stage_model|vae)\.)?(encoder|decoder)\.(down|up|mid|conv_in|mid_block|up_blocks|down_blocks)\b",
        "a VAE",
    ),
    (r"^((te|cond_stage_model|conditioner)\.)?.*(text_model|transformer)\.(encoder|resblocks)\b", "a text encoder"),
    (r"^(diffusion_model\.)?(input_blocks|middle_block)\.\d", "a UNet"),
)
_EDM = "edm_vpred.sigma_max", "edm_mean"


def foreign(weights: Weights) -> str | None:
    """What the file is and what to give instead, in words that follow its name; None for a checkpoint with a UNet."""
    if not weights.stored:
        return f"holds no tensors. {_WHOLE}"
    for pattern, what, advice in _KEYS:
        if any(re.search(pattern, key) for key in weights.stored):
            return f"is {what}. {advice}"
    if any(key.startswith(UNET) for key in weights.stored):
        return _other_network(weights)
    for pattern, what in _WITHOUT_UNET:
        if any(re.search(pattern, key) for key in weights.stored):
            return f"is {what} alone. {_WHOLE}"
    some = ", ".join(sorted(weights.stored)[:3])
    return f"is no checkpoint that is known here: it has no UNet ({UNET}…), its keys are {some}, … {_WHOLE}"


def _other_network(weights: Weights) -> str | None:
    """Latent-diffusion UNets that are made for something else than pictures from text."""
    pooled = weights.shape(UNET + "label_emb.0.0.weight")
    width = context_width(weights)
    if width == 1280 or (pooled and pooled[1] == 2560):
        return "is the SDXL refiner, which only ends what the base model began. Give an SDXL base checkpoint"
    if width == 1024 and pooled:
        return "is an SD 2.1-unclip model, which takes pictures as prompts. Give the plain SD 2.1 checkpoint"
    first = weights.shape(UNET + "input_blocks.0.0.weight")
    if first is not None and len(first) == 4 and first[1] != 4:
        kind = {
            9: "an inpainting model",
            8: "a model for editing by instructions",
            7: "an upscaler",
            5: "a depth model",
        }
        what = kind.get(first[1], "a model for something else")
        return f"is {what}: its UNet takes {first[1]} channels, not 4. Give the plain checkpoint it was made from"
    if any(key in weights.stored for key in _EDM):
        return "is an EDM model (as Playground 2.5 and CosXL), on another noise schedule. Give a plain SDXL checkpoint"
    if any(".time_stack." in key or ".time_mix_blocks." in key for key in weights.stored):
        return f"is a video model. {_KNOWN}"
    return None


def context_width(weights: Weights, start: str = UNET) -> int | None:
    """Width of what the UNet's cross-attention attends to; None if it has none."""
    for key in sorted(weights.stored):
        if key.startswith(start) and key.endswith("attn2.to_k.weight"):
            return weights.stored[key].shape[-1]
    return None
