"""Building API-format workflows: a graph one adds nodes to, and the pieces that tests put together.

    g = Graph()
    setup = load(g, "sd15")
    model = slow(g, setup.model, milliseconds=20)
    latent = sample(g, "custom", replace(setup, model=model), empty_latent(g, "sd15"), steps=4, gamma=0.2)
    finish(g, setup, latent)
    server.run(g).images

Here `sample` could be any other function of this file that ends in a latent.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .tiny_checkpoints import FAMILIES

ROUTES = ("ksampler_tcd", "stock", "custom", "advanced")
STOCK_GAMMA = 0.3  # what sampler `tcd` uses on a model without GammaPatch


class Link(list):
    """A node's output, as workflows write it: [node id, output number]."""

    @property
    def id(self) -> str:
        return self[0]

    def slot(self, number: int) -> Link:
        """Another output of the same node."""
        return Link([self.id, number])


class Graph(dict):
    """An API-format workflow under construction."""

    def add(self, class_type: str, node_id: str | None = None, **inputs: Any) -> Link:
        """Add a node and return its first output. Inputs that are None are left out."""
        node_id = node_id or str(len(self) + 1)
        if node_id in self:
            raise ValueError(f"node {node_id} is already in this workflow")
        given = {name: value for name, value in inputs.items() if value is not None}
        self[node_id] = {"class_type": class_type, "inputs": given}
        return Link([node_id, 0])


@dataclass(frozen=True)
class Setup:
    """What sampling needs besides a latent."""

    family: str
    model: Link
    vae: Link
    positive: Link
    negative: Link


def conditioning(g: Graph, family: str, seed: int, tokens: int = 8) -> Link:
    """A fixed random conditioning of the family's widths."""
    widths = {"width": FAMILIES[family].context, "pooled_width": FAMILIES[family].pooled}
    return g.add("TCDTest_Conditioning", tokens=tokens, seed=seed, **widths)


def load(g: Graph, family: str) -> Setup:
    """The family's tiny checkpoint with two conditionings."""
    loader = g.add("CheckpointLoaderSimple", ckpt_name=FAMILIES[family].file)
    return Setup(family, loader, loader.slot(2), conditioning(g, family, 1), conditioning(g, family, 2))


def empty_latent(g: Graph, family: str, *, size: int = 64, batch: int = 1) -> Link:
    """The stock node for an empty latent of size × size pixels."""
    node = "EmptySD3LatentImage" if FAMILIES[family].channels == 16 else "EmptyLatentImage"
    return g.add(node, width=size, height=size, batch_size=batch)


def random_latent(g: Graph, family: str, *, seed: int = 11, size: int = 64, batch: int = 1, scale: float = 1.0) -> Link:
    """A random latent, `scale` times what the network sees as unit variance."""
    kind = FAMILIES[family]
    return g.add(
        "TCDTest_Latent",
        seed=seed,
        batch=batch,
        channels=kind.channels,
        height=size // 8,
        width=size // 8,
        scale=scale / kind.vae_scale,
    )


def sample(
    g: Graph,
    route: str,
    setup: Setup,
    latent: Link,
    *,
    seed: int = 7,
    steps: int = 4,
    cfg: float = 1.0,
    gamma: float = STOCK_GAMMA,
    order: str = "1",
    denoise: float = 1.0,
    gamma_schedule: Link | None = None,
    original_steps: int | None = None,
    times: str | None = None,
    **more: Any,
) -> Link:
    """Sample through one of ROUTES. `more` goes to the sampling node (sigmas=…, start_at_step=…, scheduler=…).

    The stock route's `denoise` is the host's, not the reference's strength; original_steps and times exist in the
    custom route alone. An unknown combination is an error here rather than a setting that silently does nothing.
    """
    tcd = {"gamma": gamma, "order": order, "gamma_schedule": gamma_schedule}
    common = {"cfg": cfg, "positive": setup.positive, "negative": setup.negative, "latent_image": latent}
    if route != "custom" and (original_steps, times) != (None, None):
        raise ValueError(f"original_steps and times belong to the scheduler node, not to route {route!r}")
    if route == "ksampler_tcd":
        node = {"seed": seed, "steps": steps, "denoise": denoise}
        return g.add("TCDToolkit_KSampler", model=setup.model, **node, **tcd, **common, **more)
    if route == "stock":
        model = setup.model
        if gamma != STOCK_GAMMA or order != "1" or gamma_schedule is not None:
            model = g.add("TCDToolkit_GammaPatch", model=model, **tcd)
        return ksampler(g, model, latent, setup, seed=seed, steps=steps, cfg=cfg, denoise=denoise, **more)
    if route == "custom":
        sigmas = tcd_sigmas(g, setup, steps, denoise=denoise, original_steps=original_steps or 50, times=times)
        return sample_sigmas(g, setup, latent, sigmas, seed=seed, cfg=cfg, **tcd, **more)
    if route == "advanced":
        if denoise != 1.0:
            raise ValueError("route 'advanced' has no denoise: use start_at_step")
        node = {"add_noise": "enable", "noise_seed": seed, "steps": steps, "start_at_step": 0, "end_at_step": 10000}
        node["return_with_leftover_noise"] = "disable"
        return g.add("TCDToolkit_KSamplerAdvanced", **{"model": setup.model, **node, **tcd, **common, **more})
    raise ValueError(f"route must be one of {ROUTES}, got {route!r}")


def tcd_sigmas(
    g: Graph, setup: Setup, steps: int, *, denoise: float = 1.0, original_steps: int = 50, times: str | None = None
) -> Link:
    """The pack's scheduler node."""
    node = {"steps": steps, "denoise": denoise, "original_steps": original_steps, "times": times}
    return g.add("TCDToolkit_Scheduler", model=setup.model, **node)


