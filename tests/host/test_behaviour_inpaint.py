"""Inpainting: what the mask keeps comes out as it went in, at every gamma and order, whole or in stages."""

import itertools

import pytest
import torch
from host_support import workflows as w
from host_support.branches import Branches, relative_error
from host_support.client import Client

CASES = list(itertools.product((0.0, 0.3, 1.0), ("1", "2", "2M")))
STRIPES = (0.0, 0.25, 0.5, 0.75, 1.0)
LEFT, RIGHT = slice(0, 4), slice(4, 8)  # repainted and kept columns of half_mask


def stripes(g: Branches) -> w.Link:
    """A soft mask: five columns of 16 pixels, from kept to repainted; 80 × 80 pixels."""
    mask = g.add("SolidMask", value=0.0, width=80, height=80)
    for index, value in enumerate(STRIPES[1:], start=1):
        stripe = g.add("SolidMask", value=value, width=16, height=80)
        mask = g.add("MaskComposite", destination=mask, source=stripe, x=16 * index, y=0, operation="add")
    return mask


def kept_error(latent: torch.Tensor, picture: torch.Tensor, columns: slice = RIGHT) -> float:
    """Largest change in the kept columns, relative to the picture's own scale."""
    return float((latent - picture)[..., columns].abs().max() / picture.std())


def is_repainted(latent: torch.Tensor, picture: torch.Tensor) -> bool:
    """The masked columns are finite, vary like a picture, and are not the old ones."""
    part, before = latent[..., LEFT], picture[..., LEFT]
    return bool(torch.isfinite(latent).all() and part.std() > 0.1 * before.std()) and relative_error(part, before) > 0.3


@pytest.mark.parametrize("family", ("sd15", "sd21v", "sd3"))
def test_the_kept_region_is_exact_at_every_gamma_and_order(server: Client, family: str):
    g = Branches(family)
    masked = w.masked(g, g.random(), w.half_mask(g))
    g.keep("picture", masked)
    for gamma, order in CASES:
        g.keep(f"{gamma} {order}", g.sample("ksampler_tcd", masked, gamma=gamma, order=order, steps=3))
    for route in w.ROUTES[1:]:
        g.keep(route, g.sample(route, masked, gamma=0.3, steps=3))
    for denoise in (0.5, 0.02):
        g.keep(f"denoise {denoise}", g.sample("ksampler_tcd", masked, gamma=0.3, steps=3, denoise=denoise))
    result = g.run(server)
    picture = result.latent("picture")
    for name in [f"{gamma} {order}" for gamma, order in CASES] + ["denoise 0.5"]:
        assert kept_error(result.latent(name), picture) < 1e-5, name
        assert is_repainted(result.latent(name), picture), name
    assert kept_error(result.latent("denoise 0.02"), picture) < 1e-5
    for route in w.ROUTES[1:]:
        assert relative_error(result.latent(route), result.latent("0.3 1")) < 1e-5, route
    assert relative_error(result.latent("1.0 1")[..., LEFT], result.latent("0.3 1")[..., LEFT]) > 0.05


@pytest.mark.parametrize("family", ("sd15", "sd21v", "sd3"))
def test_the_kept_region_is_exact_in_stages_too(server: Client, family: str):
    g = Branches(family)
    mask = w.half_mask(g)
    masked = w.masked(g, g.random(), mask)
    g.keep("picture", masked)
    cases = CASES if family == "sd3" else [(0.0, "2"), (0.3, "1"), (1.0, "2M")]
    for gamma, order in cases:
        settings = {"gamma": gamma, "order": order, "steps": 4}
        g.keep(f"whole {gamma} {order}", g.sample("ksampler_tcd", masked, **settings))
        for at in (1, 3):
            g.keep(f"{at} {gamma} {order}", w.split_advanced(g, g.setup, masked, at=at, **settings))
    half = {"end_at_step": 2, "return_with_leftover_noise": "enable", "steps": 4, "gamma": 0.6}
    first = g.sample("advanced", g.random(), **half)
    late = {"start_at_step": 2, "add_noise": "disable", "steps": 4, "gamma": 0.6}
    g.keep("mask in the second stage", g.sample("advanced", w.masked(g, first, mask), **late))
    result = g.run(server)
    picture = result.latent("picture")
    for (gamma, order), at in itertools.product(cases, (1, 3)):
        latent = result.latent(f"{at} {gamma} {order}")
        assert kept_error(latent, picture) < 1e-5 and is_repainted(latent, picture), (gamma, order, at)
        assert relative_error(latent, result.latent(f"whole {gamma} {order}")) < 1e-5, (gamma, order, at)
    latent = result.latent("mask in the second stage")
    assert kept_error(latent, picture) < 1e-5 and is_repainted(latent, picture)


def test_every_node_that_makes_a_mask_is_obeyed(server: Client):
    """Mask set on a latent, encoded for inpainting, and given with an inpainting conditioning."""
    g = Branches("sd15")
    mask = w.half_mask(g)
    pixels = g.add("VAEDecode", samples=g.random(), vae=g.setup.vae)
    encoded = g.add("VAEEncode", pixels=pixels, vae=g.setup.vae)
    condition = {"positive": g.setup.positive, "negative": g.setup.negative}
    model = g.add("InpaintModelConditioning", **condition, pixels=pixels, vae=g.setup.vae, mask=mask, noise_mask=True)
    latents = {
        "set": w.masked(g, encoded, mask),
        "encode": g.add("VAEEncodeForInpaint", pixels=pixels, vae=g.setup.vae, mask=mask, grow_mask_by=0),
        "condition": model.slot(2),
    }
    for name, latent in latents.items():
        g.keep(f"picture {name}", latent)
        g.keep(name, g.sample("ksampler_tcd", latent, gamma=0.5, steps=3))
        g.keep(f"stages {name}", w.split_advanced(g, g.setup, latent, at=1, gamma=0.5, steps=3))
    result = g.run(server)
    for name in latents:
        latent, picture = result.latent(name), result.latent(f"picture {name}")
        assert kept_error(latent, picture) < 1e-5 and is_repainted(latent, picture), name
        assert relative_error(result.latent(f"stages {name}"), latent) < 1e-5, name


