"""Stable Diffusion 2.1 base: OpenCLIP ViT-H, ε-prediction, 512 px."""

from ..recipe import Recipe
from .latent_diffusion import LatentDiffusionFamily, Spec

SPEC = Spec("sd21", architecture="stable-diffusion-v2-512/lora", base_model="sd_v2")


def build(recipe: Recipe) -> LatentDiffusionFamily:
    return LatentDiffusionFamily(recipe, SPEC)
