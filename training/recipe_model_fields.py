"""The recipe's sections for pretrained models (families sd15, sd21, sd21v, sdxl): model, data, memory, validation.

The embedded families have no use for them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from .recipe_section import Count, Section, Share


class Model(Section):
    """The pretrained model: teacher, and base of the student."""

    path: str = Field("", description="a .safetensors checkpoint, a diffusers folder, or a Hub name (owner/name)")
    prediction: Literal["auto", "epsilon", "v_prediction"] = Field(
        "auto", description="what its network predicts; auto: what the file or its config says, else the family's own"
    )
    zero_terminal_snr: bool = Field(
        False, description="it was trained with alpha = 0 at t = N − 1; also where its file says so"
    )
    dtype: Literal["bf16", "fp16", "fp32"] = Field("bf16", description="number format of the frozen network in memory")
    resolution: int = Field(512, ge=64, le=4096, multiple_of=64, description="side of a square training picture, px")
    config: str = Field("", description="folder of diffusers' configs, for sizes that are not the family's own")
    vocabulary: str = Field("", description="folder with another CLIP vocab.json and merges.txt than the standard one")


class Data(Section):
    """What a pretrained model is distilled on: images, shards or prompts, encoded once into a cache."""

    images: str = Field("", description="folder of pictures with .txt captions; subfolders N_name repeat N times")
    shards: str = Field("", description="webdataset shards: paths or URLs, with {0000..0099} patterns")
    prompts: str = Field("", description="file with a prompt per line: the teacher makes the pictures itself")
    cache: str = Field("", description="folder of the encoded pictures and captions, shared by runs (outputs/cache)")
    encode_batch: int = Field(4, ge=1, le=256, description="pictures encoded at a time, a million pixels at most")
    bucket_step: int = Field(64, ge=8, le=512, multiple_of=8, description="sides of pictures are multiples of this, px")
    max_aspect: float = Field(2.0, ge=1, le=8, description="longest side over shortest; the rest is cropped")
    min_side: int = Field(256, ge=8, description="pictures with a shorter side are skipped, px")
    caption_dropout: Share = Field(0.1, description="probability of training on the empty caption instead")
    prompt_seeds: int = Field(1, ge=1, le=1000, description="pictures that the teacher makes of each prompt")
    teacher_steps: int = Field(25, ge=1, le=1000, description="DDIM steps in which the teacher makes them")
    teacher_w: float = Field(6.5, ge=0, description="guidance w of these: CFG scale − 1")

    @model_validator(mode="after")
    def _one_source(self):
        given = [name for name in ("images", "shards", "prompts") if getattr(self, name)]
        if len(given) > 1:
            raise ValueError(f"data takes one of images, shards and prompts, got {' and '.join(given)}")
        return self


class Memory(Section):
    """What saves memory, and what it costs."""

    gradient_checkpointing: bool = Field(False, description="keep no activations of blocks: a tenth of them, +40% time")
    optimizer: Literal["adamw", "adamw8bit"] = Field(
        "adamw", description="adamw8bit holds its moments in 8 bits, by bitsandbytes"
    )
    shard: bool = Field(
        False,
        description="full fine-tuning: every process holds its part of weights, averages and moments (FSDP)",
    )
    offload: bool = Field(False, description="averages and saved activations wait in main memory: slower, far smaller")


class Validation(Section):
    """Pictures and figures while a pretrained model's distillation runs."""

    prompts: tuple[str, ...] = Field((), description="prompts of the grid; none: the data's first four captions")
    every: int = Field(500, ge=0, description="steps between grids, 0 = none")
    steps: tuple[Count, ...] = Field((2, 4, 8), min_length=1, description="the student's sampling steps, a column each")
    teacher_steps: int = Field(25, ge=1, le=1000, description="DDIM steps of the teacher beside it")
    w: float = Field(6.5, ge=0, description="guidance w of the teacher beside it: CFG scale − 1")
    seed: int = Field(0, ge=0, le=2**31 - 1, description="seed of the grid's noise")
    trackers: tuple[str, ...] = Field(("tensorboard",), description="accelerate's trackers, by name; none: no log")