def sample_sigmas(
    g: Graph,
    setup: Setup,
    latent: Link,
    sigmas: Link,
    *,
    seed: int = 7,
    cfg: float = 1.0,
    gamma: float = STOCK_GAMMA,
    order: str = "1",
    gamma_schedule: Link | None = None,
    add_noise: bool = True,
) -> Link:
    """SamplerCustom with the pack's sampler node over any sigmas; output 1 of the same node is the last x̂₀."""
    return g.add(
        "SamplerCustom",
        model=setup.model,
        add_noise=add_noise,
        noise_seed=seed,
        cfg=cfg,
        positive=setup.positive,
        negative=setup.negative,
        sampler=g.add("TCDToolkit_Sampler", gamma=gamma, order=order, gamma_schedule=gamma_schedule),
        sigmas=sigmas,
        latent_image=latent,
    )


def ksampler(
    g: Graph,
    model: Link,
    latent: Link,
    setup: Setup,
    *,
    sampler_name: str = "tcd",
    scheduler: str = "tcd",
    seed: int = 7,
    steps: int = 4,
    cfg: float = 1.0,
    denoise: float = 1.0,
) -> Link:
    """The stock KSampler, with any sampler and scheduler in its lists."""
    return g.add(
        "KSampler",
        model=model,
        seed=seed,
        steps=steps,
        cfg=cfg,
        sampler_name=sampler_name,
        scheduler=scheduler,
        positive=setup.positive,
        negative=setup.negative,
        latent_image=latent,
        denoise=denoise,
    )


def split_sigmas(g: Graph, setup: Setup, latent: Link, *, at: int, steps: int = 4, **settings: Any) -> Link:
    """Two SamplerCustom in a row over the pack's schedule cut after `at` steps, one seed; noise added once."""
    cut = g.add("SplitSigmas", sigmas=tcd_sigmas(g, setup, steps), step=at)
    first = sample_sigmas(g, setup, latent, cut, **settings)
    return sample_sigmas(g, setup, first, cut.slot(1), add_noise=False, **settings)


def split_advanced(g: Graph, setup: Setup, latent: Link, *, at: int, **settings: Any) -> Link:
    """Two KSamplerAdvanced (TCD) in a row, cut after `at` steps, with one seed; noise added once."""
    first = {"end_at_step": at, "return_with_leftover_noise": "enable"}
    half = sample(g, "advanced", setup, latent, **settings, **first)
    return sample(g, "advanced", setup, half, **settings, start_at_step=at, add_noise="disable")


def half_mask(g: Graph, *, size: int = 64) -> Link:
    """A mask that is 1 (to be repainted) in the left half and 0 (to be kept) in the right."""
    nothing = g.add("SolidMask", value=0.0, width=size, height=size)
    left = g.add("SolidMask", value=1.0, width=size // 2, height=size)
    return g.add("MaskComposite", destination=nothing, source=left, x=0, y=0, operation="add")


def masked(g: Graph, latent: Link, mask: Link) -> Link:
    """A latent of which only the mask's part is to be sampled."""
    return g.add("SetLatentNoiseMask", samples=latent, mask=mask)


def batch_part(g: Graph, latent: Link, index: int, length: int = 1) -> Link:
    """Items of a batch, which remember their place in it."""
    return g.add("LatentFromBatch", samples=latent, batch_index=index, length=length)


def repeated(g: Graph, latent: Link, amount: int) -> Link:
    """The same latent `amount` times; as a batch its items get noises of their own."""
    return g.add("RepeatLatentBatch", samples=latent, amount=amount)


def through_pixels(g: Graph, latent: Link, vae: Link) -> Link:
    """Decode and encode: a latent that came from a picture."""
    return g.add("VAEEncode", pixels=g.add("VAEDecode", samples=latent, vae=vae), vae=vae)


def slow(g: Graph, model: Link, *, milliseconds: int = 0, name: str = "calls") -> Link:
    """Count the model's evaluations, and make each of them take longer."""
    return g.add("TCDTest_SlowModel", model=model, milliseconds=milliseconds, name=name)


def count(g: Graph, latent: Link, *, node_id: str = "calls", name: str = "calls") -> Link:
    """Report what `slow` counted once `latent` exists; read it with Result.calls(node_id)."""
    return g.add("TCDTest_CallCount", node_id, samples=latent, name=name)


def show(g: Graph, text: Link, *, node_id: str = "text") -> Link:
    """Report a STRING output; read it with Result.text(node_id)."""
    return g.add("TCDTest_ShowText", node_id, text=text)


def finish(g: Graph, setup: Setup, latent: Link, *, name: str = "") -> None:
    """Save the picture (node "image" + name) and the latent as it is (node "latent" + name)."""
    g.add("SaveImage", f"image{name}", images=g.add("VAEDecode", samples=latent, vae=setup.vae), filename_prefix="tcd")
    g.add("TCDTest_SaveLatent", f"latent{name}", samples=latent, name="latent")


def text_to_image(
    family: str,
    route: str,
    *,
    size: int = 64,
    batch: int = 1,
    patch: Callable[[Graph, Link], Link] | None = None,
    **settings: Any,
) -> Graph:
    """The whole workflow in one call; `patch(graph, model)` puts nodes between loader and sampler."""
    g = Graph()
    setup = load(g, family)
    if patch is not None:
        setup = Setup(family, patch(g, setup.model), setup.vae, setup.positive, setup.negative)
    finish(g, setup, sample(g, route, setup, empty_latent(g, family, size=size, batch=batch), **settings))
    return g
