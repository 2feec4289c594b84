"""Whether a part is whole: every tensor that its config asks for is in its files, in the shape it asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from .configs import NAMES, shapes
from .names import Place, Places
from .weights import ModelError, Weights


def check_tensors(
    path: Path, part: str, config: Mapping, weights: Weights, places: Places, starts: tuple[str, ...], standard: bool
) -> list[str]:
    """The keys that hold a part's tensors.

    Raises:
        ModelError: some are missing, or of other shapes than the config's.
    """
    keys, missing, misshapen = [], [], []
    for name, shape in shapes(part, config).items():
        place = place_of(name, places, weights)
        if place is None:
            missing.append(places(name)[0].key)
        elif _squeezed(place.shape(weights.stored[place.key].shape)) != _squeezed(shape):
            misshapen.append(f"{place.key} is {weights.stored[place.key].shape}, {shape} was expected")
        else:
            keys.append(place.key)
    if missing:
        raise ModelError(_missing(path, part, missing, starts, whole=not keys and not misshapen))
    if misshapen:
        advice = (
            "A model of other sizes needs a folder with its diffusers configs (model.config)"
            if standard
            else "The config does not belong to these weights"
        )
        raise ModelError(
            f"{path} has a {NAMES[part]} of other sizes than {'its family' if standard else 'its config'} has: "
            f"{misshapen[0]} ({len(misshapen)} tensors in all). {advice}"
        )
    return keys


def place_of(name: str, places: Places, weights: Weights) -> Place | None:
    """Where a tensor lies, of the places where it may; None: nowhere."""
    return next((place for place in places(name) if place.key in weights.stored), None)


def _missing(path: Path, part: str, keys: list[str], starts: tuple[str, ...], whole: bool) -> str:
    if whole and starts and part != "unet":
        load = "Load VAE" if part == "vae" else "Load CLIP or DualCLIPLoader"
        return (
            f"{path} has no {NAMES[part]} ({starts[0]}…), which training needs to encode "
            f"{'pictures' if part == 'vae' else 'captions'}. Give a file with everything: in ComfyUI, load this one "
            f"and the missing part ({load}), and write them together with Save Checkpoint"
        )
    return (
        f"{path} is incomplete: {len(keys)} of its {NAMES[part]}'s tensors are missing, in {blocks(keys, starts)}. "
        "Download or save it again"
    )


def blocks(keys: Iterable[str], starts: tuple[str, ...], shown: int = 4) -> str:
    """`output_blocks.5.1 (20), middle_block.0 (2), …`: the blocks that keys belong to, with how many of each."""
    count = Counter()
    for key in keys:
        start = next((start for start in starts if key.startswith(start)), "")
        words, block = key[len(start) :].split("."), []
        for word in words[:-1]:
            block.append(word)
            if word.isdigit() and not (len(words) > len(block) + 1 and words[len(block)].isdigit()):
                break
        count[start + ".".join(block)] += 1
    named = [f"{block} ({n})" for block, n in list(count.items())[:shown]]
    return ", ".join(named) + (f" and {len(count) - shown} blocks more" if len(count) > shown else "")


def _squeezed(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Without ones at the end: a 1 × 1 convolution's weights are a matrix's."""
    while shape and shape[-1] == 1:
        shape = shape[:-1]
    return shape
