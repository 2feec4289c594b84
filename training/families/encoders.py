"""VAE and text encoders of Stable Diffusion's families, as the cache's first pass uses them: one kind at a time."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import models
from ..samplers import guided, sample_solver
from . import vae

TOKENS = 77


class Encoders:
    """Pictures → latents, captions → what the UNet is told of them: computed in float32, stored in float16.

    Args:
        family: a `LatentDiffusionFamily`.
        device: where to compute.

    Attributes:
        cut: the captions so far of which the end is left out, what lies beyond 75 tokens.
    """

    def __init__(self, family, device: torch.device) -> None:
        self.family, self.device = family, device
        self.cut: set[str] = set()
        self._kind, self._loaded = "", None

    @property
    def fingerprint(self) -> str:
        """Of all that determines the encodings but the data's settings."""
        family, model = self.family, self.family.recipe.model
        made = [family.found.fingerprint, "fp16", sum_of(family.found.configs), self.vocabulary]
        if family.recipe.data.prompts:  # the teacher's own pictures
            made += [family.prediction, str(family.zero_terminal_snr), model.dtype]
        return " ".join(made)

    @property
    def vocabulary(self) -> str:
        """Stands for the tokenizers' files, where they are not CLIP's own."""
        found, given = self.family.found, self.family.recipe.model.vocabulary
        own = [] if found.single else [found.path / "tokenizer", found.path / "tokenizer_2"]
        folders = [Path(given).expanduser()] if given else own
        files = sorted(path for folder in folders for path in folder.glob("*") if path.suffix in (".json", ".txt"))
        return sum_of([[path.name, hashlib.sha256(path.read_bytes()).hexdigest()] for path in files])

    def latents(self, pixels: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] → latents (B, 4, H/8, W/8): the posterior's mean, scaled."""
        loaded = self._only("vae", lambda: models.load_vae(self.family.found, device=self.device))
        return vae.encode(loaded, pixels.to(self.device)).half().cpu()

    @torch.no_grad()
    def texts(self, captions: Sequence[str]) -> dict[str, Tensor]:
        """Captions → ``encoder_hidden_states`` (B, 77, d), and SDXL's ``pooled`` (B, 1280)."""
        found, sized = [], self.family.spec.sized
        with_teacher = self._kind == "teacher"
        for tokenizer, encoder in self._loaded[0] if with_teacher else self._only("texts", self._text_encoders):
            whole = tokenizer(list(captions), padding="max_length", max_length=TOKENS, verbose=False).input_ids
            self.cut |= {caption for caption, ids in zip(captions, whole, strict=True) if len(ids) > TOKENS}
            tokens = torch.tensor([[*ids[: TOKENS - 1], ids[-1]] for ids in whole])
            found.append(encoder(tokens.to(self.device), output_hidden_states=sized))
        if not sized:
            return {"encoder_hidden_states": found[0].last_hidden_state.half().cpu()}
        hidden = torch.cat([of.hidden_states[-2] for of in found], -1)
        return {"encoder_hidden_states": hidden.half().cpu(), "pooled": found[-1].text_embeds.half().cpu()}

    @torch.no_grad()
    def from_prompt(self, captions: Sequence[str], seeds: Sequence[int], size: tuple[int, int]) -> Tensor:
        """Latents that the teacher itself makes of captions: guided DDIM from each one's own noise.

        Args:
            size: height and width of the pictures, px.
        """
        family, data = self.family, self.family.recipe.data
        _, network = self._only("teacher", lambda: (self._text_encoders(), self._teacher()))
        texts, empty = self.texts(captions), self.texts([""] * len(captions))
        sizes = torch.tensor([[*size, 0, 0, *size]]).expand(len(captions), 6)
        condition = family.told({name: torch.cat([texts[name], empty[name]]) for name in texts}, sizes.repeat(2, 1))
        condition = {name: of.to(self.device) for name, of in condition.items()}

        teacher = guided(lambda x, times: family.output(network, x, times, condition), data.teacher_w)
        shape = (1, 4, size[0] // 8, size[1] // 8)
        noise = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]
        x = torch.cat(noise).to(self.device)
        return sample_solver("ddim", teacher, family.prediction, family.schedule, x, data.teacher_steps).half().cpu()

    def _text_encoders(self) -> list:
        family = self.family
        tokenizers = models.load_tokenizers(family.found, family.recipe.model.vocabulary)
        encoders = models.load_text_encoders(family.found, device=self.device)
        return list(zip(tokenizers, encoders, strict=True))

    def _teacher(self) -> nn.Module:
        return models.load_unet(self.family.found, dtype=self.family.recipe.model.dtype, device=self.device)

    def _only(self, kind: str, load: Callable):
        """What is loaded of this kind; of another kind it is let go first."""
        if self._kind != kind:
            self._loaded = None
            self._kind, self._loaded = kind, load()
        return self._loaded


def sum_of(values) -> str:
    """16 hexadecimal digits that stand for plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True, default=dict).encode()).hexdigest()[:16]
