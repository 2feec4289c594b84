"""The model that is measured: what it is, its texts, its UNet with or without a LoRA, its pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tcd_core.sss import Order
from tcd_core.tcf import Form

from .. import families, models
from ..families import vae
from ..families.encoders import Encoders
from ..families.latent_diffusion import DTYPES, LatentDiffusionFamily
from ..measure import with_target_time
from ..recipe import build
from ..samplers import Network, guided
from ..student import Condition
from . import lora

RESOLUTIONS = {"sd15": 512, "sd21": 512, "sd21v": 768, "sdxl": 1024}


def family_of(path: str, config: str = "", prediction: str = "auto") -> str:
    """The recipe's name for a model's family: "sd15", "sd21", "sd21v" or "sdxl".

    Raises:
        ModelError: there is no such model, or it is another kind, or not whole.
    """
    found = models.inspect(path, config)
    told = found.prediction if prediction == "auto" else prediction
    return "sd21v" if found.family == "sd21" and told == "v_prediction" else found.family


class Model:
    """A checkpoint, opened but not loaded; `open` loads texts and VAE, `network` the UNet.

    Args:
        resolution: side of the square pictures, px; None: the family's own.
        dtype: of the UNet, "fp16", "bf16" or "fp32".

    Raises:
        ModelError: see `family_of`.
    """

    def __init__(
        self,
        path: str,
        dtype: str,
        device: torch.device,
        resolution: int | None = None,
        config: str = "",
        prediction: str = "auto",
    ) -> None:
        name = family_of(path, config, prediction)
        of_model = {"path": str(path), "config": config, "prediction": prediction, "dtype": dtype}
        of_model["resolution"] = resolution or RESOLUTIONS[name]
        self.name, self.device, self.dtype = name, device, DTYPES[dtype]
        self.family: LatentDiffusionFamily = families.build(build({"family": name, "model": of_model}))
        self.encoders = Encoders(self.family, device)
        self._vae, self._empty = None, None

    @property
    def resolution(self) -> int:
        return self.family.resolution

    def texts(self, captions: Sequence[str], empty: bool) -> tuple[Condition, Condition | None]:
        """What the UNet is told of captions, and of none where that is asked for, on the device.

        Without a caption SDXL is told zeros, as diffusers' pipeline does; the others the empty caption's encoding.
        """
        side = self.resolution
        sizes = torch.tensor([[side, side, 0, 0, side, side]]).expand(len(captions), 6)
        texts = self.encoders.texts(captions)
        if not empty:
            return self._told(texts, sizes), None
        if self._empty is None:
            first = self.encoders.texts([""])
            self._empty = {k: torch.zeros_like(v) for k, v in first.items()} if self.family.spec.sized else first
        none = {name: of.expand(len(captions), *of.shape[1:]) for name, of in self._empty.items()}
        return self._told(texts, sizes), self._told(none, sizes)

    def _told(self, texts: dict[str, Tensor], sizes: Tensor) -> Condition:
        return {name: of.to(self.device) for name, of in self.family.told(texts, sizes).items()}

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures (B, 3, H, W) in [−1, 1] of latents, on the CPU."""
        if self._vae is None:
            dtype = vae.decoding_dtype(latents, self.device)
            self._vae = models.load_vae(self.family.found, dtype=dtype, device=self.device)
        return vae.decode(self._vae, latents, together=True)

    def free(self) -> None:
        """Let go of VAE and text encoders."""
        self._vae, self._empty = None, None
        self.encoders = Encoders(self.family, self.device)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def base(self) -> nn.Module:
        """A fresh copy of the UNet, as the file has it."""
        return models.load_unet(self.family.found, dtype=self.dtype, device=self.device)

    def student(self, path: Path) -> Student:
        """A fresh copy of the UNet with a LoRA merged.

        Raises:
            ValueError: the LoRA does not fit.
        """
        network = self.base()
        return Student(self.family, network, lora.merge(network, path))

    def skeleton(self) -> nn.Module:
        """The UNet without weights."""
        return models.configs.skeleton("unet", self.family.found.configs["unet"])

    def guided(self, network: nn.Module, condition: Condition, none: Condition, w: float) -> Network:
        """The UNet with guidance, see `samplers.guided`."""
        both = {name: torch.cat([of, none[name]]) for name, of in condition.items()}
        return guided(lambda x, times: self.family.output(network, x, times, both), w)


class Student:
    """A UNet with a merged LoRA, as the samplers call it.

    Attributes:
        order, form: with which it is sampled: TCF(2)'s where its file says that it was distilled with it.
    """

    def __init__(self, family: LatentDiffusionFamily, network: nn.Module, merged: lora.Fitting) -> None:
        embedding = merged.target_embedding
        if embedding is not None:
            embedding = embedding.to(next(network.parameters()).device)
        self.call = with_target_time(family, network, embedding)
        self.order: Order = "2" if merged.second_order else "1"
        self.form: Form = merged.metadata.get("tcd.tcf2_form", "data")

    def network(self, condition: Condition) -> Network:
        """The student told these conditions; no guidance."""

        def network(x: Tensor, t: float, s: float) -> Tensor:
            times = torch.full((len(x),), t, dtype=torch.float32, device=x.device)
            return self.call(x, times, torch.full_like(times, s), condition).float()

        return network
