"""What Stable Diffusion's families share: a given UNet as teacher, and a cache of latents and texts as data.

A family of this kind is a `Spec` in a file of its own. Latents are the VAE's, scaled as the UNet knows them; VAE and
text encoders are in memory only while the cache is filled (`prepare`) and while validation pictures are decoded.
"""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import models
from ..data import Settings, open_source
from ..data.cache import Cache, encode
from ..draws import WHOLE
from ..recipe import Recipe
from ..student import Condition
from . import vae
from .encoders import Encoders
from .unet import LORA_TARGETS

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class Spec:
    """What distinguishes a family from its sisters.

    Attributes:
        name: the recipe's ``family``.
        architecture, base_model: modelspec's and kohya's names for it.
        sized: whether the network is told the picture's size and crop (SDXL).
    """

    name: str
    architecture: str
    base_model: str
    sized: bool = False


class LatentDiffusionFamily:
    """A pretrained UNet with its data; see `Family`.

    Raises:
        ModelError: the recipe's model is no such model, or not whole: said before anything is loaded.
    """

    no_label = None
    lora_targets = LORA_TARGETS

    def __init__(self, recipe: Recipe, spec: Spec) -> None:
        self.recipe, self.spec = recipe, spec
        self.architecture, self.base_model = spec.architecture, spec.base_model
        self.resolution = recipe.model.resolution
        self.latent_shape = (4, self.resolution // 8, self.resolution // 8)
        model = recipe.model
        self.found = models.inspect(model.path, model.config)
        self.prediction, self.zero_terminal_snr = models.check(
            self.found, spec.name, model.prediction, model.zero_terminal_snr
        )
        self.schedule = models.schedule(self.found, self.zero_terminal_snr)
        self.dtype = DTYPES[model.dtype]
        self.device = torch.device("cpu")
        self.network: nn.Module | None = None
        self.cache: Cache | None = None
        self.prompts: list[str] = []
        self._empty: dict[str, Tensor] = {}

    # -- data ----------------------------------------------------------------------------------------------------------

    def prepare(self, accelerator, say: Callable[[str], None] = print, origin=None) -> None:
        """Fill the cache, or find it filled; afterwards only the UNet is in memory.

        Args:
            origin: the `Origin` of the run, which looks at the data before they are encoded.

        Raises:
            DataError: nothing to train on, or other data than the run began with.  OutputError: no room for the cache.
            KeyboardInterrupt: with what became of it.
        """
        data, prompts = self.recipe.data, list(self.recipe.validation.prompts)
        source, settings = open_source(data), Settings.of(data, self.resolution)
        folder = Path(data.cache or Path("outputs") / "cache")
        self.device = accelerator.device
        encoders = Encoders(self, self.device)
        say = say if accelerator.is_main_process else lambda line: None
        try:
            self.cache = encode(
                source,
                encoders,
                folder,
                settings,
                captions=prompts,
                picture_batch=data.encode_batch,
                process_index=accelerator.process_index,
                num_processes=accelerator.num_processes,
                wait=accelerator.wait_for_everyone,
                say=say,
                accept=lambda plan: origin and origin.check_data(plan, settings, source),
            )
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f" while the data were encoded: what is done stays in {folder}") from None
        if encoders.cut:
            first = textwrap.shorten(min(encoders.cut), 60, placeholder=" …")
            say(f"{len(encoders.cut):,} captions are longer than 75 tokens, and are cut off there: “{first}”")
        self.prompts = prompts or self.cache.captions(4)
        self._empty = self.cache.texts([""])

    def data(self, step, count, seed, stream, part=WHOLE) -> tuple[Tensor, Tensor, Condition, Condition]:
        """Latents and text conditions of a step's batch, captions dropped at times, and the empty caption's."""
        found = self.cache.batch(step, count, seed, stream, part, dropout=self.recipe.data.caption_dropout)
        empty = {name: self._empty[name].expand_as(of) for name, of in found.texts.items()}
        return found.rows, found.latents.float(), self.told(found.texts, found.sizes), self.told(empty, found.sizes)

    def told(self, texts: dict[str, Tensor], sizes: Tensor) -> Condition:
        """What the network is told: texts, and of SDXL also (height, width, top, left, target height, width)."""
        texts = {name: of.to(self.dtype) for name, of in texts.items()}
        return {**texts, "time_ids": sizes.float()} if self.spec.sized else texts

    def sample_condition(self, prompts: Sequence[str]) -> tuple[Condition, Condition]:
        """(condition, unconditional) of the validation prompts, for square pictures."""
        sizes = torch.tensor([[self.resolution, self.resolution, 0, 0, self.resolution, self.resolution]])
        sizes = sizes.expand(len(prompts), 6)
        empty = {name: of.expand(len(prompts), *of.shape[1:]) for name, of in self._empty.items()}
        return self.told(self.cache.texts(prompts), sizes), self.told(empty, sizes)

    # -- network -------------------------------------------------------------------------------------------------------

    def load(self, folder: Path | None = None) -> None:
        """A fresh copy of the teacher, frozen; ``folder`` is of no use here, the teacher is where the recipe says."""
        self.network = models.load_unet(self.found, dtype=self.recipe.model.dtype)
        if self.recipe.memory.gradient_checkpointing:
            self.network.enable_gradient_checkpointing()

    def output(self, network: nn.Module, x: Tensor, times: Tensor, condition: Condition) -> Tensor:
        """The UNet's raw output at (x, t), times in 0 … 999."""
        text = condition["encoder_hidden_states"]
        added = {"text_embeds": condition["pooled"], "time_ids": condition["time_ids"]} if self.spec.sized else None
        return network(x.to(self.dtype), times, text, added_cond_kwargs=added, return_dict=False)[0]

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] of latents, one at a time; the VAE is loaded for it and let go."""
        dtype = vae.decoding_dtype(latents, self.device)
        return vae.decode(models.load_vae(self.found, dtype=dtype, device=self.device), latents)

    # -- not of these families -----------------------------------------------------------------------------------------

    def judge(self) -> None:
        """None: real pictures are compared with by a measurement of their own."""

    def teacher_task(self, recipe: Recipe) -> None:
        """None: the teacher is given."""

    def save(self, folder: Path) -> None:
        """Nothing: the teacher stays where it is."""
