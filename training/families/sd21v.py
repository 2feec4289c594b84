"""Stable Diffusion 2.1: as `sd21`, v-prediction, 768 px."""

from ..recipe import Recipe
from .latent_diffusion import LatentDiffusionFamily, Spec

SPEC = Spec("sd21v", architecture="stable-diffusion-v2-768-v/lora", base_model="sd_v2_v")


def build(recipe: Recipe) -> LatentDiffusionFamily:
    return LatentDiffusionFamily(recipe, SPEC)
