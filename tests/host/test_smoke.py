"""The server starts with the pack in it, and the tiny checkpoints make pictures through the host's own nodes."""

import numpy as np
import pytest
import torch
from host_support import workflows as w
from host_support.client import Client, WorkflowError
from host_support.tiny_checkpoints import FAMILIES

NODE_IDS = {
    "TCDToolkit_Sampler",
    "TCDToolkit_Scheduler",
    "TCDToolkit_GammaSchedule",
    "TCDToolkit_KSampler",
    "TCDToolkit_KSamplerAdvanced",
    "TCDToolkit_GammaPatch",
    "TCDToolkit_LoraLoader",
    "TCDToolkit_Grid",
}


def euler(family: str, *, batch: int = 1, milliseconds: int = 0, **settings) -> w.Graph:
    """A workflow of stock nodes alone, its evaluations counted."""
    g = w.Graph()
    setup = w.load(g, family)
    latent = w.empty_latent(g, family, batch=batch)
    model = w.slow(g, setup.model, milliseconds=milliseconds)
    settings = {"sampler_name": "euler", "scheduler": "normal", "steps": 4, **settings}
    w.finish(g, setup, w.count(g, w.ksampler(g, model, latent, setup, **settings)))
    return g


def test_all_eight_nodes_are_there(server: Client):
    assert {name for name in server.object_info() if name.startswith("TCDToolkit_")} == NODE_IDS


@pytest.mark.parametrize("family", FAMILIES)
def test_stock_sampler_makes_a_picture_that_depends_on_seed_and_text(server: Client, family: str):
    result = server.run(euler(family))
    (picture,) = result.images
    latent = result.latent()
    assert picture.shape == (64, 64, 3) and picture.dtype == np.uint8
    assert picture.std() > 20 and np.isin(picture, (0, 255)).mean() < 0.2
    assert latent.shape == (1, FAMILIES[family].channels, 8, 8) and torch.isfinite(latent).all()
    assert torch.equal(server.run(euler(family)).latent(), latent)
    for changed in (euler(family, seed=8), euler(family, cfg=3.0), euler(family, scheduler="karras")):
        assert (server.run(changed).latent() - latent).std() > 0.02 * latent.std()


@pytest.mark.parametrize("route", w.ROUTES)
def test_every_route_s_workflow_is_accepted_and_makes_a_picture(server: Client, route: str):
    result = server.run(w.text_to_image("sd15", route, gamma=0.6, order="2M", cfg=2.0))
    assert result.images[0].std() > 20 and torch.isfinite(result.latent()).all()


def test_families_are_what_they_should_be(server: Client):
    """Had detection failed, sd21v would pass as an ε-model and the pictures would not tell."""
    for family in FAMILIES:
        server.run(euler(family))
    log = server.log()
    assert "model_type V_PREDICTION" in log and "model_type EPS" in log and "model_type FLOW" in log


def test_evaluations_are_counted(server: Client):
    calls = server.run(euler("sd15", batch=3, cfg=2.0)).calls("calls")
    assert calls.evaluations == 4 and calls.batches == [6] * 4 and set(calls.cond_or_uncond[0]) == {0, 1}
    assert calls.times == sorted(calls.times, reverse=True)
    assert server.run(euler("sd15")).calls("calls").batches == [1] * 4


def test_a_fresh_run_is_not_answered_from_the_cache(server: Client):
    assert server.run(euler("sd15")).cached <= {"1"}
    g = w.Graph()
    w.finish(g, setup := w.load(g, "sd15"), w.random_latent(g, "sd15"))
    assert setup.vae.id in server.run(g).cached
    server.run(g, fresh=False)
    assert server.run(g, fresh=False).cached >= {"image", "latent"}


def test_progress_and_previews_arrive(server: Client):
    events = server.events(euler("sd15"))
    assert [(step.value, step.maximum) for step in events.progress] == [(n, 4) for n in (1, 2, 3, 4)]
    assert len(events.previews) == 4 and events.previews[0].shape[2] == 3
    assert len(events.result.images) == 1 and events.error is None


def test_interrupt_reaches_a_run(server: Client):
    events = server.events(euler("sd15", steps=50, milliseconds=200), on_progress=lambda _: server.interrupt())
    assert events.error.interrupted and events.error.node_type == "KSampler"
    assert len(events.progress) <= 4


def test_refused_and_failed_workflows_raise_with_the_host_s_words(server: Client):
    g = euler("sd15", sampler_name="no such sampler")
    with pytest.raises(WorkflowError, match="no such sampler") as refused:
        server.run(g)
    assert refused.value.kind == "validation" and refused.value.node_type == "KSampler"
    g = w.Graph()
    w.finish(g, w.load(g, "sd15"), g.add("TCDTest_LoadLatent", file="absent.safetensors"))
    with pytest.raises(WorkflowError, match="absent.safetensors") as failed:
        server.run(g)
    assert failed.value.kind == "execution" and failed.value.exception_type == "FileNotFoundError"


def test_workflow_pieces_fit_the_stock_nodes(server: Client):
    """Masks, batches, pixels: the helpers other tests lean on produce workflows the host accepts."""
    g = w.Graph()
    setup = w.load(g, "sd15")
    start = w.through_pixels(g, w.random_latent(g, "sd15", batch=2), setup.vae)
    kept = w.masked(g, w.repeated(g, start, 2), w.half_mask(g))
    done = w.ksampler(g, setup.model, w.batch_part(g, kept, 1, 2), setup, sampler_name="euler", scheduler="normal")
    w.finish(g, setup, done)
    w.finish(g, setup, start, name="_start")
    result = server.run(g)
    sampled, before = result.latent(), result.latent("latent_start")[[1, 0]]
    assert len(result.images) == 4 and sampled.shape == before.shape
    torch.testing.assert_close(sampled[..., 4:], before[..., 4:], rtol=1e-5, atol=1e-5)
    assert (sampled[..., :4] - before[..., :4]).std() > 0.1
