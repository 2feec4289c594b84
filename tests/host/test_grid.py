"""TCD Grid: every cell is KSampler (TCD) and VAE Decode at its setting; progress, Interrupt, refusals, memory."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from host_support import workflows as w
from host_support.branches import Branches, picture
from host_support.client import Client, Result, WorkflowError
from PIL import Image

DRIVER = Path(__file__).parent / "drivers" / "grid_driver.py"

REFUSED = {  # (settings, what the message says)
    "steps that are none": ({"steps": "4, x"}, "steps: 'x' is not a whole number"),
    "no step": ({"steps": "4, 0"}, "steps: 0 does not lie in 1 … 10000"),
    "more steps than times": ({"steps": "4, 1001"}, "1001 steps .*more than the 1000 times"),
    "gamma above 1": ({"gammas": "0, 1.5"}, r"gamma must lie in \[0, 1\], got 1.5"),
    "no steps": ({"steps": ""}, "steps: write at least one number"),
    "no gammas": ({"gammas": " , "}, "gammas: write at least one number"),
    "seeds that are none": ({"seeds": "7, -1"}, "seeds: -1 does not lie in 0 … 18446744073709551615"),
    "1,000 cells": ({"steps": "1 " * 10, "gammas": "0 " * 10, "seeds": "1 " * 10}, "make 1000 cells, a grid holds 256"),
}


class GridBranches(Branches):
    """Branches with a TCD Grid of which the picture, the cells and their names can be read."""

    def grid(self, latent: w.Link, **settings) -> w.Link:
        chosen = {"seed": 7, "cfg": 1.0, "denoise": 1.0, "order": "1", "steps": "1, 3", "gammas": "0, 1", **settings}
        setup = self.setup
        linked = {"model": setup.model, "vae": setup.vae, "positive": setup.positive, "negative": setup.negative}
        grid = self.add("TCDToolkit_Grid", "grid", latent_image=latent, **{**linked, **chosen})
        self.add("SaveImage", "picture", images=grid, filename_prefix="grid")
        self.add("SaveImage", "cells", images=grid.slot(1), filename_prefix=grid.slot(2))
        return grid


def pictures(result: Result, node_id: str) -> dict[str, np.ndarray]:
    """What a SaveImage saved, by file name without its number, in order."""
    saved = {}
    for file in result.outputs[node_id]["images"]:
        name = file["filename"].rsplit("_", 2)[0]
        assert name not in saved
        saved[name] = np.asarray(Image.open(io.BytesIO(result.client.view(file))))
    return saved


def place(part: np.ndarray, whole: np.ndarray) -> tuple[int, int]:
    """The one (y, x) where a picture stands in a larger one, pixel for pixel."""
    height, width = part.shape[:2]
    corners = np.argwhere((whole[: -height + 1, : -width + 1] == part[0, 0]).all(-1))
    found = [(y, x) for y, x in corners if np.array_equal(whole[y : y + height, x : x + width], part)]
    assert len(found) == 1, found
    return found[0]


@pytest.mark.parametrize(
    "family, order, cfg", [("sd15", "1", 1.0), ("sd21v", "2", 1.0), ("sdxl", "1", 2.5), ("sd3", "2M", 1.0)]
)
def test_every_cell_is_ksampler_tcd_and_vae_decode(server: Client, family: str, order: str, cfg: float):
    seeds, steps, gammas = (7, 2**64 - 1), (2, 3), (0.0, 0.4)
    settings = list(itertools.product(seeds, steps, gammas))
    g = GridBranches(family)
    latent = g.empty()
    g.grid(latent, steps="2, 3", gammas="0, .4", seeds=f"7, {2**64 - 1}", order=order, cfg=cfg)
    for seed, count, gamma in settings:
        alone = g.sample("ksampler_tcd", latent, seed=seed, steps=count, gamma=gamma, order=order, cfg=cfg)
        g.show(f"alone {seed} {count} {gamma}", alone)
    result = g.run(server)
    cells = pictures(result, "cells")
    (grid,) = pictures(result, "picture").values()
    assert list(cells) == [f"seed_{seed}_steps_{count}_gamma_{gamma:g}" for seed, count, gamma in settings]
    places = {}
    for (seed, count, gamma), cell in zip(settings, cells.values(), strict=True):
        assert cell.shape == (64, 64, 3) and cell.std() > 20
        assert np.array_equal(cell, picture(result, f"alone {seed} {count} {gamma}")), (seed, count, gamma)
        places[seed, count, gamma] = place(cell, grid)
    for seed in seeds:  # a block: a row for each step count, a column for each gamma
        y, x = np.array([[places[seed, count, gamma] for gamma in gammas] for count in steps]).transpose(2, 0, 1)
        assert (y == y[:, :1]).all() and (x == x[:1]).all()
        assert y[0, 0] + 64 < y[1, 0] and x[0, 0] + 64 < x[0, 1]


def test_a_masked_batch_becomes_a_block_for_each_item(server: Client):
    g = GridBranches("sd15")
    latent = w.masked(g, w.batch_part(g, g.random(batch=4), 1, 2), w.half_mask(g))
    g.grid(latent, steps="3", gammas="0, 0.5", denoise=0.6)
    for gamma in (0.0, 0.5):
        g.show(f"{gamma:g}", g.sample("ksampler_tcd", latent, steps=3, gamma=gamma, denoise=0.6))
    result = g.run(server)
    cells = pictures(result, "cells")
    assert list(cells) == [f"seed_7_item_{item}_steps_3_gamma_{gamma}" for item in (1, 2) for gamma in ("0", "0.5")]
    for gamma in ("0", "0.5"):
        files = result.outputs[gamma]["images"]
        for item, file in zip((1, 2), files, strict=True):
            alone = np.asarray(Image.open(io.BytesIO(result.client.view(file))))
            assert np.array_equal(cells[f"seed_7_item_{item}_steps_3_gamma_{gamma}"], alone)


def test_denoise_0_shows_the_latent_in_every_cell(server: Client):
    g = GridBranches("sd15")
    latent = g.random()
    g.grid(latent, denoise=0.0)
    g.show("latent", latent)
    result = g.run(server)
    cells = pictures(result, "cells")
    assert len(cells) == 4 and all(np.array_equal(cell, picture(result, "latent")) for cell in cells.values())


def test_cells_are_no_larger_than_max_cell(server: Client):
    g = GridBranches("sd15")
    latent = g.empty(size=160)
    g.grid(latent, max_cell=64, steps="2")
    g.show("alone", g.sample("ksampler_tcd", latent, steps=2, gamma=1.0))
    result = g.run(server)
    cells = pictures(result, "cells")
    assert {cell.shape for cell in cells.values()} == {(64, 64, 3)}
    alone = Image.fromarray(picture(result, "alone").astype(np.uint8))
    expected = np.asarray(alone.resize((64, 64), Image.BICUBIC)).astype(int)
    assert np.abs(cells["seed_7_steps_2_gamma_1"] - expected).max() <= 3
    assert "TCD Grid: cells of" not in server.log()


def test_one_progress_bar_runs_over_all_cells_with_a_preview_each_step(server: Client):
    g = GridBranches("sd3")
    g.grid(g.empty(), steps="1, 2, 4", gammas="0.2, 0.8", order="2")
    events = server.events(g)
    assert events.error is None
    assert [(step.value, step.maximum) for step in events.progress] == [(n, 14) for n in range(1, 15)]
    assert {step.node_id for step in events.progress} == {"grid"}
    assert len(events.previews) == 14 and all(preview.std() > 0 for preview in events.previews)


def evaluations(server: Client) -> int:
    """How many the last run of a model that counts had got to."""
    g = Branches("sd3")
    w.count(g, g.empty(), name="grid")
    return server.run(g).calls("calls").evaluations


def test_interrupt_stops_inside_a_cell_and_the_server_goes_on(server: Client):
    """Of 10 steps a cell, interrupted in the second one's third; one more is left to the message on its way."""

    def run(interrupted: bool):
        g = GridBranches("sd3")
        model = g.counting("grid", milliseconds=60 if interrupted else 0).model
        g.grid(g.empty(), steps="10", gammas="0, 0.5, 1", model=model)
        return server.events(g, on_progress=lambda step: interrupted and step.value == 13 and server.interrupt())

    before = run(False)
    stopped = run(True)
    assert stopped.error is not None and stopped.error.interrupted and stopped.error.node_id == "grid"
    assert 13 <= len(stopped.progress) <= 14 and evaluations(server) <= 15
    again = run(False)
    expected, found = (pictures(events.result, "cells") for events in (before, again))
    assert list(expected) == list(found) and all(np.array_equal(expected[name], found[name]) for name in expected)


