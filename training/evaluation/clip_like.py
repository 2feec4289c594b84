"""Scores by CLIP networks: CLIP score and aesthetic score (ViT-L/14), PickScore and HPS v2 (ViT-H/14).

All are transformers' `CLIPModel`. HPS v2's own package is unmaintained and carries a copy of open_clip; its weights are
open_clip's names, renamed here. The aesthetic score is a linear network over CLIP's picture embedding, without a
package of its own. Pictures are prepared as CLIP's are: the shorter side scaled to 224 by Pillow's bicubic filter, the
middle cropped; captions are CLIP's tokens, cut at 77.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

from ..models.vocabulary import LENGTH, tokenizers
from .weights import Unavailable, Weights, library, load_state, told

SIDE = 224
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
CLIP, CLIP_SIZE = "openai/clip-vit-large-patch14", "1.7 GB"
PICK, PICK_SIZE = "yuvalkirstain/PickScore_v1", "3.9 GB"
HPS, HPS_FILES, HPS_SIZE = "xswu/HPSv2", ("HPS_v2.1_compressed.pt", "HPS_v2_compressed.pt"), "2.0 GB"
AESTHETIC = "sac+logos+ava1-l14-linearMSE.pth"
AESTHETIC_URL = f"https://github.com/christophschuhmann/improved-aesthetic-predictor/raw/main/{AESTHETIC}"
_FILES = ("config.json", "*.safetensors", "model.safetensors.index.json")
VIT_H = {  # open_clip's ViT-H-14, in transformers' words
    "projection_dim": 1024,
    "text_config": {
        "hidden_size": 1024,
        "intermediate_size": 4096,
        "num_attention_heads": 16,
        "num_hidden_layers": 24,
        "hidden_act": "gelu",
        "projection_dim": 1024,
        "bos_token_id": 49406,
        "eos_token_id": 49407,
    },
    "vision_config": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_attention_heads": 16,
        "num_hidden_layers": 32,
        "patch_size": 14,
        "hidden_act": "gelu",
        "projection_dim": 1024,
    },
}


def clip_pixels(pictures: Tensor, side: int = SIDE) -> Tensor:
    """Pictures (B, 3, H, W) uint8 as CLIP's networks take them, (B, 3, side, side) float32."""
    prepared = []
    for picture in pictures.permute(0, 2, 3, 1).numpy():
        height, width = picture.shape[:2]
        short = min(height, width)
        size = (int(side * width / short), int(side * height / short))
        scaled = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
        top, left = (scaled.shape[0] - side) // 2, (scaled.shape[1] - side) // 2
        prepared.append(scaled[top : top + side, left : left + side])
    x = torch.from_numpy(np.stack(prepared)).permute(0, 3, 1, 2).float() / 255
    return (x - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


class Clip:
    """A CLIP network that embeds pictures and captions.

    Args:
        side: of the pictures that it takes, px.
    """

    def __init__(self, network: CLIPModel, device: torch.device) -> None:
        self.network, self.device = network.to(device).eval().requires_grad_(False), device
        self.side = network.config.vision_config.image_size
        self.tokenizer = tokenizers("sd15")[0]

    @classmethod
    def of_folder(cls, folder: Path, device: torch.device) -> Clip:
        """One that `save_pretrained` wrote; Unavailable if it is damaged."""
        try:
            return cls(CLIPModel.from_pretrained(folder, dtype=torch.float32, local_files_only=True), device)
        except Exception as error:  # transformers has many errors for broken files
            raise Unavailable(f"{folder} holds no whole CLIP model ({error}): fetch it again") from error

    @property
    def scale(self) -> float:
        """What the network multiplies cosines by, 100 where it was trained to the end."""
        return float(self.network.logit_scale.exp())

    def pictures(self, pictures: Tensor) -> Tensor:
        """Unit vectors (B, d) of pictures (B, 3, H, W) uint8."""
        pixels = clip_pixels(pictures, self.side).to(self.device)
        pooled = self.network.vision_model(pixel_values=pixels).pooler_output
        return nn.functional.normalize(self.network.visual_projection(pooled), dim=-1)

    def texts(self, captions: Sequence[str]) -> Tensor:
        """Unit vectors (B, d) of captions."""
        tokens = self.tokenizer(
            list(captions), padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt"
        ).to(self.device)
        pooled = self.network.text_model(tokens.input_ids, attention_mask=tokens.attention_mask).pooler_output
        return nn.functional.normalize(self.network.text_projection(pooled), dim=-1)

    def cosines(self, pictures: Tensor, captions: Sequence[str]) -> Tensor:
        """cos(picture, caption) of each pair, (B,)."""
        return (self.pictures(pictures) * self.texts(captions)).sum(-1)


class ClipScore:
    """100 × max(cos, 0), as torchmetrics' CLIPScore has it."""

    metrics = ("clip_score",)

    def __init__(self, weights: Weights, device: torch.device) -> None:
        folder = weights.repository(CLIP, _FILES, CLIP_SIZE)
        self.clip = Clip.of_folder(folder, device)
        self.source = f"{library('transformers')}, {_named(CLIP, folder)}"

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        return {"clip_score": 100 * self.clip.cosines(pictures, captions).clamp(min=0)}


class Aesthetic:
    """LAION's improved aesthetic predictor over CLIP ViT-L/14's picture embedding."""

    metrics = ("aesthetic",)

    def __init__(self, weights: Weights, device: torch.device) -> None:
        path = weights.file((AESTHETIC,), url=AESTHETIC_URL, size="4 MB")
        folder = weights.repository(CLIP, _FILES, CLIP_SIZE)
        self.clip = Clip.of_folder(folder, device)
        self.head = linear_head(load_state(path), path).to(device)
        self.source = f"{library('transformers')}, {_named(CLIP, folder)}, {told(path)}"

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        return {"aesthetic": self.head(self.clip.pictures(pictures))[:, 0]}


class PickScore:
    """The network's own scale (near 100) × cos."""

    metrics = ("pick_score",)

    def __init__(self, weights: Weights, device: torch.device) -> None:
        folder = weights.repository(PICK, _FILES, PICK_SIZE)
        self.clip = Clip.of_folder(folder, device)
        self.source = f"{library('transformers')}, {_named(PICK, folder)}"

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        return {"pick_score": self.clip.scale * self.clip.cosines(pictures, captions)}


class Hps:
    """Human preference score v2: 100 × cos, by HPS v2.1's weights, or v2.0's where only those are there."""

    metrics = ("hps",)

    def __init__(self, weights: Weights, device: torch.device) -> None:
        path = weights.file(HPS_FILES, repository=HPS, size=HPS_SIZE)
        self.clip = Clip(from_open_clip(load_state(path), VIT_H, path), device)
        self.source = f"{library('transformers')}, {told(path)}"

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        return {"hps": 100 * self.clip.cosines(pictures, captions)}


def linear_head(state: Mapping[str, Tensor], path: Path) -> nn.Sequential:
    """Linear layers one after the other (dropout between them is of training alone), ``layers.<n>`` in a state dict.

    Raises:
        Unavailable: the state dict is of something else.
    """
    numbers = sorted({int(key.split(".")[-2]) for key in state if key.split(".")[-1] == "weight"})
    try:
        prefix = next(iter(state)).rsplit(".", 2)[0]
        layers = []
        for number in numbers:
            weight, bias = state[f"{prefix}.{number}.weight"].float(), state[f"{prefix}.{number}.bias"].float()
            layer = nn.Linear(weight.shape[1], weight.shape[0])
            layer.load_state_dict({"weight": weight, "bias": bias})
            layers.append(layer)
    except (StopIteration, KeyError, RuntimeError, IndexError) as error:
        raise Unavailable(f"{path} holds no linear layers ({error}): fetch it again") from error
    return nn.Sequential(*layers).eval().requires_grad_(False)


def from_open_clip(state: Mapping[str, Tensor], config: Mapping, path: Path) -> CLIPModel:
    """transformers' CLIPModel of a state dict in open_clip's names.

    Raises:
        Unavailable: tensors are missing, or of other shapes than the config's.
    """
    renamed: dict[str, Tensor] = {}
    for side, start in (("vision_model", "visual."), ("text_model", "")):
        blocks = f"{start}transformer.resblocks."
        for key in (key for key in state if key.startswith(blocks)):
            number, _, rest = key.removeprefix(blocks).partition(".")
            for name, value in _block(rest, state[key]):
                renamed[f"{side}.encoder.layers.{number}.{name}"] = value
    for theirs, ours in _OUTSIDE.items():
        if theirs in state:
            renamed[ours] = state[theirs].T if theirs in ("visual.proj", "text_projection") else state[theirs]
    network = CLIPModel(CLIPConfig.from_dict(dict(config)))
    expected = network.state_dict()
    renamed = {key: value.float() for key, value in renamed.items() if key in expected}
    missing = [key for key in expected if key not in renamed and not key.endswith("position_ids")]
    wrong = [key for key, value in renamed.items() if value.shape != expected[key].shape]
    if missing or wrong:
        raise Unavailable(
            f"{path} is not the network it should be: {len(missing)} of {len(expected)} tensors are missing, "
            f"{len(wrong)} of other shapes (first: {(missing + wrong)[0]}): fetch it again"
        )
    network.load_state_dict(renamed, strict=False)
    return network


_OUTSIDE = {
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_INSIDE = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}


def _block(name: str, value: Tensor) -> list[tuple[str, Tensor]]:
    """A transformer block's tensor in transformers' names; q, k and v lie in one."""
    kind = name.rpartition("_" if name.startswith("attn.in_proj") else ".")[2]
    if name.startswith("attn.in_proj"):
        return [(f"self_attn.{part}_proj.{kind}", of) for part, of in zip("qkv", value.chunk(3), strict=True)]
    return [(f"{_INSIDE[name.rpartition('.')[0]]}.{kind}", value)]


def _named(repository: str, folder: Path) -> str:
    """A Hub repository with its revision, where the folder is of the Hub's cache."""
    return f"{repository} @ {folder.name[:12]}" if folder.parent.name == "snapshots" else f"{folder.name} (own folder)"
