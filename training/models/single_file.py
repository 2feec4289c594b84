"""A checkpoint in one file, under the original models' names: its family, prediction, and whether it is whole."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from .complete import blocks, check_tensors
from .configs import PARTS, SCHEDULER, STANDARD, TITLES, read_configs
from .diffusers_folder import family_of_config
from .foreign import context_width, foreign
from .model_file import Family, ModelFile, Prediction, commonest, known_prediction
from .names import UNET, original, prefixes
from .weights import ModelError, Weights

CONTEXT = {768: "sd15", 1024: "sd21", 2048: "sdxl"}
_V_PROBE = UNET + "output_blocks.11.1.transformer_blocks.0.norm1.bias"
_V_SPREAD = 0.09  # of the probe, as ComfyUI has it; SD 2.1-base is below, SD 2.1-v above
_V_KEYS = {"v_pred", UNET + "v_pred"}  # empty tensors: ComfyUI's Save Checkpoint and SDXL v-models have them
_ZERO_SNR_KEYS = {"ztsnr", UNET + "ztsnr"}


def inspect_file(path: Path, config: Path | None) -> ModelFile:
    """What a checkpoint is; ``config``: a folder of diffusers configs, for one of other sizes than the family's.

    Raises:
        ModelError: it is something else, damaged, or incomplete.
    """
    weights = Weights([path])
    if what := foreign(weights):
        raise ModelError(f"{path} {what}")
    family, told = _family_of_file(path, weights, config)
    configs = read_configs(config or STANDARD / family, family)
    keys = []
    for part in PARTS[family]:
        places = original(family, part, configs[part])
        keys += check_tensors(path, part, configs[part], weights, places, prefixes(family, part), config is None)
    _check_nothing_else(path, family, weights, keys)
    prediction, zero_snr, how = _prediction_of_file(family, weights, configs[SCHEDULER] if config else {})
    return ModelFile(
        path=path,
        family=family,
        prediction=prediction,
        zero_terminal_snr=zero_snr,
        reason=f"{told}; {how}",
        files={part: (path,) for part in PARTS[family]},
        configs=configs,
        single=True,
        dtype=commonest(weights.stored[key].dtype for key in keys if key.startswith(UNET)),
        n_bytes=sum(weights.stored[key].n_bytes for key in set(keys)),
        hashed=((weights, tuple(sorted(set(keys)))),),
    )


def _family_of_file(path: Path, weights: Weights, config: Path | None) -> tuple[Family, str]:
    if config:
        return family_of_config(config, read_configs(config)["unet"])
    width = context_width(weights)
    if width is None:
        raise ModelError(f"{path} has a UNet that attends to no text: either it takes none, or not all of it is there")
    if width not in CONTEXT:
        raise ModelError(
            f"{path} is of no family that is known here: its UNet attends to text {width} wide, where SD 1.5 has 768, "
            "SD 2.1 1024 and SDXL 2048. A model of other sizes needs a folder of its diffusers configs (model.config)"
        )
    return CONTEXT[width], f"its UNet attends to text {width} wide"


def _prediction_of_file(family: str, weights: Weights, scheduler: Mapping) -> tuple[Prediction | None, bool, str]:
    zero_snr = bool(scheduler.get("rescale_betas_zero_snr")) or any(key in weights.stored for key in _ZERO_SNR_KEYS)
    said = weights.metadata.get("modelspec.prediction_type", "")
    if "prediction_type" in scheduler:
        kind, how = known_prediction(scheduler["prediction_type"]), "by the scheduler's config"
    elif any(key in weights.stored for key in _V_KEYS):
        kind, how = "v_prediction", "by its key v_pred"
    elif said in ("epsilon", "v", "v_prediction"):
        kind, how = ("epsilon" if said == "epsilon" else "v_prediction"), "by its metadata"
    elif family == "sd21" and _V_PROBE in weights.stored:
        with weights.reading() as read:
            spread = read(_V_PROBE).float().std(unbiased=False).item()
        kind = "v_prediction" if spread > _V_SPREAD else "epsilon"
        how = f"by the spread of one of its norms, {spread:.3f} (above {_V_SPREAD}: v_prediction)"
    else:
        return None, zero_snr, "it does not say what it predicts"
    return kind, zero_snr, f"{kind} {how}"


def _check_nothing_else(path: Path, family: str, weights: Weights, used: Iterable[str]) -> None:
    """Refuse a UNet with layers that the family's has not: without them it would compute something else."""
    known = {*used, *_V_KEYS, *_ZERO_SNR_KEYS, _V_PROBE}
    extra = [key for key in weights.stored if key.startswith(UNET) and key not in known]
    if extra:
        raise ModelError(
            f"{path} is no plain {TITLES[family]} model: its UNet has {len(extra)} tensors more than the family's, in "
            f"{blocks(extra, (UNET,))}. A model of other sizes needs a folder with its diffusers configs (model.config)"
        )