def refusal(server: Client, g: GridBranches) -> WorkflowError:
    with pytest.raises(WorkflowError) as refused:
        g.run(server)
    assert refused.value.node_type == "TCDToolkit_Grid" and refused.value.exception_type == "ValueError", refused
    return refused.value


@pytest.mark.parametrize("case", REFUSED)
def test_bad_settings_are_refused_before_anything_is_sampled(server: Client, case: str):
    settings, message = REFUSED[case]
    g = GridBranches("sd3")
    g.grid(g.empty(), model=g.counting("grid").model, **settings)
    with pytest.raises(WorkflowError, match=message):
        raise refusal(server, g)
    assert evaluations(server) == 0
    g = GridBranches("sd3")
    g.grid(g.empty(), steps="1", gammas="0")
    assert len(pictures(g.run(server), "cells")) == 1


@pytest.mark.parametrize(
    "node, settings, message",
    [
        ("EmptyHunyuanLatentVideo", {"width": 64, "height": 64, "length": 9}, "latent_image holds 3 frames of video"),
        ("EmptyLatentAudio", {"seconds": 2.0}, "latent_image holds no picture"),
        ("EmptyAceStepLatentAudio", {"seconds": 2.0}, "latent_image holds no picture"),
    ],
)
def test_video_and_sound_are_refused_before_anything_is_sampled(
    server: Client, node: str, settings: dict, message: str
):
    g = GridBranches("sd3")
    g.grid(g.add(node, batch_size=1, **settings), model=g.counting("grid").model)
    with pytest.raises(WorkflowError, match=message):
        raise refusal(server, g)
    assert evaluations(server) == 0


