"""Stable Diffusion 1.x: CLIP ViT-L, ε-prediction, 512 px."""

from ..recipe import Recipe
from .latent_diffusion import LatentDiffusionFamily, Spec

SPEC = Spec("sd15", architecture="stable-diffusion-v1/lora", base_model="sd_v1")


def build(recipe: Recipe) -> LatentDiffusionFamily:
    return LatentDiffusionFamily(recipe, SPEC)
