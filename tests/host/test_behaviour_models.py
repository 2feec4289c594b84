"""Every kind of model the host knows but EDM's: patched with the host's own nodes, through every route."""

import pytest
import torch
from host_support import workflows as w
from host_support.branches import Branches, picture, relative_error, sigmas_at
from host_support.client import Client, WorkflowError

KINDS = ("eps", "eps zsnr", "v_prediction", "v_prediction zsnr", "lcm", "lcm zsnr", "x0", "img_to_img")
DISCRETE = {
    name: ("sd15", "ModelSamplingDiscrete", {"sampling": name.split()[0], "zsnr": name.endswith("zsnr")})
    for name in KINDS
}
FLOWS = {
    "sd3 shift 1": ("sd3", "ModelSamplingSD3", {"shift": 1.0}),
    "sd3 shift 9": ("sd3", "ModelSamplingSD3", {"shift": 9.0}),
    "aura flow": ("sd3", "ModelSamplingAuraFlow", {"shift": 1.73}),
    "sd3 shift 1.32, whose float32 table ends above 1": ("sd3", "ModelSamplingSD3", {"shift": 1.32}),
    "flux": ("sd3", "ModelSamplingFlux", {"max_shift": 1.15, "base_shift": 0.5, "width": 1024, "height": 1024}),
}
OTHERS = {
    "v zsnr network": ("sd21v", "ModelSamplingDiscrete", {"sampling": "v_prediction", "zsnr": True}),
    "cascade": ("sd15", "ModelSamplingStableCascade", {"shift": 2.0}),
    "continuous v": (
        "sd15",
        "ModelSamplingContinuousV",
        {"sampling": "v_prediction", "sigma_max": 500.0, "sigma_min": 0.03},
    ),
    "cosmos": (
        "sd21v",
        "ModelSamplingContinuousEDM",
        {"sampling": "cosmos_rflow", "sigma_max": 80.0, "sigma_min": 0.002},
    ),
}
WORKING = DISCRETE | FLOWS | OTHERS
NO_EPS_AT_ZERO_SNR = ("eps zsnr", "lcm zsnr")  # x̂ = x/α − …, α = 0.0002: finite, of any size, a picture of nothing
STEPS = 4  # the fewest for which order 2M differs on a flow: λ is infinite where it starts and where it ends
EDM = ("v_prediction", "edm", "edm_playground_v2.5", "eps")


def patched(name: str) -> Branches:
    family, node, settings = WORKING[name]
    return Branches(family, patch=lambda g, model: g.add(node, model=model, **settings))


@pytest.mark.parametrize("name", WORKING)
def test_every_route_makes_the_same_finite_picture(server: Client, name: str):
    g = patched(name)
    settings = {"gamma": 0.4, "steps": STEPS}
    for route in w.ROUTES:
        g.keep(route, g.sample(route, g.empty(), **settings))
    g.show("picture", g.sample("ksampler_tcd", g.empty(), **settings))
    for order in ("2", "2M"):
        g.keep(f"order {order}", g.sample("ksampler_tcd", g.empty(), order=order, gamma=0.4, steps=STEPS))
    g.keep("gamma 1", g.sample("ksampler_tcd", g.empty(), gamma=1.0, steps=STEPS))
    g.keep("stages", w.split_advanced(g, g.setup, g.empty(), at=1, **settings))
    g.keep("img2img", g.sample("ksampler_tcd", g.random(), denoise=0.5, **settings))
    result = g.run(server)
    expected = result.latent("ksampler_tcd")
    assert expected.std() > 0.05 and (name in NO_EPS_AT_ZERO_SNR or expected.std() < 300)
    for route in w.ROUTES[1:]:
        assert relative_error(result.latent(route), expected) < 1e-5, route
    assert relative_error(result.latent("stages"), expected) < 1e-5
    assert picture(result, "picture").std() > 1
    for other in ("order 2", "order 2M", "gamma 1", "img2img"):
        assert 1e-5 < relative_error(result.latent(other), expected) < float("inf"), other


def test_the_evaluations_are_at_the_model_s_own_times(server: Client):
    """A distilled model of 50 times is asked at four of them, a flow at its own shifted times."""
    expected = {"lcm": sigmas_at([999, 759, 499, 259]), "sd3 shift 1": torch.tensor([1.0, 0.76, 0.5, 0.26])}
    for name, sigmas in expected.items():
        g = patched(name)
        w.count(g, w.sample(g, "ksampler_tcd", g.counting("calls"), g.empty(), steps=4))
        calls = server.run(g).calls("calls")
        assert relative_error(torch.tensor(calls.times), sigmas) < 1e-5, (name, calls.times)


@pytest.mark.parametrize("kind", EDM)
def test_edm_models_are_refused_with_a_reason_on_every_route(server: Client, kind: str):
    for route in w.ROUTES:
        settings = {"sampling": kind, "sigma_max": 120.0, "sigma_min": 0.002}
        g = Branches("sd15", patch=lambda g, m, s=settings: g.add("ModelSamplingContinuousEDM", model=m, **s))
        g.keep("latent", g.sample(route, g.empty()))
        with pytest.raises(WorkflowError, match="EDM type") as refused:
            g.run(server)
        assert refused.value.exception_type == "ValueError"
        assert "no diffusion time" in refused.value.exception_message
        assert "Stable Diffusion" in refused.value.exception_message


def test_edm_models_are_refused_with_a_stock_scheduler_too_and_stock_samplers_still_take_them(server: Client):
    settings = {"sampling": "edm", "sigma_max": 120.0, "sigma_min": 0.002}

    def workflow(sampler: str) -> Branches:
        g = Branches("sd15", patch=lambda g, model: g.add("ModelSamplingContinuousEDM", model=model, **settings))
        latent = w.ksampler(g, g.setup.model, g.empty(), g.setup, sampler_name=sampler, scheduler="karras", steps=2)
        g.keep("latent", latent)
        return g

    with pytest.raises(WorkflowError, match="EDM type"):
        workflow("tcd").run(server)
    assert torch.isfinite(workflow("euler").run(server).latent("latent")).all()


def test_explicit_times_count_from_999_on_finer_tables_too(server: Client):
    """Flux and Cascade have tables of 10,000 times."""
    for name in ("flux", "cascade"):
        g = patched(name)
        g.keep("times", g.sample("custom", g.empty(), times="999, 759, 499, 259"))
        g.keep("steps", g.sample("custom", g.empty(), steps=4))
        result = g.run(server)
        assert relative_error(result.latent("times"), result.latent("steps")) < 1e-6, name


def test_cosmos_takes_a_flow_s_times_down_from_its_highest(server: Client):
    g = patched("cosmos")
    g.keep("latent", g.sample("custom", g.empty(), times="1, 0.5"))
    assert g.run(server).latent("latent").isfinite().all()
