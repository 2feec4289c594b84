"""Pictures: of every method and family, equal to diffusers' own pipelines, and each from its prompt and seed alone."""

from collections.abc import Sequence

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image
from training_support.evaluations import PROMPTS, SIDE, small_model

from training.evaluation import costs, pictures
from training.evaluation.cells import Cell, Method, cells_of, methods_of
from training.evaluation.generation import Work, generate, picture_path
from training.evaluation.noise import generators_of, noise_of, start_of
from training.evaluation.prompts import numbered
from training.samplers import SOLVERS

FAMILIES = ("sd15", "sd21", "sd21v", "sdxl")
SSS = Method("mine", "mine", "sss", "mine", 0.2, "tcd")


def make(folder, checkpoint, cells, lora=None, prompts=PROMPTS, batch=5, **more):
    """Pictures (cells, prompts, H, W, 3) uint8 of a small checkpoint."""
    work = Work(folder, numbered(prompts), cells, {"mine": lora}, batch, 2.0, **more)
    generate(work, small_model(checkpoint))
    return read(folder, cells, len(prompts))


def read(folder, cells: Sequence[Cell], count: int) -> np.ndarray:
    return np.stack([[pictures.load(picture_path(folder, cell, i)) for i in range(count)] for cell in cells])


def solver(name: str, steps: int = 2) -> Cell:
    return Cell(Method(name, name, name), None, steps, 0)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_method_makes_pictures_and_counts_its_evaluations(family, checkpoint, lora, tmp_path):
    methods = methods_of({"mine": lora(family)}, {}, (*SOLVERS, "tcd"), 0.2)
    methods += methods_of({}, {"mine": lora(family)}, ("lcm",), 0.2)
    cells = cells_of(methods[:-2] + methods[-1:], [2], [], [0]) + [Cell(SSS, 0.7, 2, 0)]
    made = make(tmp_path, checkpoint(family), cells, lora(family), PROMPTS[:2], 2)
    assert made.shape == (7, 2, SIDE, SIDE, 3) and made.reshape(14, -1).std(1).min() > 5
    evaluations = {cell.name: costs.read(tmp_path / "costs", cell.name)[0].evaluations for cell in cells}
    guided = {cell.name for cell in cells if cell.method.name in SOLVERS}
    assert len(guided) == 3 and evaluations == {name: 4 if name in guided else 2 for name in evaluations}
    students = [i for i, cell in enumerate(cells) if cell.name not in guided]
    assert len({made[i].tobytes() for i in students}) == len(students) == 4


# -- against diffusers' pipelines --------------------------------------------------------------------------------------


