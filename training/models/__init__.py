"""Pretrained Stable Diffusion models, from the files that people have, as diffusers' parts.

- `detect`: what a model is: `inspect` a file or folder, `check` it against the recipe
- `load`: UNet, VAE, text encoders, tokenizers, noise schedule
- `weights`: safetensors files: headers, tensors one by one, never a pickle
- `fingerprints`: what tells two models' weights apart
- `names`: original checkpoints' names of diffusers' tensors
- `complete`: what is missing or of another shape
- `foreign`: what a file is instead
- `configs`: classes and sizes of the families' parts (`configs/<family>/<part>/config.json`)
- `vocabulary`: CLIP's tokenizers (`clip_merges.txt.gz`)
- `hub`: models by name from the Hugging Face Hub, the only thing here that uses the network
"""

from .detect import ModelFile, check, inspect
from .load import (
    Encoders,
    Parts,
    load,
    load_encoders,
    load_text_encoders,
    load_tokenizers,
    load_unet,
    load_vae,
    schedule,
)
from .weights import ModelError

__all__ = [
    "Encoders",
    "ModelError",
    "ModelFile",
    "Parts",
    "check",
    "inspect",
    "load",
    "load_encoders",
    "load_text_encoders",
    "load_tokenizers",
    "load_unet",
    "load_vae",
    "schedule",
]
