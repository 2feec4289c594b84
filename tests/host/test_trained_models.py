"""Real families, from one checkpoint file through the trainer to the host: all modules matched, the same latents.

The models are narrow and their weights random, but every block, layer and name of the family is there. Host and
trainer both read the one file, and its LoRA.
"""

import functools
import json
import shutil
from pathlib import Path

import pytest
import torch
from host_support import trained_models
from host_support.trained import Answers, distance
from host_support.trained_models import ALPHA, CAPTIONS, KINDS, RANK, Distilled
from safetensors.torch import load_file, save_file
from training_support.random_checkpoints import LORA_MODULES, STANDARD, tensor_shapes

DRIVER = Path(trained_models.__file__).with_name("trained_models_driver.py")
STEPS, GAMMA, SEED = 4, 0.2, 11
SHAPE = (2, 4, 8, 16)
BARE = "bare"
SHOWN = "tcf1 fp32"  # whose latents are decoded
CLOSE = 1e-4  # relative; 2e-6 is usual
STUDENTS = [
    (name, f"{form} {dtype}") for name, kind in KINDS.items() for form in kind.forms for dtype in ("fp32", "fp16")
]
ROUTES = {"fp32": "custom", "fp16": "ksampler"}  # SamplerCustom with TCD's sampler and times, or KSampler (TCD)


@pytest.fixture(scope="module")
def distilled(tmp_path_factory) -> dict[str, Distilled]:
    """Each family's checkpoint and students."""
    folder = tmp_path_factory.mktemp("models")
    return {name: trained_models.distil(name, folder) for name in KINDS}


@pytest.fixture(scope="module")
def host(comfyui, distilled, tmp_path_factory) -> Answers:
    """One run of the driver over all of them."""
    folder, models = tmp_path_factory.mktemp("host"), {}
    (folder / "loras").mkdir()
    for name, made in distilled.items():
        save_file(made.conditioning(SHAPE[0]), folder / f"{name}.safetensors")
        settings = {"steps": STEPS, "gamma": GAMMA, "seed": SEED, "shape": SHAPE, "pictures": False}
        cases = [settings | {"name": BARE, "file": None, "route": "custom"}]
        for lora, path in made.loras.items():
            file = f"{name} {lora}.safetensors"
            shutil.copy(path, folder / "loras" / file)
            case = {"name": lora, "file": file, "route": ROUTES[lora.split()[-1]], "pictures": lora == SHOWN}
            cases.append(settings | case)
        models[name] = {"checkpoint": str(made.checkpoint), "conditioning": str(folder / f"{name}.safetensors")}
        models[name] |= {"kind": made.kind.host, "unet": made.kind.unet, "texts": made.text_sizes(), "cases": cases}
        models[name] |= {"captions": ["", *CAPTIONS], "vae_width": made.vae_width()}
    full = {name: (tensor_shapes(name, STANDARD / name), f"{name} {SHOWN}.safetensors") for name in KINDS}
    files = [folder / name for name in ("job.json", "results.safetensors", "answers.json")]
    files[0].write_text(json.dumps({"loras": str(folder / "loras"), "models": models, "full_size": full}))
    comfyui.run_driver(DRIVER, *files)
    return Answers(load_file(files[1]), json.loads(files[2].read_text()))


@pytest.fixture(scope="module")
def headless(distilled, host):
    """``headless("sdxl", "tcf1 fp32")``: the trainer's latents from the host's noise."""

    @functools.cache
    def latents(name: str, lora: str | None, **more) -> torch.Tensor:
        return distilled[name].latents(lora, host.tensors[f"{name}/noise"], STEPS, GAMMA, SEED, **more)

    return latents


@pytest.mark.parametrize("name", KINDS)
def test_the_host_reads_the_network_off_the_file(host, name):
    assert host.told[name]["differing"] == [] and host.told[name]["prediction"] == KINDS[name].prediction


@pytest.mark.parametrize("name", KINDS)
def test_captions_are_encoded_alike(distilled, host, name):
    """What the student was trained on, from the cache, where it is in fp16, is what a prompt gives in the host."""
    told, cached = host.told[name], distilled[name].family.cache.texts(["", *CAPTIONS])
    assert set(cached) == ({"encoder_hidden_states", "pooled"} if name == "sdxl" else {"encoder_hidden_states"})
    for part, expected in cached.items():
        found = torch.cat([host.tensors[f"{name}/caption {index}/{part}"] for index in range(len(expected))])
        assert distance(found, expected.float()) <= 1e-3
        assert distance(found, expected.float().roll(1, 0)) > 0.05
    assert all(key.endswith("position_ids") for key in told["texts unused"])
    absent = "logit_scale", "text_projection.weight"  # of CLIP-L, not in such files and not used
    assert all(key.endswith(absent) for key in told["texts missing"])