def pipeline(family: str, model, network, scheduler):
    """diffusers' own pipeline of the model's parts."""
    from training import models

    found = model.family.found
    texts = models.load_text_encoders(found)
    parts = dict(unet=network, vae=models.load_vae(found), scheduler=scheduler, text_encoder=texts[0])
    tokenizers = models.load_tokenizers(found)
    if family == "sdxl":
        more = dict(text_encoder_2=texts[1], tokenizer=tokenizers[0], tokenizer_2=tokenizers[1])
        made = diffusers.StableDiffusionXLPipeline(**parts, **more, add_watermarker=False)
    else:
        made = diffusers.StableDiffusionPipeline(
            **parts, tokenizer=tokenizers[0], safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    return made


def asked(family: str, made, model, prompts, guided: bool) -> dict:
    """The pipeline's words for the model's own texts: embeddings, which were rounded to float16, as they are."""
    condition, none = model.texts([prompt.text for prompt in prompts], empty=guided)
    words = {"prompt_embeds": condition["encoder_hidden_states"]}
    if guided and family != "sdxl":  # SDXL's pipeline is left to itself: zeros for no prompt
        words["negative_prompt_embeds"] = none["encoder_hidden_states"]
    if family == "sdxl":
        words["pooled_prompt_embeds"] = condition["pooled"]
        if guided:
            words |= {"negative_prompt_embeds": none["encoder_hidden_states"]}
            words |= {"negative_pooled_prompt_embeds": none["pooled"]}
            assert not none["encoder_hidden_states"].any() and not none["pooled"].any()
    return words


def close(ours: np.ndarray, theirs: np.ndarray, levels: int = 1) -> bool:
    return int(np.abs(ours.astype(int) - theirs.astype(int)).max()) <= levels


def pictures_of(made, **words) -> np.ndarray:
    found = made(height=SIDE, width=SIDE, output_type="np", **words).images
    return (found * 255).round().astype(np.uint8)


@pytest.mark.parametrize(("family", "gamma"), [("sd15", 0.0), ("sd15", 0.3), ("sd21v", 0.3), ("sdxl", 0.3)])
def test_pictures_are_diffusers_pipeline_s_with_its_tcd_scheduler_for_the_same_noise(
    family, gamma, checkpoint, lora, tmp_path, monkeypatch
):
    """By TCDScheduler here with the same generators, and by SSS with its noise put into the other."""
    cells = [Cell(Method("ref", "ref", "tcd", "mine", gamma), gamma, 4, 7), Cell(SSS, gamma, 4, 7)]
    ours = make(tmp_path, checkpoint(family), cells, lora(family), PROMPTS[:2])
    model, prompts = small_model(checkpoint(family)), numbered(PROMPTS[:2])
    network = model.base()
    from training.evaluation.lora import merge

    merge(network, lora(family))
    theirs = pipeline(family, model, network, diffusers.TCDScheduler(prediction_type=model.family.prediction))
    noise = noise_of(prompts, 7, model.family.latent_shape, model.device)
    words = {"latents": start_of(noise), "guidance_scale": 0.0, "num_inference_steps": 4, "eta": gamma}
    words |= asked(family, theirs, model, prompts, guided=False)
    assert close(ours[0], pictures_of(theirs, generator=generators_of(prompts, 7), **words))
    keyed = []  # the levels at which SSS draws its noise, in order

    def same(shape, generator=None, device=None, dtype=None, layout=None):
        keyed.append(model.family.schedule.level(float(theirs.scheduler.timesteps[len(keyed) + 1])))
        return noise(keyed[-1]).to(dtype)

    monkeypatch.setattr("diffusers.schedulers.scheduling_tcd.randn_tensor", same)
    assert close(ours[1], pictures_of(theirs, **words)) and len(keyed) == (3 if gamma else 0)


@pytest.mark.parametrize("family", ["sd21v", "sdxl"])
def test_the_base_model_with_guidance_is_diffusers_pipeline_with_the_same_scheduler(family, checkpoint, tmp_path):
    ours = make(tmp_path, checkpoint(family), [solver("ddim", 3)], prompts=PROMPTS[:2])
    model, prompts = small_model(checkpoint(family)), numbered(PROMPTS[:2])
    scheduler = diffusers.DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=False,
        prediction_type=model.family.prediction,
    )
    theirs = pipeline(family, model, model.base(), scheduler)
    start = start_of(noise_of(prompts, 0, model.family.latent_shape, model.device))
    words = {"latents": start, "guidance_scale": 3.0, "num_inference_steps": 3}
    words |= asked(family, theirs, model, prompts, guided=True)
    assert close(ours[0], pictures_of(theirs, **words))


def test_texts_are_diffusers_pipeline_s_but_for_rounding_to_float16(checkpoint):
    for family in ("sd15", "sdxl"):
        model = small_model(checkpoint(family))
        theirs = pipeline(family, model, model.base(), diffusers.DDIMScheduler())
        condition, none = model.texts(["two dogs, a bird!"], empty=True)
        found = theirs.encode_prompt("two dogs, a bird!", device="cpu", num_images_per_prompt=1,
                                     do_classifier_free_guidance=True)  # fmt: skip
        torch.testing.assert_close(condition["encoder_hidden_states"], found[0], rtol=2e-3, atol=2e-3)
        torch.testing.assert_close(none["encoder_hidden_states"], found[1], rtol=2e-3, atol=2e-3)
        if family == "sdxl":
            torch.testing.assert_close(condition["pooled"], found[2], rtol=2e-3, atol=2e-3)


