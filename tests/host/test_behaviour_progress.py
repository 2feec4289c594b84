"""Progress, previews and Interrupt, as the front end sees them."""

import itertools

import pytest
import torch
from host_support import workflows as w
from host_support.branches import Branches, relative_error
from host_support.client import Client

SAMPLING_NODES = {"TCDToolkit_KSampler", "TCDToolkit_KSamplerAdvanced", "KSampler", "SamplerCustom"}


def sampling_node(g: Branches) -> str:
    return next(node_id for node_id, node in g.items() if node["class_type"] in SAMPLING_NODES)


@pytest.mark.parametrize("route, order", [*itertools.product(w.ROUTES, ["1"]), ("ksampler_tcd", "2"), ("custom", "2M")])
def test_every_step_reports_progress_and_shows_a_preview(server: Client, route: str, order: str):
    g = Branches("sd3")
    g.keep("latent", g.sample(route, g.empty(), order=order, steps=5, gamma=0.5))
    events = server.events(g)
    assert events.error is None
    assert [(step.value, step.maximum) for step in events.progress] == [(n, 5) for n in range(1, 6)]
    assert {step.node_id for step in events.progress} == {sampling_node(g)}
    assert len(events.previews) == 5 and all(preview.std() > 0 for preview in events.previews)


def test_stages_count_their_own_steps(server: Client):
    g = Branches("sd3")
    g.keep("latent", w.split_advanced(g, g.setup, g.empty(), at=3, steps=5))
    events = server.events(g)
    assert [(step.value, step.maximum) for step in events.progress] == [(1, 3), (2, 3), (3, 3), (1, 2), (2, 2)]


def test_no_step_no_progress(server: Client):
    g = Branches("sd3")
    g.keep("latent", g.sample("ksampler_tcd", g.random(), denoise=0.0))
    events = server.events(g)
    assert events.error is None and not events.progress and not events.previews


def test_denoised_output_is_the_clean_picture_while_noise_is_left_in(server: Client):
    """SamplerCustom's second output is what the callback was last given."""
    g = Branches("sd15")
    cut = g.add("SplitSigmas", sigmas=w.tcd_sigmas(g, g.setup, 4), step=1)
    noisy = w.sample_sigmas(g, g.setup, g.empty(), cut, gamma=1.0)
    g.keep("noisy", noisy)
    g.keep("denoised", noisy.slot(1))
    one = w.sample_sigmas(g, g.setup, g.empty(), w.tcd_sigmas(g, g.setup, 1), gamma=1.0)
    g.keep("one step", one)
    result = g.run(server)
    assert relative_error(result.latent("denoised"), result.latent("one step")) < 0.03  # which ends with ς_0 = 0.029 in
    assert relative_error(result.latent("noisy"), result.latent("denoised")) > 0.3


@pytest.mark.parametrize("route, order", [*itertools.product(w.ROUTES, ["1"]), ("ksampler_tcd", "2"), ("custom", "2M")])
def test_interrupt_stops_within_one_step(server: Client, route: str, order: str):
    """Of 40 steps, interrupted as the second one's progress arrives; one more is left to the message on its way."""
    g = Branches("sd3")
    setup = g.counting("interrupted", milliseconds=60)
    g.keep("latent", w.sample(g, route, setup, g.empty(), steps=40, order=order))
    events = server.events(g, on_progress=lambda step: step.value == 2 and server.interrupt())
    assert events.error is not None and events.error.interrupted and events.error.node_id == sampling_node(g)
    assert 2 <= len(events.progress) <= 3
    per_step = 2 if order == "2" else 1
    assert evaluations(server) <= 4 * per_step


def evaluations(server: Client) -> int:
    """How many the interrupted run had got to."""
    g = Branches("sd3")
    w.count(g, g.empty(), name="interrupted")
    return server.run(g).calls("calls").evaluations


def test_the_server_samples_as_before_after_an_interrupt(server: Client):
    def run(interrupted: bool) -> torch.Tensor | None:
        g = Branches("sd3")
        setup = g.counting("again", milliseconds=20)
        g.keep("latent", w.sample(g, "ksampler_tcd", setup, g.empty(), steps=8, gamma=0.7, order="2M"))
        events = server.events(g, on_progress=lambda step: interrupted and step.value == 3 and server.interrupt())
        assert (events.error is not None) == interrupted
        return None if interrupted else events.result.latent("latent")

    before = run(False)
    run(True)
    assert torch.equal(run(False), before)
