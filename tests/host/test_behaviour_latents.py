"""Batches whose items are the same alone; pictures to start from, steps and strength as the reference counts them."""

import itertools

import pytest
import torch
from diffusers import TCDScheduler
from host_support import workflows as w
from host_support.branches import Branches, relative_error, sigmas_at
from host_support.client import Client

OWN_ROUTES = ("ksampler_tcd", "advanced")
STRENGTHS = ((4, 0.8), (2, 0.5), (1, 0.3), (8, 0.3), (4, 0.99))


def reference_times(steps: int, strength: float) -> list[int]:
    scheduler = TCDScheduler()
    scheduler.set_timesteps(steps, strength=strength)
    return scheduler.timesteps.tolist()


def model_sigmas(family: str, times: list[int]) -> torch.Tensor:
    """What the host calls the noise level of these times: σ/α for Stable Diffusion, the shifted time for SD3."""
    if family == "sd3":
        t = (torch.tensor(times, dtype=torch.float64) + 1) / 1000
        return 3 * t / (1 + 2 * t)
    return sigmas_at(times)


@pytest.mark.parametrize("family, size", [("sd15", 72), ("sd3", 72)])
def test_an_item_of_a_batch_is_the_same_picture_alone(server: Client, family: str, size: int):
    """72 pixels: 324 numbers an item, which torch draws otherwise in a batch than alone, if one lets it."""
    g = Branches(family)
    batch = g.empty(size=size, batch=3)
    parts = [(0, 1), (1, 1), (2, 1), (1, 2)]
    cases = [(route, order) for route in OWN_ROUTES for order in ("1", "2M")]
    for route, order in cases:
        settings = {"gamma": 0.6, "order": order, "steps": 3}
        g.keep(f"{route} {order}", g.sample(route, batch, **settings))
        for start, length in parts:
            alone = w.batch_part(g, batch, start, length)
            g.keep(f"{route} {order} {start} {length}", g.sample(route, alone, **settings))
    g.keep("stages", w.split_advanced(g, g.setup, w.batch_part(g, batch, 1, 2), at=1, gamma=0.6, steps=3))
    result = g.run(server)
    for route, order in cases:
        whole = result.latent(f"{route} {order}")
        for start, length in parts:
            alone = result.latent(f"{route} {order} {start} {length}")
            assert relative_error(alone, whole[start : start + length]) < 1e-5, (route, order, start, length)
        assert all(relative_error(whole[i], whole[j]) > 0.3 for i, j in ((0, 1), (1, 2), (0, 2)))
    assert relative_error(result.latent("stages"), result.latent("ksampler_tcd 1")[1:]) < 1e-5


def test_repeated_latents_become_a_batch_of_different_pictures(server: Client):
    g = Branches("sd15")
    picture = g.random()
    repeated = w.repeated(g, picture, 3)
    for route in OWN_ROUTES:
        g.keep(route, g.sample(route, repeated, gamma=0.5, steps=2))
        g.keep(f"{route} 2", g.sample(route, w.batch_part(g, repeated, 2), gamma=0.5, steps=2))
        g.keep(f"{route} first", g.sample(route, picture, gamma=0.5, steps=2))
    g.keep("img2img", g.sample("ksampler_tcd", repeated, gamma=1.0, steps=2, denoise=0.4))
    result = g.run(server)
    for name in (*OWN_ROUTES, "img2img"):
        whole = result.latent(name)
        assert all(relative_error(whole[i], whole[j]) > 0.1 for i, j in ((0, 1), (1, 2), (0, 2)))
        if name in OWN_ROUTES:
            assert relative_error(result.latent(f"{name} 2"), whole[2:]) < 1e-5
            assert relative_error(result.latent(f"{name} first"), whole[:1]) < 1e-5


def test_batches_of_the_usual_sizes_agree_between_the_routes(server: Client):
    g = Branches("sd15")
    for route in w.ROUTES:
        g.keep(route, g.sample(route, g.empty(batch=2), gamma=0.5, steps=2))
    result = g.run(server)
    for route in w.ROUTES[1:]:
        assert relative_error(result.latent(route), result.latent("ksampler_tcd")) < 1e-5, route


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_denoise_runs_exactly_steps_steps_at_the_reference_s_times(server: Client, family: str):
    g = Branches(family)
    cases = list(itertools.product(("ksampler_tcd", "custom"), STRENGTHS))
    for route, (steps, strength) in cases:
        name = f"{route} {steps} {strength}"
        latent = w.sample(g, route, g.counting(name), g.random(), steps=steps, denoise=strength)
        w.count(g, latent, node_id=name, name=name)
        g.keep(f"latent {name}", latent)
    g.keep("picture", g.random())
    result = g.run(server)
    for route, (steps, strength) in cases:
        calls = result.calls(f"{route} {steps} {strength}")
        expected = model_sigmas(family, reference_times(steps, strength))
        assert calls.evaluations == steps
        assert relative_error(torch.tensor(calls.times), expected) < 1e-5, (route, steps, strength)
    for steps, strength in STRENGTHS:
        own, custom = (result.latent(f"latent {route} {steps} {strength}") for route in ("ksampler_tcd", "custom"))
        assert relative_error(own, custom) < 1e-5 and relative_error(own, result.latent("picture")) > 0.01


def test_tiny_denoise_takes_the_dense_grid_and_changes_little(server: Client):
    """Where the reference's grid has fewer points than steps: all times below 1000 · denoise, spread evenly."""
    g = Branches("sd15")
    dense = {0.02: [19, 14, 9, 4], 0.01: [9, 7, 4, 2], 0.004: [3, 2, 1, 0]}
    for denoise in (*dense, 0.3):
        latent = w.sample(g, "ksampler_tcd", g.counting(f"{denoise}"), g.random(), denoise=denoise)
        g.keep(f"latent {denoise}", latent)
        w.count(g, latent, node_id=f"{denoise}", name=f"{denoise}")
    g.keep("picture", g.random())
    result = g.run(server)
    for denoise, times in dense.items():
        assert relative_error(torch.tensor(result.calls(f"{denoise}").times), sigmas_at(times)) < 1e-5
    changes = [relative_error(result.latent(f"latent {d}"), result.latent("picture")) for d in (0.004, 0.01, 0.02, 0.3)]
    assert changes == sorted(changes) and 0 < changes[0] < 0.2


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_denoise_0_returns_the_latent(server: Client, family: str):
    g = Branches(family)
    routes = ("ksampler_tcd", "custom", "stock")
    for route in routes:
        latent = w.sample(g, route, g.counting(route), g.random(batch=2), denoise=0.0)
        g.keep(route, latent)
        w.count(g, latent, node_id=f"calls {route}", name=route)
    g.keep("picture", g.random(batch=2))
    result = g.run(server)
    for route in routes:
        assert torch.equal(result.latent(route), result.latent("picture"))
        assert result.calls(f"calls {route}").evaluations == 0