# -- each from its prompt and seed -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def whole(checkpoint, lora, tmp_path_factory):
    """All five prompts in one batch: (cells, pictures)."""
    cells = [Cell(SSS, 0.2, 2, 0), Cell(SSS, 0.2, 2, 1)]
    return cells, make(tmp_path_factory.mktemp("whole"), checkpoint("sd15"), cells, lora("sd15"))


def test_another_seed_or_turn_makes_another_picture(whole):
    made = whole[1].reshape(10, -1)
    assert PROMPTS[0] == PROMPTS[3] and len({picture.tobytes() for picture in made}) == 10


@pytest.mark.parametrize("batch", [1, 2])
def test_a_picture_does_not_depend_on_its_batch(whole, batch, checkpoint, lora, tmp_path):
    cells, expected = whole
    assert close(make(tmp_path, checkpoint("sd15"), cells, lora("sd15"), batch=batch), expected)


def test_a_picture_does_not_depend_on_its_place_or_its_neighbours(whole, checkpoint, lora, tmp_path):
    cells, expected = whole
    turned = ("something else", *PROMPTS[:0:-1])
    found = make(tmp_path, checkpoint("sd15"), cells, lora("sd15"), turned)
    places = [turned.index(text) for text in PROMPTS[1:3]]
    assert close(found[:, places], expected[:, 1:3])


def test_what_is_missing_is_made_again_to_the_bit_and_nothing_else_is_touched(whole, checkpoint, lora, tmp_path):
    cells, _ = whole
    before = make(tmp_path, checkpoint("sd15"), cells, lora("sd15"), batch=2)
    for cell, i in ((cells[0], 1), (cells[1], 4)):
        picture_path(tmp_path, cell, i).unlink()
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.png")}
    np.testing.assert_array_equal(make(tmp_path, checkpoint("sd15"), cells, lora("sd15"), batch=2), before)
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_a_network_that_overflows_leaves_grey_and_is_counted(checkpoint, tmp_path, monkeypatch):
    from training.evaluation.model import Model

    monkeypatch.setattr(Model, "decode", lambda self, latents: torch.full((len(latents), 3, SIDE, SIDE), torch.nan))
    made = make(tmp_path, checkpoint("sd15"), [solver("ddim")], batch=2)
    assert np.unique(made).tolist() == [128]
    assert [of.broken for of in costs.read(tmp_path / "costs", solver("ddim").name)] == [[0, 1], [2, 3], [4]]


def test_a_line_of_costs_that_a_kill_cut_short_is_passed_over(tmp_path):
    costs.append(tmp_path / "cell.0.jsonl", costs.Cost(0, 2, 1.0, 4, 100))
    with open(tmp_path / "cell.0.jsonl", "a") as file:
        file.write('\n{"batch": 1, "pic')
    costs.append(tmp_path / "cell.0.jsonl", costs.Cost(2, 2, 3.0, 4, 200))
    costs.append(tmp_path / "cell.1.jsonl", costs.Cost(1, 2, 8.0, 4, 50))
    found = costs.read(tmp_path, "cell")
    assert [of.batch for of in found] == [0, 1, 2]
    assert costs.summed(found, 6) == {"seconds": 9.0, "evaluations": 4, "peak_bytes": 200}


def test_a_picture_that_cannot_be_written_whole_is_not_there(tmp_path, monkeypatch):
    from training.disk import OutputError

    with pytest.raises(OutputError, match="was not written"):
        pictures.write(tmp_path / "gone" / "0.png", np.zeros((8, 8, 3), np.uint8))
    monkeypatch.setattr("os.replace", lambda *paths: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        pictures.write(tmp_path / "0.png", np.zeros((8, 8, 3), np.uint8))
    assert list(tmp_path.iterdir()) == []


def test_pictures_are_written_as_they_are(tmp_path):
    picture = np.random.default_rng(0).integers(0, 256, (9, 7, 3), np.uint8)
    pictures.write(tmp_path / "0.png", picture)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "0.png")), picture)
    np.testing.assert_array_equal(pictures.load(tmp_path / "0.png"), picture)
