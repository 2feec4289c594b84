"""One picture whichever way it is asked for; seeds repeat; guidance and orders cost what they say."""

import pytest
import torch
from host_support import workflows as w
from host_support.branches import Branches, picture, relative_error
from host_support.client import Client
from host_support.tiny_checkpoints import FAMILIES

SETTINGS = (
    {"steps": 4, "gamma": 0.3, "cfg": 1.0, "order": "1"},  # the stock KSampler without a patch
    {"steps": 1, "gamma": 0.7, "cfg": 1.0, "order": "1"},
    {"steps": 2, "gamma": 0.0, "cfg": 2.0, "order": "2"},
    {"steps": 3, "gamma": 1.0, "cfg": 1.4, "order": "2M"},
)
ROUTES = (*w.ROUTES, "custom_advanced")


def custom_advanced(g: Branches, latent: w.Link, *, steps: int, gamma: float, cfg: float, order: str) -> w.Link:
    """The stock SamplerCustomAdvanced, its sampler picked by name as other packs do."""
    model = g.add("TCDToolkit_GammaPatch", model=g.setup.model, gamma=gamma, order=order)
    conditions = {"positive": g.setup.positive, "negative": g.setup.negative}
    return g.add(
        "SamplerCustomAdvanced",
        noise=g.add("RandomNoise", noise_seed=7),
        guider=g.add("CFGGuider", model=model, cfg=cfg, **conditions),
        sampler=g.add("KSamplerSelect", sampler_name="tcd"),
        sigmas=g.add("BasicScheduler", model=model, scheduler="tcd", steps=steps, denoise=1.0),
        latent_image=latent,
    )


def by_route(g: Branches, route: str, latent: w.Link, **settings) -> w.Link:
    if route == "custom_advanced":
        return custom_advanced(g, latent, **settings)
    return g.sample(route, latent, **settings)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_route_gives_the_same_picture_to_one_grey_level(server: Client, family: str):
    g = Branches(family)
    for index, settings in enumerate(SETTINGS):
        for route in ROUTES:
            latent = by_route(g, route, g.empty(), **settings)
            g.show(f"picture {route} {index}", latent)
            g.keep(f"latent {route} {index}", latent)
    result = g.run(server)
    for index in range(len(SETTINGS)):
        expected = picture(result, f"picture ksampler_tcd {index}")
        assert expected.std() > 10
        for route in ROUTES[1:]:
            assert abs(picture(result, f"picture {route} {index}") - expected).max() <= 1, (route, SETTINGS[index])
            assert relative_error(*(result.latent(f"latent {r} {index}") for r in (route, "ksampler_tcd"))) < 1e-5
    latents = [result.latent(f"latent ksampler_tcd {index}") for index in range(len(SETTINGS))]
    assert all(relative_error(a, b) > 0.05 for a, b in zip(latents, latents[1:], strict=False))


def test_a_seed_repeats_and_another_seed_gives_another_picture(server: Client):
    """Two posts, nothing but the loaded checkpoint kept between them."""

    def run():
        g = Branches("sd15")
        for route in w.ROUTES:
            for seed in (7, 8, 2**64 - 1):
                g.keep(f"{route} {seed}", g.sample(route, g.empty(), seed=seed, gamma=0.6, steps=3))
        return g.run(server)

    first, second = run(), run()
    for route in w.ROUTES:
        pictures = [first.latent(f"{route} {seed}") for seed in (7, 8, 2**64 - 1)]
        for seed, latent in zip((7, 8, 2**64 - 1), pictures, strict=True):
            assert torch.equal(second.latent(f"{route} {seed}"), latent)
        for a, b in ((0, 1), (1, 2), (0, 2)):
            assert relative_error(pictures[a], pictures[b]) > 0.5


def test_only_the_step_noise_of_a_seed_differs_when_the_initial_noise_is_given(server: Client):
    """With the noise in the latent, and none added, the seed still chooses the step noise: gamma 0 does not care."""
    g = Branches("sd15")
    sigmas = w.tcd_sigmas(g, g.setup, 3)
    start = g.random(scale=14.6)
    for gamma in (0.0, 0.6):
        for seed in (7, 8):
            latent = w.sample_sigmas(g, g.setup, start, sigmas, gamma=gamma, seed=seed, add_noise=False)
            g.keep(f"{gamma} {seed}", latent)
    result = g.run(server)
    assert torch.equal(result.latent("0.0 7"), result.latent("0.0 8"))
    assert relative_error(result.latent("0.6 7"), result.latent("0.6 8")) > 0.1


def test_guidance_and_order_cost_what_they_say(server: Client):
    g = Branches("sd15")
    cases = [(route, cfg, order) for route in w.ROUTES for cfg in (1.0, 2.0) for order in ("1", "2", "2M")]
    for route, cfg, order in cases:
        name = f"{route} {cfg} {order}"
        latent = w.sample(g, route, g.counting(name), g.empty(), steps=2, cfg=cfg, order=order)
        w.count(g, latent, node_id=name, name=name)
    result = g.run(server)
    for route, cfg, order in cases:
        calls = result.calls(f"{route} {cfg} {order}")
        kinds = [0] if cfg == 1.0 else [0, 1]
        assert calls.evaluations == (4 if order == "2" else 2), (route, cfg, order)
        assert [sorted(kind) for kind in calls.cond_or_uncond] == [kinds] * calls.evaluations
        assert calls.batches == [len(kinds)] * calls.evaluations


def test_stock_samplers_run_on_our_schedule_and_are_not_touched_by_our_patch(server: Client):
    samplers = ("euler", "ddim", "dpmpp_2m_sde", "dpm_2", "uni_pc", "lcm", "euler_ancestral")
    g = Branches("sd15")
    patched = g.add("TCDToolkit_GammaPatch", model=g.setup.model, gamma=0.9, order="2")
    for name in samplers:
        for model, label in ((g.setup.model, "plain"), (patched, "patched")):
            latent = w.ksampler(g, model, g.empty(), g.setup, sampler_name=name, scheduler="tcd")
            g.keep(f"{name} {label}", latent)
    result = g.run(server)
    plain = [result.latent(f"{name} plain") for name in samplers]
    for name, latent in zip(samplers, plain, strict=True):
        assert torch.isfinite(latent).all() and latent.std() > 0.1, name
        assert torch.equal(result.latent(f"{name} patched"), latent), name
    assert relative_error(plain[2], plain[0]) > 0.01 and relative_error(plain[3], plain[0]) > 0.01


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_our_sampler_runs_on_every_scheduler_in_the_host_s_list(server: Client, family: str):
    schedulers = server.object_info()["KSampler"]["input"]["required"]["scheduler"][0]
    assert {"simple", "karras", "exponential", "sgm_uniform", "kl_optimal", "beta", "tcd"} <= set(schedulers)
    g = Branches(family)
    for name in schedulers:
        model = g.add("TCDToolkit_GammaPatch", model=g.setup.model, gamma=0.2, order="1")
        g.keep(name, w.ksampler(g, model, g.empty(), g.setup, scheduler=name, steps=3))
        sigmas = g.add("BasicScheduler", model=g.setup.model, scheduler=name, steps=3, denoise=1.0)
        own = g.sample("ksampler_tcd", g.empty(), gamma=0.2, sigmas=sigmas, steps=9, denoise=0.1)
        g.keep(f"own {name}", own)  # connected sigmas replace steps and denoise
    result = g.run(server)
    for name in schedulers:
        latent = result.latent(name)
        assert torch.isfinite(latent).all() and latent.std() > 0.1, name
        assert relative_error(result.latent(f"own {name}"), latent) < 1e-5, name
