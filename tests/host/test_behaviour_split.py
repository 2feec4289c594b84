"""A run cut in two, or three, is the whole run: at every gamma, order and cut, with stock splitting and with ours."""

import itertools

import pytest
import torch
from host_support import workflows as w
from host_support.branches import Branches, relative_error
from host_support.client import Client, WorkflowError

GAMMAS = (0.0, 0.3, 1.0)
STEPS = 4
SHAPES = {
    "linear": {"start": 0.9, "end": 0.1},
    "cosine": {"start": 0.0, "end": 1.0},
    "power": {"start": 1.0, "end": 0.2, "exponent": 3.0},
    "interpolated": {"values": "1, 0.2, 0.6", "interpolate": True},
    "list": {"values": "0.9, 0.1, 0.6"},
}


def schedule(g: Branches, name: str) -> w.Link:
    return g.gamma_schedule({"interpolated": "list"}.get(name, name), **SHAPES[name])


def staged(g: Branches, latent: w.Link, *cuts: int, **settings) -> w.Link:
    """KSamplerAdvanced (TCD) once for each stage between the cuts."""
    edges = [0, *cuts, 10000]
    for start, end in itertools.pairwise(edges):
        stage = {"add_noise": "enable" if start == 0 else "disable", "start_at_step": start, "end_at_step": end}
        leftover = "disable" if end == 10000 else "enable"
        latent = g.sample("advanced", latent, **settings, **stage, return_with_leftover_noise=leftover)
    return latent


@pytest.mark.parametrize("family", ("sd15", "sd21v", "sd3"))
def test_split_sigmas_with_one_seed_equals_the_whole_run(server: Client, family: str):
    g = Branches(family)
    cases = list(itertools.product(GAMMAS, ("1", "2"), (1, 2, 3) if family == "sd3" else (2,)))
    for gamma, order, at in cases:
        settings = {"gamma": gamma, "order": order, "steps": STEPS}
        if at == cases[0][2]:
            g.keep(f"whole {gamma} {order}", g.sample("custom", g.empty(), **settings))
        g.keep(f"{gamma} {order} {at}", w.split_sigmas(g, g.setup, g.empty(), at=at, **settings))
    result = g.run(server)
    for gamma, order, at in cases:
        whole = result.latent(f"whole {gamma} {order}")
        assert relative_error(result.latent(f"{gamma} {order} {at}"), whole) < 1e-5, (gamma, order, at)
    assert relative_error(result.latent("whole 0.0 1"), result.latent("whole 1.0 1")) > 0.1


@pytest.mark.parametrize("family", ("sd15", "sd21v", "sd3"))
def test_advanced_stages_equal_the_whole_run(server: Client, family: str):
    """Order 2M too, which carries the last prediction over the cut; bit for bit, as the state itself is handed on."""
    g = Branches(family)
    cuts = ((1,), (2,), (3,), (1, 2), (1, 2, 3)) if family == "sd3" else ((2,), (1, 3))
    cases = list(itertools.product(GAMMAS, ("1", "2", "2M") if family == "sd3" else ("1", "2M"), cuts))
    for gamma, order, cut in cases:
        settings = {"gamma": gamma, "order": order, "steps": STEPS}
        if cut == cuts[0]:
            g.keep(f"whole {gamma} {order}", g.sample("ksampler_tcd", g.empty(), **settings))
        g.keep(f"{gamma} {order} {cut}", staged(g, g.empty(), *cut, **settings))
    result = g.run(server)
    for gamma, order, cut in cases:
        assert torch.equal(result.latent(f"{gamma} {order} {cut}"), result.latent(f"whole {gamma} {order}"))
    assert relative_error(result.latent("whole 0.3 2M"), result.latent("whole 0.3 1")) > 1e-3


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_gamma_schedules_are_not_moved_by_a_cut(server: Client, family: str):
    g = Branches(family)
    for name in SHAPES:
        settings = {"gamma_schedule": schedule(g, name), "steps": STEPS}
        g.keep(f"whole {name}", g.sample("ksampler_tcd", g.empty(), **settings))
        for at in (1, 3):
            g.keep(f"stages {name} {at}", staged(g, g.empty(), at, **settings))
        if name != "list":
            split = w.split_sigmas(g, g.setup, g.empty(), at=2, gamma_schedule=schedule(g, name), steps=STEPS)
            g.keep(f"sigmas {name}", split)
    result = g.run(server)
    for name in SHAPES:
        whole = result.latent(f"whole {name}")
        assert all(torch.equal(result.latent(f"stages {name} {at}"), whole) for at in (1, 3)), name
        assert name == "list" or relative_error(result.latent(f"sigmas {name}"), whole) < 1e-5, name
    wholes = [result.latent(f"whole {name}") for name in SHAPES]
    assert all(relative_error(a, b) > 1e-3 for a, b in itertools.combinations(wholes, 2))


def test_a_plain_list_of_gammas_with_split_sigmas_is_an_error_that_names_the_way_out(server: Client):
    g = Branches("sd3")
    split = w.split_sigmas(g, g.setup, g.empty(), at=2, steps=STEPS, gamma_schedule=schedule(g, "list"))
    g.keep("latent", split)
    with pytest.raises(WorkflowError, match="3 values, this run of 2 steps needs 2.*interpolate on"):
        g.run(server)


