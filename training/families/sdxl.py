"""Stable Diffusion XL: CLIP ViT-L and OpenCLIP ViT-bigG, told size and crop, ε-prediction, 1024 px."""

from ..recipe import Recipe
from .latent_diffusion import LatentDiffusionFamily, Spec

SPEC = Spec("sdxl", architecture="stable-diffusion-xl-v1-base/lora", base_model="sdxl_base_v1-0", sized=True)


def build(recipe: Recipe) -> LatentDiffusionFamily:
    return LatentDiffusionFamily(recipe, SPEC)
