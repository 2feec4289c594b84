"""What a model is: its family and prediction, found without reading its weights.

A file is known by its tensors' names and shapes, a diffusers folder by its configs. Whatever the family must have and
the model lacks is named before anything is loaded.
"""

from __future__ import annotations

from pathlib import Path

from .configs import TITLES
from .diffusers_folder import inspect_folder
from .hub import fetch, is_hub_name
from .model_file import ModelFile, Prediction
from .single_file import inspect_file
from .weights import ModelError

RECIPES = {  # the recipe's family → (the model's, what it predicts; None: either)
    "sd15": ("sd15", None),
    "sd21": ("sd21", "epsilon"),
    "sd21v": ("sd21", "v_prediction"),
    "sdxl": ("sdxl", None),
}


def inspect(path: str | Path, config: str | Path = "") -> ModelFile:
    """Find out what a model is, and that nothing of it is missing.

    Args:
        path: a .safetensors file, a diffusers folder, or a Hub name "owner/name", which is fetched if it has to be.
        config: for a single file of other sizes than the family's own: a folder of diffusers configs.

    Raises:
        ModelError: it is something else, damaged, or incomplete; the message says what it is and what to do.
    """
    given, path = str(path), Path(path).expanduser()
    if not given:
        raise ModelError("no model was given: set model.path to a .safetensors file, a diffusers folder or a Hub name")
    if path.is_dir():
        return inspect_folder(path)
    if path.is_file():
        return inspect_file(path, Path(config).expanduser() if config else None)
    if is_hub_name(given):
        return inspect_folder(fetch(given))
    raise ModelError(f"there is no model {given}: neither a file nor a folder. Check the path (model.path)")


def check(
    found: ModelFile, recipe: str, prediction: str = "auto", zero_terminal_snr: bool = False
) -> tuple[Prediction, bool]:
    """Compare a model with what the recipe says it is.

    Args:
        recipe: its family: "sd15", "sd21", "sd21v" or "sdxl".
        prediction: the recipe's; "auto" is what the model says, else what the family has.
        zero_terminal_snr: the recipe's; also true where the model says so.

    Returns:
        (prediction, zero_terminal_snr) to train with.

    Raises:
        ModelError: they do not fit; both are named.
    """
    family, own = RECIPES[recipe]
    if found.family != family:
        fitting = [
            name for name, (wanted, p) in RECIPES.items() if wanted == found.family and p in (None, found.prediction)
        ]
        fitting = fitting or [name for name, (wanted, _) in RECIPES.items() if wanted == found.family]
        raise ModelError(
            f"the recipe's family is {recipe} ({TITLES[family]}), but {found.path} is a {TITLES[found.family]} model: "
            f"{found.reason}. Use family {' or '.join(fitting)}, or give another model"
        )
    if prediction != "auto":
        if own and prediction != own:
            other = "sd21v" if recipe == "sd21" else "sd21"
            raise ModelError(f"family {recipe} means {own}, but model.prediction is {prediction}: use family {other}")
        chosen = prediction
    elif own and found.prediction and found.prediction != own:
        other = "sd21v" if recipe == "sd21" else "sd21"
        raise ModelError(
            f"the recipe's family is {recipe}, which means {own}, but {found.path} seems to predict "
            f"{found.prediction}: {found.reason}. Use family {other}; if you know better, set model.prediction to {own}"
        )
    else:
        chosen = own or found.prediction or "epsilon"
    zero_terminal_snr = zero_terminal_snr or found.zero_terminal_snr
    if zero_terminal_snr and chosen == "epsilon":
        raise ModelError(
            f"{found.path} can't be trained with epsilon prediction and zero terminal SNR: at the last time there is "
            "only noise, and eps says nothing of the picture. Set model.prediction to v_prediction, or "
            "model.zero_terminal_snr to false"
        )
    return chosen, zero_terminal_snr
