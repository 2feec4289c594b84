"""ImageReward: BLIP's picture encoder, its text encoder that attends to it, linear layers over the first token.

Its own package needs old libraries (timm 0.6.13, fairscale), so its weights are put into transformers' BLIP, which
computes the same, to the bit where both were run with the same random weights.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import BertTokenizer
from transformers.models.blip.configuration_blip import BlipTextConfig, BlipVisionConfig
from transformers.models.blip.modeling_blip import BlipVisionModel
from transformers.models.blip.modeling_blip_text import BlipTextModel

from .clip_like import clip_pixels, linear_head
from .weights import Unavailable, Weights, library, load_state, told

REPOSITORY, FILE, SIZE = "THUDM/ImageReward", "ImageReward.pt", "1.8 GB"
VOCABULARY = "google-bert/bert-base-uncased"
TOKENS = 35  # of a caption
MEAN, STD = 0.16717362830052426, 1.0333394966054072  # of the scores of its training pictures
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 224,
    "patch_size": 16,
    "layer_norm_eps": 1e-6,
}
TEXT = {
    "vocab_size": 30524,
    "hidden_size": 768,
    "encoder_hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "max_position_embeddings": 512,
    "is_decoder": True,  # has cross-attention; it is called with is_decoder=False, and attends in both directions
}
_VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
    (r"^norm\.", "post_layernorm."),
)


class ImageReward:
    """100 × the model's score, as the paper's tables have it."""

    metrics = ("image_reward",)

    def __init__(self, weights: Weights, device: torch.device) -> None:
        path = weights.file((FILE,), repository=REPOSITORY, size=SIZE)
        words = weights.repository(VOCABULARY, ("vocab.txt", "tokenizer*.json"), "0.2 MB")
        self.vision, self.text, self.head = (part.to(device) for part in networks(load_state(path), path))
        self.tokenizer, self.device = _tokenizer(words), device
        self.source = f"{library('transformers')}, {told(path)}"

    def __call__(self, pictures: Tensor, captions: Sequence[str]) -> dict[str, Tensor]:
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=TOKENS, return_tensors="pt"
        ).to(self.device)
        pixels = clip_pixels(pictures, self.vision.config.image_size).to(self.device)
        return {"image_reward": 100 * self.score(pixels, tokens.input_ids, tokens.attention_mask)}

    def score(self, pixels: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
        """The score (B,) of pixels (B, 3, 224, 224) with the tokens (B, 35) of their captions."""
        return score(self.vision, self.text, self.head, pixels, ids, mask)


def score(vision: BlipVisionModel, text: BlipTextModel, head: nn.Module, pixels, ids, mask) -> Tensor:
    """``(head(text(caption | picture)[first token]) − MEAN) / STD``."""
    seen = vision(pixel_values=pixels).last_hidden_state
    everywhere = torch.ones(seen.shape[:2], dtype=torch.long, device=seen.device)
    hidden = text(
        input_ids=ids,
        attention_mask=mask,
        encoder_hidden_states=seen,
        encoder_attention_mask=everywhere,
        is_decoder=False,
    ).last_hidden_state
    return (head(hidden[:, 0])[:, 0] - MEAN) / STD


def networks(
    state: Mapping[str, Tensor], path: Path, vision: Mapping = VISION, text: Mapping = TEXT
) -> tuple[BlipVisionModel, BlipTextModel, nn.Module]:
    """Picture encoder, text encoder and head of a state dict in ImageReward's names.

    Raises:
        Unavailable: tensors are missing or have other shapes.
    """
    made = (
        BlipVisionModel(BlipVisionConfig(**vision)),
        BlipTextModel(BlipTextConfig(**text), add_pooling_layer=False),
    )
    for network, start, rename in zip(
        made, ("blip.visual_encoder.", "blip.text_encoder."), (_vision_name, str), strict=True
    ):
        renamed = {rename(k.removeprefix(start)): v.float() for k, v in state.items() if k.startswith(start)}
        expected = network.state_dict()
        missing = [key for key in expected if key not in renamed or renamed[key].shape != expected[key].shape]
        if missing:
            raise Unavailable(
                f"{path} is not ImageReward: {len(missing)} of its {start.split('.')[1]}'s {len(expected)} tensors are "
                f"missing or of other shapes (first: {missing[0]}): fetch it again"
            )
        network.load_state_dict({key: renamed[key] for key in expected})
        network.eval().requires_grad_(False)
    return *made, linear_head({key: value for key, value in state.items() if key.startswith("mlp.layers.")}, path)


def _vision_name(name: str) -> str:
    for pattern, ours in _VISION_NAMES:
        name = re.sub(pattern, ours, name)
    return name


def _tokenizer(folder: Path) -> BertTokenizer:
    try:
        return BertTokenizer.from_pretrained(str(folder), local_files_only=True)
    except Exception as error:  # transformers has many errors for broken files
        raise Unavailable(f"{folder} holds no BERT vocabulary ({error}): fetch {VOCABULARY} again") from error
