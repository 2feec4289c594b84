"""Shapes: scenes of one to three objects drawn from a seed, and a small text-conditional teacher that is trained here.

Harder than digits: what is asked for is a sentence, and pictures are far from saturated at few steps. Latents are the
pictures with each 4 × 4 block of pixels as channels, (48, 8, 8); a network narrower than noise of 48 channels learns
x_0 far sooner than v or ε. The teacher reads a caption through a small transformer trained with it; guidance is towards
the caption and away from the empty one. Training, validation and held-out scenes are disjoint: captions to be measured
are of scenes that no training step has seen.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from diffusers import UNet2DConditionModel
from torch import Tensor, nn

from ..recipe import Recipe
from .embedded import EmbeddedFamily
from .shapes_judge import ShapesJudge
from .shapes_pictures import SIDE, as_floats, draw_pictures
from .shapes_scenes import attributes, draw_scenes
from .shapes_text import EMPTY, TextEncoder, learn_to_read, tokens

BLOCK = 4
LATENT = (3 * BLOCK**2, SIDE // BLOCK, SIDE // BLOCK)
TRAINING_SCENES = 40_000
_DATA_SEED = 0


class ShapesFamily(EmbeddedFamily):
    """A shapes teacher with its data; see `Family`."""

    architecture = "shapes/lora"
    base_model = "tcd_toolkit_shapes"
    resolution = SIDE
    no_label = EMPTY
    latent_shape = LATENT
    block = BLOCK
    tokens_file = "text_encoder.safetensors"

    def __init__(self, recipe: Recipe) -> None:
        self.measured = recipe.measure
        super().__init__(recipe)

    @property
    def train(self) -> Tensor:
        """Training pictures (n, 3, 32, 32), uint8."""
        return training_data(TRAINING_SCENES)[0]

    @property
    def train_labels(self) -> Tensor:
        """Token numbers of their captions."""
        return training_data(TRAINING_SCENES)[1]

    def encode(self, pictures: Tensor) -> Tensor:
        """Latents (B, 48, 8, 8) of pictures in 8 bits; inverse of `decode`."""
        return super().encode(as_floats(pictures))

    def make_network(self, width: int) -> tuple[UNet2DConditionModel, TextEncoder]:
        """The UNet and the text encoder, fresh."""
        network = UNet2DConditionModel(
            sample_size=LATENT[-1],
            in_channels=LATENT[0],
            out_channels=LATENT[0],
            block_out_channels=(width, 2 * width),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            mid_block_type="UNetMidBlock2DCrossAttn",
            cross_attention_dim=width,
            attention_head_dim=4,  # heads: diffusers' name for their number in this class
            norm_num_groups=32,
        )
        return network, TextEncoder(width)

    def teacher_task(self, recipe: Recipe) -> nn.Module:
        """The teacher's own training, of an encoder that can read."""
        learn_to_read(self.tokens, recipe.seed)
        return super().teacher_task(recipe)

    def judge(self) -> ShapesJudge:
        """Measures with captions of held-out scenes, or of validation scenes."""
        pictures, _, told = training_data(TRAINING_SCENES)
        return ShapesJudge(pictures, told, self.measured.against, self.measured.fold)


@lru_cache(maxsize=1)
def training_data(count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures in 8 bits, captions' token numbers and attributes of training scenes: the same for every run."""
    scenes = draw_scenes("train", count, _DATA_SEED)
    captions = tokens([scene.caption() for scene in scenes])
    return draw_pictures(scenes, _DATA_SEED), captions, torch.from_numpy(attributes(scenes))


def build(recipe: Recipe) -> ShapesFamily:
    """The family with a fresh, untrained network."""
    return ShapesFamily(recipe)
