"""Fixtures for the tests of evaluations: checkpoints and LoRAs, and prompts."""

from collections.abc import Callable
from pathlib import Path

import pytest
from training_support.evaluations import write_lora, write_prompts
from training_support.pretrained import write_small_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory) -> Callable[[str], Path]:
    """``checkpoint("sdxl")``: a small random checkpoint of a family ("sd21v" too), made once."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def get(family: str) -> Path:
        if family not in made:
            place = folder / family
            place.mkdir()
            more = {"v_prediction": True} if family == "sd21v" else {}
            made[family] = write_small_checkpoint(place, family.removesuffix("v"), **more)
        return made[family]

    return get


@pytest.fixture(scope="session")
def lora(checkpoint, tmp_path_factory) -> Callable[..., Path]:
    """``lora("sdxl", "diffusers")``: a random LoRA for that checkpoint, in a file of that style."""
    folder, made = tmp_path_factory.mktemp("loras"), {}

    def get(family: str, style: str = "kohya") -> Path:
        if (family, style) not in made:
            path = folder / f"{family}_{style}.safetensors"
            write_lora(checkpoint(family), path, style)
            made[family, style] = path
        return made[family, style]

    return get


@pytest.fixture(scope="session")
def prompts(tmp_path_factory) -> Path:
    """A file of five prompts, of which one stands there twice."""
    return write_prompts(tmp_path_factory.mktemp("prompts") / "prompts.txt")
