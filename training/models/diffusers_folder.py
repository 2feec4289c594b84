"""A model in diffusers' layout, a folder with model_index.json: its family, prediction, and whether it is whole."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from .complete import check_tensors
from .configs import PARTS, SCHEDULER, read_configs, read_json
from .model_file import Family, ModelFile, commonest, known_prediction
from .names import diffusers
from .weights import ModelError, Weights

_WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model"}  # text encoders: "model"


def inspect_folder(folder: Path) -> ModelFile:
    """What a diffusers folder holds.

    Raises:
        ModelError: it is something else, damaged, or incomplete.
    """
    if not (folder / "model_index.json").is_file():
        raise ModelError(_no_pipeline(folder))
    pipeline = str(read_json(folder / "model_index.json").get("_class_name", ""))
    configs = read_configs(folder)
    family, told = family_of_config(folder, configs["unet"], pipeline)
    configs.setdefault(SCHEDULER, {})
    files, names, n_bytes, dtype = {}, {}, 0, ""
    for part in PARTS[family]:
        if part not in configs:
            raise ModelError(f"{folder} is incomplete: {part}/config.json is missing. Download or save it again")
        files[part] = _weight_files(folder, part)
        weights = Weights(files[part])
        names[part] = check_tensors(folder / part, part, configs[part], weights, diffusers(part), (), False)
        n_bytes += weights.n_bytes
        dtype = dtype or commonest(tensor.dtype for tensor in weights.stored.values())
    scheduler = configs[SCHEDULER]
    prediction = known_prediction(scheduler.get("prediction_type", "epsilon"))
    return ModelFile(
        path=folder,
        family=family,
        prediction=prediction,
        zero_terminal_snr=bool(scheduler.get("rescale_betas_zero_snr")),
        reason=f"{told}; {prediction} by its scheduler's config",
        files=files,
        configs=configs,
        single=False,
        dtype=dtype,
        n_bytes=n_bytes,
        hashed=tuple((Weights(files[part]), tuple(names[part])) for part in names),
    )


def family_of_config(folder: Path, unet: Mapping, pipeline: str = "") -> tuple[Family, str]:
    """The family of a UNet's config, and what it was told by.

    Raises:
        ModelError: it is another kind of model.
    """
    kind, width, channels = unet.get("_class_name"), unet.get("cross_attention_dim"), unet.get("in_channels", 4)
    if kind not in (None, "UNet2DConditionModel") or not isinstance(width, int):
        raise ModelError(f"{folder} holds a {pipeline or kind} model: only sd15, sd21 and sdxl can be distilled here")
    if channels != 4:
        raise ModelError(
            f"{folder} is made for something else: its UNet takes {channels} channels, not 4 (inpainting: 9)"
        )
    if width == 1280 and unet.get("addition_embed_type"):
        raise ModelError(
            f"{folder} is the SDXL refiner, which only ends what the base model began. Give the base model"
        )
    if unet.get("class_embed_type"):
        raise ModelError(f"{folder} is an unclip model, which takes pictures as prompts. Give the plain model")
    told = f"its UNet's config has cross_attention_dim {width}"
    if unet.get("addition_embed_type") == "text_time":
        return "sdxl", f"{told} and takes sizes"
    return ("sd21" if unet.get("use_linear_projection") else "sd15"), told


def _weight_files(folder: Path, part: str) -> tuple[Path, ...]:
    """A part's safetensors files: whole or in shards, the plain variant before fp16's."""
    stem = _WEIGHTS.get(part, "model")
    for variant in ("", ".fp16"):
        whole, index = (
            folder / part / f"{stem}{end}" for end in (f"{variant}.safetensors", f".safetensors.index{variant}.json")
        )
        if whole.is_file():
            return (whole,)
        if index.is_file():
            shards = sorted(set(read_json(index).get("weight_map", {}).values()))
            return tuple(folder / part / Path(shard).name for shard in shards)
    pickles = sorted(path.name for path in (folder / part).glob("*.bin"))
    if pickles:
        raise ModelError(
            f"{folder / part} holds a pickle ({pickles[0]}) and no .safetensors file. It was not opened: unpickling "
            "runs whatever code it holds. If you trust it, load the folder with diffusers and save it with "
            "save_pretrained(…, safe_serialization=True)"
        )
    raise ModelError(f"{folder} is incomplete: {part}/{stem}.safetensors is missing. Download or save it again")


def _no_pipeline(folder: Path) -> str:
    if (folder.parent / "model_index.json").is_file():
        return f"{folder} is one part of a diffusers folder. Give the folder above it: {folder.parent}"
    if single := sorted(path.name for path in folder.glob("*.safetensors")):
        return f"{folder} is no diffusers folder (no model_index.json). To use a checkpoint in it, give {single[0]}"
    return (
        f"{folder} is no diffusers folder: model_index.json is missing. Give a .safetensors file or a diffusers folder"
    )
