"""What is known of a model before it is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Literal

from .configs import Configs
from .weights import ModelError, Weights

Family = Literal["sd15", "sd21", "sdxl"]
Prediction = Literal["epsilon", "v_prediction"]


@dataclass(frozen=True)
class ModelFile:
    """A model that was looked at, and can be loaded by `load`.

    Attributes:
        path: the file or folder.
        family: "sd15", "sd21" or "sdxl".
        prediction: what the network predicts; None where neither file nor configs say.
        zero_terminal_snr: the file says that it was trained with ᾱ = 0 at the last time.
        reason: what family and prediction were told by, for people.
        files: part → its .safetensors files.
        configs: part → its config, and "scheduler".
        single: an original checkpoint in one file, not a diffusers folder.
        dtype: the UNet's number format in the file, the format's word ("F16").
        n_bytes: what the parts take in the file.
        hashed: the weights that count, and their tensors' names: what `fingerprint` is worked out of.
    """

    path: Path
    family: Family
    prediction: Prediction | None
    zero_terminal_snr: bool
    reason: str
    files: Mapping[str, tuple[Path, ...]] = field(repr=False)
    configs: Configs = field(repr=False)
    single: bool
    dtype: str
    n_bytes: int
    hashed: Sequence[tuple[Weights, Sequence[str]]] = field(repr=False)

    @cached_property
    def fingerprint(self) -> str:
        """Tells it from other models, by all its weights; a copy has the same. Seconds, unless they are remembered.

        Raises:
            ModelError: a file was changed or removed.
        """
        return "-".join(weights.fingerprint(names)[: 64 // len(self.hashed)] for weights, names in self.hashed)


def commonest(dtypes: Iterable[str]) -> str:
    """The number format of most tensors."""
    return Counter(dtypes).most_common(1)[0][0]


def known_prediction(word: object) -> Prediction:
    """A scheduler config's prediction_type; ModelError for one that can't be trained."""
    if word not in ("epsilon", "v_prediction"):
        raise ModelError(
            f"the model's scheduler config has prediction_type {word!r}: only epsilon and v_prediction can be"
        )
    return word