def test_a_mask_of_everything_or_nothing_is_no_mask_or_no_change(server: Client):
    g = Branches("sd15")
    for value in (0.0, 1.0):
        mask = g.add("SolidMask", value=value, width=64, height=64)
        g.keep(f"{value}", g.sample("ksampler_tcd", w.masked(g, g.random(), mask), gamma=0.5, steps=2))
    g.keep("picture", g.random())
    g.keep("unmasked", g.sample("ksampler_tcd", g.random(), gamma=0.5, steps=2))
    result = g.run(server)
    assert kept_error(result.latent("0.0"), result.latent("picture"), slice(None)) < 1e-5
    assert relative_error(result.latent("1.0"), result.latent("unmasked")) < 1e-5


def test_a_batch_is_masked_item_by_item(server: Client):
    g = Branches("sd15")
    masked = w.masked(g, w.repeated(g, g.random(), 2), w.half_mask(g))
    g.keep("picture", masked)
    g.keep("both", g.sample("ksampler_tcd", masked, gamma=0.5, steps=2))
    g.keep("second", g.sample("ksampler_tcd", w.batch_part(g, masked, 1), gamma=0.5, steps=2))
    result = g.run(server)
    both, picture = result.latent("both"), result.latent("picture")
    assert kept_error(both, picture) < 1e-5 and relative_error(both[0, :, :, LEFT], both[1, :, :, LEFT]) > 0.1
    assert relative_error(result.latent("second"), both[1:]) < 1e-5


@pytest.mark.parametrize("family", ("sd15", "sd3"))
def test_a_soft_mask_changes_more_where_it_is_higher(server: Client, family: str):
    """Also as DifferentialDiffusion reads it: a stripe is kept until its value comes up in the schedule."""
    g = Branches(family)
    masked = w.masked(g, g.random(size=80, batch=2), stripes(g))
    g.keep("picture", masked)
    differential = g.add("DifferentialDiffusion", model=g.setup.model, strength=1.0)
    for gamma in (0.0, 0.5):
        settings = {"gamma": gamma, "steps": 8}
        g.keep(f"soft {gamma}", g.sample("ksampler_tcd", masked, **settings))
        g.keep(f"stages {gamma}", w.split_advanced(g, g.setup, masked, at=3, **settings))
    g.setup = w.Setup(family, differential, g.setup.vae, g.setup.positive, g.setup.negative)
    for gamma in (0.0, 0.5):
        g.keep(f"differential {gamma}", g.sample("ksampler_tcd", masked, gamma=gamma, steps=8))
    result = g.run(server)
    picture = result.latent("picture")
    for kind, gamma in itertools.product(("soft", "stages", "differential"), (0.0, 0.5)):
        latent = result.latent(f"{kind} {gamma}")
        changes = [float((latent - picture)[..., 2 * i : 2 * i + 2].std() / picture.std()) for i in range(5)]
        assert changes[0] < 1e-5 and changes[-1] > 0.3, (kind, gamma, changes)
        if kind != "differential":
            assert all(b > 1.1 * a for a, b in itertools.pairwise(changes)), (kind, gamma, changes)
    assert relative_error(result.latent("stages 0.5"), result.latent("soft 0.5")) < 1e-5
    assert relative_error(result.latent("differential 0.5"), result.latent("soft 0.5")) > 0.05


def test_a_stage_without_steps_between_two_hands_on_what_they_need(server: Client):
    g = Branches("sd15")
    masked = w.masked(g, g.random(), w.half_mask(g))
    g.keep("picture", masked)
    stage = {"steps": 4, "gamma": 0.3}
    first = g.sample("advanced", masked, **stage, end_at_step=2, return_with_leftover_noise="enable")
    idle = g.sample("advanced", first, **stage, start_at_step=2, end_at_step=2, add_noise="disable")
    for name, latent in (("direct", first), ("over an idle stage", idle)):
        g.keep(name, g.sample("advanced", latent, **stage, start_at_step=2, add_noise="disable"))
    result = g.run(server)
    assert torch.equal(result.latent("over an idle stage"), result.latent("direct"))
    assert kept_error(result.latent("direct"), result.latent("picture")) < 1e-5


def test_a_masked_run_that_lost_its_picture_is_told_in_the_log(server: Client):
    g = Branches("sd15")
    masked = w.masked(g, g.random(), w.half_mask(g))
    stage = {"steps": 4, "gamma": 0.3}
    first = g.sample("advanced", masked, **stage, end_at_step=2, return_with_leftover_noise="enable")
    other = g.add("LatentMultiply", samples=first, multiplier=1.0)
    g.keep("latent", g.sample("advanced", other, **stage, start_at_step=2, add_noise="disable"))
    before = server.log().count("the clean picture is not known")
    g.run(server)
    assert server.log().count("the clean picture is not known") == before + 1
