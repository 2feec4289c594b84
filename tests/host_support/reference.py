"""Parity with diffusers' TCDScheduler: the cases, the reference's side, and the host's through a driver."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from diffusers import TCDScheduler
from diffusers.schedulers import scheduling_tcd
from diffusers.utils import logging as diffusers_logging
from safetensors.torch import load_file, save_file

from . import mixture
from .host import Host

GAMMAS = (0.0, 0.2, 0.3, 0.5, 1.0)
STEPS = (1, 2, 4, 8, 20, 50)
STRENGTHS = (1.0, 0.8, 0.5, 0.3)
EXPLICIT = ([999, 700, 300, 40], [800], [759, 758, 1, 0], [999, 90, 10])
PREDICTIONS = ("epsilon", "v_prediction")
DRIVER = Path(__file__).resolve().parent.parent / "host" / "drivers" / "reference_driver.py"

diffusers_logging.set_verbosity_error()  # it warns of every explicit time that is off the grid


def reference_accepts(steps: int, strength: float) -> bool:
    """Whether the reference has times for the pair."""
    try:
        TCDScheduler().set_timesteps(steps, strength=strength)
    except ValueError:
        return False
    return True


def make_cases() -> list[dict]:
    """Every prediction × gamma × (steps, strength) the reference accepts, and some explicit times."""
    grid = itertools.product(PREDICTIONS, GAMMAS, STEPS, STRENGTHS)
    cases = [
        {"name": f"{p}/{g}/{n}/{s}", "prediction": p, "gamma": g, "steps": n, "strength": s}
        for p, g, n, s in grid
        if reference_accepts(n, s)
    ]
    explicit = itertools.product(PREDICTIONS, GAMMAS, EXPLICIT)
    return cases + [
        {"name": f"{p}/{g}/{t}", "prediction": p, "gamma": g, "steps": 4, "strength": 1.0, "times": t}
        for p, g, t in explicit
    ]


def make_noises() -> dict[str, torch.Tensor]:
    """One initial noise, one picture, one noise per step, for both sides and every case."""
    generator = torch.Generator().manual_seed(5)
    shapes = {"start": mixture.SHAPE, "latent": mixture.SHAPE, "steps": (50, *mixture.SHAPE)}
    return {name: torch.randn(*shape, generator=generator) for name, shape in shapes.items()}


def run_host(host: Host, cases: list[dict], noises: dict[str, torch.Tensor], folder: Path) -> dict[str, torch.Tensor]:
    """The final latents of the pack's nodes inside the host, by case name."""
    (folder / "cases.json").write_text(json.dumps(cases))
    save_file(noises, folder / "noises.safetensors")
    files = [folder / name for name in ("cases.json", "noises.safetensors", "results.safetensors")]
    host.run_driver(DRIVER, *files)
    return load_file(files[-1])


def run_reference(case: dict, noises: dict[str, torch.Tensor], float64_table: bool) -> torch.Tensor:
    """The final latent of diffusers' scheduler, as it is or with its ᾱ table in float64."""
    scheduler = TCDScheduler(prediction_type=case["prediction"])
    if float64_table:
        scheduler.alphas_cumprod = mixture.alpha_bar()
    if "times" in case:
        scheduler.set_timesteps(timesteps=case["times"])
    else:
        scheduler.set_timesteps(case["steps"], strength=case["strength"])
    x = noises["start"]
    if scheduler.timesteps[0] < 999:
        first = scheduler.alphas_cumprod[scheduler.timesteps[0]]
        x = first.sqrt() * noises["latent"] + (1 - first).sqrt() * noises["start"]
    elif "times" in case:  # a full-strength run from a picture: the host starts from noise with the picture added
        x = noises["start"] + mixture.alpha_bar()[999].sqrt() * noises["latent"]
    with supplied(noises["steps"]):
        for t in scheduler.timesteps:
            x = scheduler.step(mixture.network(x, int(t), case["prediction"]), t, x, eta=case["gamma"]).prev_sample
    return x


@contextmanager
def supplied(noises: torch.Tensor) -> Iterator[None]:
    """Make the reference's scheduler take these noises in turn instead of drawing its own."""
    drawn, turn = scheduling_tcd.randn_tensor, iter(noises)
    scheduling_tcd.randn_tensor = lambda *_, **__: next(turn)
    try:
        yield
    finally:
        scheduling_tcd.randn_tensor = drawn


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    """``|a − b| / |b|`` over all elements."""
    return float((a.double() - b.double()).norm() / b.double().norm())