def test_one_first_stage_serves_many_second_stages(server: Client):
    """What the first stage hands on is not written to by those that continue it."""
    g = Branches("sd15")
    settings = {"steps": STEPS, "gamma": 0.6, "order": "2M"}
    first = g.sample("advanced", g.empty(), **settings, end_at_step=2, return_with_leftover_noise="enable")
    second = {"start_at_step": 2, "add_noise": "disable"}
    names = [
        g.keep(f"{cfg}", g.sample("advanced", first, **settings, **second, cfg=cfg)) for cfg in (1.0, 3.0, 1.000001)
    ]
    g.keep("whole", g.sample("advanced", g.empty(), **settings))
    result = g.run(server)
    latents = [result.latent(name) for name in names]
    assert relative_error(latents[0], result.latent("whole")) == 0 and relative_error(latents[1], latents[0]) > 0.01
    assert relative_error(latents[2], latents[0]) < 1e-4


def stage(g: Branches, node: str, latent: w.Link, first: bool, steps: int = STEPS) -> w.Link:
    """One of two stages at gamma 0.6: "ours", or the "stock" KSamplerAdvanced with tcd/tcd on a patched model."""
    part = {"add_noise": "disable", "start_at_step": 2, "end_at_step": 99, "return_with_leftover_noise": "disable"}
    if first:
        part = {"add_noise": "enable", "start_at_step": 0, "end_at_step": 2, "return_with_leftover_noise": "enable"}
    if node == "ours":
        return g.sample("advanced", latent, gamma=0.6, steps=steps, **part)
    model = g.add("TCDToolkit_GammaPatch", model=g.setup.model, gamma=0.6)
    names = {"sampler_name": "tcd", "scheduler": "tcd", "noise_seed": 7, "steps": steps, "cfg": 1.0}
    condition = {"positive": g.setup.positive, "negative": g.setup.negative}
    return g.add("KSamplerAdvanced", model=model, latent_image=latent, **names, **condition, **part)


def test_stock_and_our_stages_continue_one_another(server: Client):
    """Noise is keyed by time, not by node."""
    g = Branches("sd15")
    pairs = list(itertools.product(("ours", "stock"), repeat=2))
    for a, b in pairs:
        g.keep(f"{a} {b}", stage(g, b, stage(g, a, g.empty(), first=True), first=False))
    g.keep("whole", g.sample("ksampler_tcd", g.empty(), gamma=0.6, steps=STEPS))
    result = g.run(server)
    for a, b in pairs:
        assert relative_error(result.latent(f"{a} {b}"), result.latent("whole")) < 1e-5, (a, b)


def test_a_latent_changed_between_the_stages_is_what_the_second_continues(server: Client):
    """What a stage hands on beside the latent is void for another latent, and at another noise level."""
    g = Branches("sd15")
    half = stage(g, "ours", g.empty(batch=2), first=True)
    between = {
        "unchanged": (half, STEPS),
        "item": (w.batch_part(g, half, 1), STEPS),
        "scaled": (g.add("LatentMultiply", samples=half, multiplier=1.2), STEPS),
        "other steps": (half, STEPS + 1),
    }
    for name, (latent, steps) in between.items():
        for node in ("ours", "stock"):
            g.keep(f"{node} {name}", stage(g, node, latent, first=False, steps=steps))
    result = g.run(server)
    ours = {name: result.latent(f"ours {name}") for name in between}
    assert relative_error(ours["item"], ours["unchanged"][1:]) < 1e-5
    for name in ("unchanged", "scaled", "other steps"):
        assert relative_error(ours[name], result.latent(f"stock {name}")) < 1e-5, name
        assert name == "unchanged" or relative_error(ours[name], ours["unchanged"]) > 0.01, name


def test_a_stage_may_end_early_or_do_nothing(server: Client):
    """Without leftover noise a stage lands where it stops; a stage past the end, or without steps, does nothing."""
    g = Branches("sd15")
    first = {"steps": STEPS, "gamma": 0.0, "end_at_step": 2}
    noisy = g.sample("advanced", g.empty(), **first, return_with_leftover_noise="enable")
    clean = g.sample("advanced", g.empty(), **first, return_with_leftover_noise="disable")
    for name, latent in (("noisy", noisy), ("clean", clean)):
        g.keep(name, latent)
        for start, end in ((4, 10000), (9, 10000), (2, 2), (3, 1)):
            idle = {"steps": STEPS, "start_at_step": start, "end_at_step": end, "add_noise": "disable"}
            g.keep(f"{name} {start} {end}", g.sample("advanced", latent, **idle))
    g.keep("two sigmas", g.sample("custom", g.empty(), times="999, 759", gamma=0.0))
    result = g.run(server)
    assert relative_error(result.latent("clean"), result.latent("two sigmas")) < 1e-5
    assert relative_error(result.latent("clean"), result.latent("noisy")) > 0.1
    for name in ("noisy", "clean"):
        for start, end in ((4, 10000), (9, 10000), (2, 2), (3, 1)):
            assert torch.equal(result.latent(f"{name} {start} {end}"), result.latent(name))


def test_a_run_cut_before_its_first_step_is_the_whole_run(server: Client):
    """The first stage takes no step: it hands on the noise that the second was told not to add."""
    for family in ("sd15", "sd3"):
        g = Branches(family)
        settings = {"steps": STEPS, "gamma": 0.3}
        g.keep("whole", g.sample("advanced", g.empty(), **settings))
        g.keep("cut at 0", w.split_advanced(g, g.setup, g.empty(), at=0, **settings))
        result = g.run(server)
        assert torch.equal(result.latent("cut at 0"), result.latent("whole"))
