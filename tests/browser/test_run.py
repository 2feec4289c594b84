"""Run in the app: the picture and the step previews arrive, from a graph with plots in it."""

from zlib import crc32

import pytest
import ui
from host_support.tiny_checkpoints import FAMILIES

KIND = FAMILIES["sd15"]
CONDITIONING = {"width": KIND.context, "pooled_width": KIND.pooled, "tokens": 8}


@pytest.fixture
def page(page):
    """Loaded anew afterwards: the newest front end goes on showing a run's previews on whatever nodes get its ids."""
    yield page
    ui.open_app(page)


def test_picture_and_step_previews_arrive(page, screenshots):
    nodes = {
        "schedule": ("TCDToolkit_GammaSchedule", (0, 0), {}),
        "checkpoint": ("CheckpointLoaderSimple", (0, 430), {"ckpt_name": KIND.file}),
        "positive": ("TCDTest_Conditioning", (0, 560), {**CONDITIONING, "seed": 1}),
        "negative": ("TCDTest_Conditioning", (0, 740), {**CONDITIONING, "seed": 2}),
        "latent": ("EmptyLatentImage", (300, 560), {"width": 64, "height": 64}),
        "ksampler": ("TCDToolkit_KSampler", (300, 0), {"steps": 4, "seed": crc32(page.front_end.id.encode())}),
        "decode": ("VAEDecode", (640, 0), {}),
        "image": ("SaveImage", (640, 120), {}),
    }
    links = [
        ("schedule", 0, "ksampler", "gamma_schedule"),
        ("checkpoint", 0, "ksampler", "model"),
        ("positive", 0, "ksampler", "positive"),
        ("negative", 0, "ksampler", "negative"),
        ("latent", 0, "ksampler", "latent_image"),
        ("ksampler", 0, "decode", "samples"),
        ("checkpoint", 2, "decode", "vae"),
        ("decode", 0, "image", "images"),
    ]
    ids = ui.build(page, nodes, links)
    ui.watch_run(page)
    ui.queue(page)
    told = ui.wait_for_run(page)
    assert told["error"] is None
    assert [step for step in told["progress"] if step["node"] == ids["ksampler"]][-1]["value"] == 4
    assert told["previews"] >= 3
    (picture,) = told["images"]
    assert ui.picture_size(page, picture) == [64, 64]
    assert page.errors == []
    page.screenshot(path=screenshots / f"{page.front_end.id}_run.png")