def test_a_batch_counts_towards_the_largest_grid(server: Client):
    g = GridBranches("sd3")
    g.grid(g.empty(batch=65), model=g.counting("grid").model)
    with pytest.raises(WorkflowError, match="2 steps × 2 gammas × 65 batch items make 260 cells"):
        raise refusal(server, g)
    assert evaluations(server) == 0


@pytest.fixture(scope="module")
def results(comfyui, tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("grid") / "results.json"
    comfyui.run_driver(DRIVER, file)
    return json.loads(file.read_text())


def test_latents_are_ksampler_tcd_s_to_the_bit(results):
    """Batches, parts of batches, masks × orders × denoise × seeds, steps, gammas."""
    assert results["equal_latents"] == {"count": 4 * 3 * 2 * 8, "wrong": []}


def test_beside_the_grid_memory_does_not_grow_with_the_cells(results):
    """Bytes of all living tensors as each cell is about to be decoded; a cell's picture would be 3 MB."""
    memory = results["memory"]
    assert memory["128 cells"] - memory["4 cells"] < 0.05 * memory["picture"]
    for size in ("4 cells", "128 cells"):
        assert memory[f"{size}, in the outputs beside the grid"] == 0


def test_an_interrupt_while_a_cell_is_decoded_begins_no_other(results):
    found = results["interrupted_while_decoding"]
    assert found["ended"] == "interrupted" and found["decoded"] == 2 and found["after"] == found["before"]


def test_vaes_that_make_single_pictures_are_taken_and_others_refused(results):
    found = results["shapes"]
    assert found.pop("one frame") == found.pop("alpha") == "the same cells"
    assert len(found) == 3 and all("connect the VAE that belongs to the model" in told for told in found.values()), (
        found
    )
