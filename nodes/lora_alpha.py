"""The scale of LoRA files whose alpha lies in metadata: diffusers' header JSON and PEFT's adapter_config.json."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .lora_file import ADAPTER_CONFIG

DIFFUSERS_KEY = "lora_adapter_metadata"
# diffusers writes one JSON object for all networks, keys prefixed by the network's name ("unet.r"); a network saved
# alone has none.
_NETWORKS = ("unet.", "transformer.", "")


@dataclass(frozen=True)
class AdapterSettings:
    """PEFT's settings for one adapter; patterns map module names, or regular expressions, to their own values."""

    r: float | None = None
    alpha: float | None = None
    rslora: bool = False
    rank_pattern: Mapping[str, float] = field(default_factory=dict)
    alpha_pattern: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "AdapterSettings | None":
        """Read the settings from a file's metadata; None when it has none.

        Raises:
            ValueError: the metadata is there and can't be understood: the scale would be a guess.
        """
        try:
            config = _config(metadata)
            return None if config is None else cls._from_config(config)
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(
                f"the adapter settings in the file's {DIFFUSERS_KEY} or {ADAPTER_CONFIG} can't be understood "
                f"({error}), so its strength is unknown. Export the LoRA again."
            ) from error

    @classmethod
    def _from_config(cls, config: Mapping) -> "AdapterSettings":
        alpha = config.get("lora_alpha", config.get("alpha"))
        return cls(
            r=_number(config.get("r")),
            alpha=_number(alpha),
            rslora=bool(config.get("use_rslora", False)),
            rank_pattern={key: _number(value) for key, value in (config.get("rank_pattern") or {}).items()},
            alpha_pattern={key: _number(value) for key, value in (config.get("alpha_pattern") or {}).items()},
        )

    def scale(self, name: str, rank: int) -> float:
        """PEFT's factor on `B A` for the module `name`: alpha / r, with rank-stabilised LoRA alpha / sqrt(r).

        `rank`, the tensors' own, serves where no r is told; 1 where no alpha is.
        """
        alpha = _of_pattern(self.alpha_pattern, name, self.alpha)
        r = _of_pattern(self.rank_pattern, name, self.r) or rank
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(r) if self.rslora else r)


def _config(metadata: Mapping[str, str]) -> Mapping | None:
    if DIFFUSERS_KEY in metadata:
        flat = _object(metadata[DIFFUSERS_KEY])
        for network in _NETWORKS:
            if f"{network}r" in flat or f"{network}lora_alpha" in flat:
                return {key[len(network) :]: value for key, value in flat.items() if key.startswith(network)}
    if ADAPTER_CONFIG in metadata:
        return _object(metadata[ADAPTER_CONFIG])
    return None


def _object(text: str) -> dict:
    value = json.loads(text)
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object was expected, not {type(value).__name__}")
    return value


def _number(value) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"a rank or alpha is {value!r}, not a number")
    return float(value)


def _of_pattern(patterns: Mapping[str, float], name: str, default: float | None) -> float | None:
    """The first pattern's value that matches the name's end, as PEFT matches them."""
    for pattern, value in patterns.items():
        if name == pattern or name.endswith("." + pattern):
            return value
        try:
            if re.match(rf"(.*\.)?({pattern})$", name):
                return value
        except re.error as error:
            raise ValueError(f"the adapter settings hold a pattern that is no regular expression: {pattern}") from error
    return default
