"""The host's final latents against diffusers' TCDScheduler: one closed-form network, the same noises."""

import itertools
import json
from pathlib import Path

import pytest
import torch
from diffusers import TCDScheduler
from diffusers.schedulers import scheduling_tcd
from diffusers.utils import logging as diffusers_logging
from host_support import mixture
from safetensors.torch import load_file, save_file

GAMMAS = (0.0, 0.2, 0.3, 0.5, 1.0)
STEPS = (1, 2, 4, 8, 20, 50)
STRENGTHS = (1.0, 0.8, 0.5, 0.3)
EXPLICIT = ([999, 700, 300, 40], [800], [759, 758, 1, 0], [999, 90, 10])
PREDICTIONS = ("epsilon", "v_prediction")

diffusers_logging.set_verbosity_error()  # it warns of every explicit time that is off the grid


def reference_accepts(steps: int, strength: float) -> bool:
    try:
        TCDScheduler().set_timesteps(steps, strength=strength)
    except ValueError:
        return False
    return True


def make_cases() -> list[dict]:
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


CASES = make_cases()


@pytest.fixture(scope="module")
def noises() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return {"start": draw(*mixture.SHAPE), "latent": draw(*mixture.SHAPE), "steps": draw(50, *mixture.SHAPE)}


@pytest.fixture(scope="module")
def from_host(comfyui, noises, tmp_path_factory) -> dict[str, torch.Tensor]:
    folder = tmp_path_factory.mktemp("reference")
    (folder / "cases.json").write_text(json.dumps(CASES))
    save_file(noises, folder / "noises.safetensors")
    driver = Path(__file__).parent / "drivers" / "reference_driver.py"
    comfyui.run_driver(driver, *(folder / name for name in ("cases.json", "noises.safetensors", "results.safetensors")))
    return load_file(folder / "results.safetensors")


def run_reference(case: dict, noises: dict, monkeypatch, float64_table: bool) -> torch.Tensor:
    scheduler = TCDScheduler(prediction_type=case["prediction"])
    if float64_table:
        scheduler.alphas_cumprod = mixture.alpha_bar()
    if "times" in case:
        scheduler.set_timesteps(timesteps=case["times"])
    else:
        scheduler.set_timesteps(case["steps"], strength=case["strength"])
    step_noises = iter(noises["steps"])
    monkeypatch.setattr(scheduling_tcd, "randn_tensor", lambda *_, **__: next(step_noises))
    x = noises["start"]
    if scheduler.timesteps[0] < 999:
        first = scheduler.alphas_cumprod[scheduler.timesteps[0]]
        x = first.sqrt() * noises["latent"] + (1 - first).sqrt() * noises["start"]
    elif "times" in case:  # a full-strength run from a picture: the host starts from noise with the picture added
        x = noises["start"] + mixture.alpha_bar()[999].sqrt() * noises["latent"]
    for t in scheduler.timesteps:
        x = scheduler.step(mixture.network(x, int(t), case["prediction"]), t, x, eta=case["gamma"]).prev_sample
    return x


def relative_error(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.double() - b.double()).norm() / b.double().norm())


def worst(from_host, noises, monkeypatch, float64_table: bool) -> tuple[float, str]:
    return max(
        (relative_error(from_host[c["name"]], run_reference(c, noises, monkeypatch, float64_table)), c["name"])
        for c in CASES
    )


def test_every_pair_the_reference_accepts_is_covered():
    covered = {(c["gamma"], c["steps"], c["strength"]) for c in CASES if "times" not in c}
    accepted = {(n, s) for n, s in itertools.product(STEPS, STRENGTHS) if reference_accepts(n, s)}
    assert covered == {(g, *pair) for g in GAMMAS for pair in accepted} and len(accepted) == 20


def test_host_equals_diffusers_as_it_is(from_host, noises, monkeypatch):
    error, name = worst(from_host, noises, monkeypatch, float64_table=False)
    assert error <= 5e-5, name


def test_host_equals_diffusers_with_its_table_in_float64(from_host, noises, monkeypatch):
    error, name = worst(from_host, noises, monkeypatch, float64_table=True)
    assert error <= 1e-5, name
