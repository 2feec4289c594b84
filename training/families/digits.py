"""The embedded default's family: a small class-conditional teacher for scikit-learn's digits, trained here in a minute.

Latents are the pictures with each 2 × 2 block of pixels as four channels, (4, 4, 4). The network takes the label as
four cross-attention tokens (attention over a single token has no gradient in q and k), and has widths divisible by 32
so that ComfyUI's own UNet, with its GroupNorm(32), can hold the same weights.
"""

from __future__ import annotations

from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle

from ..recipe import Recipe
from .digits_data import CLASSES, Split, load_split
from .digits_judge import DigitsJudge
from .embedded import EmbeddedFamily

TOKENS = 4
LATENT = (4, 4, 4)
BLOCK = 2
NO_LABEL = CLASSES  # the token row of the unconditional teacher


class DigitsFamily(EmbeddedFamily):
    """A digits teacher with its data; see `Family`."""

    architecture = "digits/lora"
    base_model = "tcd_toolkit_digits"
    resolution = 8
    no_label = NO_LABEL
    latent_shape = LATENT
    block = BLOCK
    tokens_file = "label_tokens.safetensors"

    def __init__(self, recipe: Recipe) -> None:
        self.split: Split = load_split(recipe.measure.against, recipe.measure.fold)
        self.train, self.train_labels = self.split.train, self.split.train_labels
        super().__init__(recipe)

    def make_network(self, width: int) -> tuple[UNet2DConditionModel, nn.Embedding]:
        """The UNet and the table of label tokens, fresh."""
        network = UNet2DConditionModel(
            sample_size=LATENT[-1],
            in_channels=LATENT[0],
            out_channels=LATENT[0],
            block_out_channels=(width,),
            layers_per_block=1,
            down_block_types=("DownBlock2D",),
            up_block_types=("UpBlock2D",),
            mid_block_type="UNetMidBlock2DCrossAttn",
            cross_attention_dim=width,
            attention_head_dim=2,  # heads: diffusers' name for their number in this class
            norm_num_groups=32,
        )
        return network, nn.Embedding(CLASSES + 1, TOKENS * width)

    def states(self, labels: Tensor) -> Tensor:
        """The tokens of labels 0 … 9, or `NO_LABEL`; shape (B, 4, width)."""
        return self.tokens(labels).unflatten(1, (TOKENS, -1))

    def judge(self) -> DigitsJudge:
        """Measures against the split's reference part."""
        return DigitsJudge(self.split)


def encode(pictures: Tensor) -> Tensor:
    """Latents (B, 4, 4, 4) of pictures (B, 1, 8, 8); inverse of `DigitsFamily.decode`."""
    return pixel_unshuffle(pictures, BLOCK)


def build(recipe: Recipe) -> DigitsFamily:
    """The family with a fresh, untrained network."""
    return DigitsFamily(recipe)