@pytest.mark.parametrize("name", KINDS)
def test_the_teacher_samples_alike_without_a_lora(host, headless, name):
    assert distance(host.tensors[f"{name}/{BARE}"], headless(name, None)) <= CLOSE


@pytest.mark.parametrize(("name", "lora"), STUDENTS)
def test_every_module_is_matched(host, name, lora):
    told, count = host.told[f"{name}/{lora}"], LORA_MODULES[name]
    assert f"rank {RANK}\nmatched {count} of {count} modules, strength 1" in told["report"]
    assert told["patches"] == count and told["stock"]
    assert ("TCF(S+): the network is told each step's target time" in told["report"]) == ("s_plus" in lora)


@pytest.mark.parametrize(("name", "lora"), STUDENTS)
def test_latents_are_the_headless_sampler_s(host, headless, name, lora):
    found = host.tensors[f"{name}/{lora}"]
    assert found.shape == SHAPE and torch.isfinite(found).all()
    assert distance(found, headless(name, lora)) <= CLOSE


@pytest.mark.parametrize("name", KINDS)
def test_pictures_are_the_headless_sampler_s(distilled, host, headless, name):
    found = host.tensors[f"{name}/{SHOWN}/pictures"].movedim(-1, 1)
    expected = (distilled[name].family.decode(headless(name, SHOWN)) + 1) / 2
    assert found.shape == (SHAPE[0], 3, 8 * SHAPE[2], 8 * SHAPE[3])
    assert distance(found, expected) <= CLOSE
    assert ((found > 0) & (found < 1)).float().mean() > 0.5


@pytest.mark.parametrize(("name", "lora"), STUDENTS)
def test_the_student_counts(host, name, lora):
    """It draws something else than its teacher: the latents above are not equal for want of a difference."""
    assert distance(host.tensors[f"{name}/{lora}"], host.tensors[f"{name}/{BARE}"]) > 0.05


def test_the_target_time_counts(host, headless):
    lora = "tcf_s_plus fp32"
    assert distance(host.tensors[f"sd15/{lora}"], headless("sd15", lora, told_s=False)) > 0.01


def test_all_that_sdxl_is_told_counts(distilled):
    """Other pictures' texts, or sizes in another order, make another output: none of them could be wrong unseen."""
    made = distilled["sdxl"]
    given, x = made.conditioning(SHAPE[0]), torch.randn(SHAPE, generator=torch.Generator().manual_seed(3))
    orders = ([1, 0, 2, 3, 4, 5], [0, 1, 3, 2, 4, 5], [0, 1, 2, 3, 5, 4], [4, 5, 2, 3, 0, 1])
    others = [{name: given[name].flip(0)} for name in ("encoder_hidden_states", "pooled")]
    others += [{"time_ids": given["time_ids"][:, order]} for order in orders]
    made.family.load()
    with torch.inference_mode():
        output, *changed = (
            made.family.output(made.family.network, x, torch.full((SHAPE[0],), 499.0), given | other)
            for other in ({}, *others)
        )
    assert all(distance(other, output) > 100 * CLOSE for other in changed)


@pytest.mark.parametrize(("name", "lora"), STUDENTS)
def test_the_file_holds_what_the_recipe_asked_for(distilled, name, lora):
    tensors = load_file(distilled[name].loras[lora])
    alphas = [tensor for key, tensor in tensors.items() if key.endswith(".alpha")]
    dtype = {"fp32": torch.float32, "fp16": torch.float16}[lora.split()[-1]]
    assert len(alphas) == LORA_MODULES[name] and {float(alpha) for alpha in alphas} == {ALPHA}
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
    assert all(tensor.abs().max() > 0 for key, tensor in tensors.items() if key.endswith("lora_up.weight"))


@pytest.mark.parametrize("name", KINDS)
def test_the_host_recognises_the_family_at_its_own_size(host, name):
    """And has a weight in it for each module of the LoRA, which has the same names at any width."""
    told = host.told[f"{name}/full size"]
    assert told["kind"] == KINDS[name].host and told["differing"] == [] and told["unmatched"] == []
    assert told["matched"] == LORA_MODULES[name]
