"""For the tests of behaviour: one workflow of many samplings over one checkpoint, posted once and compared by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from PIL import Image

from host_support import mixture
from host_support import workflows as w
from host_support.client import Client, Result


class Branches(w.Graph):
    """A workflow under construction: `setup` is the loaded (and patched) checkpoint, `keep` and `show` name results.

    The host answers two nodes with equal inputs by one execution, so two branches are compared only where they differ
    in something; whether a run repeats is asked of two posts.
    """

    def __init__(self, family: str, patch: Callable[[w.Graph, w.Link], w.Link] | None = None):
        super().__init__()
        self.family = family
        self.setup = w.load(self, family)
        if patch is not None:
            self.setup = replace(self.setup, model=patch(self, self.setup.model))

    def empty(self, **settings: Any) -> w.Link:
        return w.empty_latent(self, self.family, **settings)

    def random(self, **settings: Any) -> w.Link:
        return w.random_latent(self, self.family, **settings)

    def sample(self, route: str, latent: w.Link, **settings: Any) -> w.Link:
        return w.sample(self, route, self.setup, latent, **settings)

    def counting(self, name: str, milliseconds: int = 0) -> w.Setup:
        """The setup with a model whose evaluations are noted under `name`."""
        return replace(self.setup, model=w.slow(self, self.setup.model, milliseconds=milliseconds, name=name))

    def gamma_schedule(self, shape: str, start: float = 0.5, end: float = 0.1, values: str = "", **more: Any) -> w.Link:
        node = {"exponent": 2.0, "interpolate": False, **more}
        return self.add("TCDToolkit_GammaSchedule", shape=shape, start=start, end=end, values=values, **node)

    def keep(self, name: str, latent: w.Link) -> str:
        """Save a latent; read it with `result.latent(name)`."""
        self.add("TCDTest_SaveLatent", name, samples=latent, name="latent")
        return name

    def show(self, name: str, latent: w.Link) -> str:
        """Save a latent's picture; read it with `picture(result, name)`."""
        pixels = self.add("VAEDecode", samples=latent, vae=self.setup.vae)
        self.add("SaveImage", name, images=pixels, filename_prefix="tcd")
        return name

    def run(self, server: Client) -> Result:
        return server.run(self, timeout=120.0)


def picture(result: Result, name: str) -> np.ndarray:
    """What `Branches.show` saved under `name`: int16, so that pictures can be subtracted."""
    (file,) = result.outputs[name]["images"]
    return np.asarray(Image.open(io.BytesIO(result.client.view(file)))).astype(np.int16)


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """‖a − b‖ / ‖b‖; infinite where a shape differs or a number is not finite, so that comparisons fail."""
    if a.shape != b.shape or not bool(torch.isfinite(a).all()):
        return float("inf")
    return float((a.double() - b.double()).norm() / b.double().norm())


def sigmas_at(times: list[int]) -> torch.Tensor:
    """σ/α of Stable Diffusion at these times: what the host calls their noise level."""
    return (1 / mixture.alpha_bar()[times] - 1).sqrt()
