"""Parts load bit for bit, as diffusers' own loader has them, from files and folders alike, without the network."""

import json

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, UNet2DConditionModel
from diffusers.loaders.single_file_utils import create_diffusers_clip_model_from_ldm
from model_files import altered, same
from safetensors.torch import load_file
from training_support.random_checkpoints import FAMILIES, LORA_MODULES, UNET, small_config
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from training.models import (
    ModelError,
    check,
    inspect,
    load,
    load_encoders,
    load_unet,
    load_vae,
    schedule,
)
from training.models.configs import skeleton
from training.models.names import VAE

UNTRAINED = ("conv_in", "conv_out", "time_embedding.", "add_embedding.")  # what official LoRAs leave alone


def reference(path, config: str, family: str) -> list[torch.nn.Module]:
    """The parts by diffusers' loader, in the file's own number format."""
    more = {"config": config, "local_files_only": True, "torch_dtype": torch.float16}
    parts = [UNet2DConditionModel.from_single_file(str(path), subfolder="unet", **more)]
    parts.append(AutoencoderKL.from_single_file(str(path), subfolder="vae", **more))
    tensors, kinds = load_file(path), {"text_encoder": CLIPTextModel}
    if family == "sdxl":
        kinds["text_encoder_2"] = CLIPTextModelWithProjection
    for part, kind in kinds.items():
        parts.append(create_diffusers_clip_model_from_ldm(kind, dict(tensors), part, config, torch.float16, True))
    return parts


@pytest.mark.parametrize("family", FAMILIES)
def test_a_files_weights_are_those_that_diffusers_loads_bit_for_bit(loaded, family):
    path, parts = loaded(family)
    wanted = reference(path, f"{path}.config", family)
    for mine, theirs in zip([parts.unet, parts.vae, *parts.text_encoders], wanted, strict=True):
        same(mine, theirs)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_tensor_of_the_file_is_somewhere(loaded, family):
    path, parts = loaded(family)
    kept = sum(
        tensor.double().sum().item()
        for model in (parts.unet, parts.vae, *parts.text_encoders)
        for tensor in model.state_dict().values()
    )
    unused = ("position_ids", "logit_scale", "cond_stage_model.model.transformer.resblocks.23.")
    unused += ("text_projection",) if family == "sd21" else ()
    tensors = load_file(path)
    assert kept == pytest.approx(
        sum(value.double().sum().item() for name, value in tensors.items() if not any(word in name for word in unused)),
        rel=1e-9,
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_network_has_as_many_modules_as_the_official_loras(loaded, family):
    network = loaded(family)[1].unet
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    names = [name for name, module in network.named_modules() if isinstance(module, kinds)]
    assert sum(not name.startswith(UNTRAINED) for name in names) == LORA_MODULES[family]


@pytest.mark.parametrize("family", FAMILIES)
def test_parts_run_frozen_and_in_evaluation_mode(loaded, family):
    parts = loaded(family)[1]
    for model in (parts.unet, parts.vae, *parts.text_encoders):
        assert not model.training and not any(p.requires_grad or p.is_meta for p in model.parameters())
    hidden = []
    for tokenizer, encoder in zip(parts.tokenizers, parts.text_encoders, strict=True):
        ids = tokenizer(["a cat"], padding="max_length", return_tensors="pt").input_ids
        encoder = type(encoder)(encoder.config).eval()  # a float copy: fp16 runs nowhere near as fast on a CPU
        out = encoder(ids, output_hidden_states=True)
        hidden.append(out.hidden_states[-2])
    context = torch.cat(hidden, -1)
    assert context.shape == (1, 77, parts.unet.config.cross_attention_dim)
    more = {"text_embeds": out[0], "time_ids": torch.zeros(1, 6)} if family == "sdxl" else None
    unet = type(parts.unet).from_config(parts.unet.config)
    with torch.no_grad():
        x = unet(torch.zeros(1, 4, 8, 8), torch.tensor([9]), context, added_cond_kwargs=more).sample
    assert x.shape == (1, 4, 8, 8)


@pytest.mark.parametrize(("dtype", "wanted"), [("bf16", torch.bfloat16), (torch.float32, torch.float32)])
def test_weights_in_another_number_format(checkpoint, dtype, wanted):
    path = checkpoint("sd15")
    found = inspect(path, f"{path}.config")
    network, stored = load_unet(found, dtype=dtype), load_file(path)
    assert {p.dtype for p in network.parameters()} == {wanted}
    assert torch.equal(network.conv_in.weight, stored[UNET + "input_blocks.0.0.weight"].to(wanted))
    encoders = load_encoders(found, dtype=dtype)
    assert encoders.vae.dtype == torch.float32 and encoders.text_encoders[0].dtype == wanted
    with pytest.raises(ValueError, match="dtype must be one of bf16, fp16, fp32"):
        load_vae(found, dtype="int8")


def test_loaded_weights_are_their_own_and_not_the_files(checkpoint, tmp_path):
    source = checkpoint("sd15")
    path = altered(source, tmp_path / "x.safetensors", lambda _: None)
    found = inspect(path, f"{source}.config")
    network = load_unet(found, dtype=None)
    before = network.conv_out.weight.clone()
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(network.conv_out.weight, before)
    with pytest.raises(ModelError):
        load_vae(found)


def test_clip_under_the_name_that_some_merges_give_it(checkpoint, tmp_path):
    source = checkpoint("sd15")

    def change(tensors):
        for name in [name for name in tensors if ".text_model." in name]:
            tensors[name.replace("text_model.", "")] = tensors.pop(name)

    path = altered(source, tmp_path / "x.safetensors", change)
    encoders = [load_encoders(inspect(p, f"{source}.config"), dtype=None).text_encoders[0] for p in (path, source)]
    same(*encoders)


def test_a_vae_whose_attention_is_of_matrices(checkpoint, tmp_path):
    source = checkpoint("sd15")

    def change(tensors):
        for name, value in tensors.items():
            if name.startswith(VAE) and ".attn_1." in name and value.ndim == 4:
                tensors[name] = value[:, :, 0, 0].contiguous()

    path = altered(source, tmp_path / "x.safetensors", change)
    same(*(load_vae(inspect(p, f"{source}.config"), dtype=None) for p in (path, source)))


def test_the_schedule_is_the_files_and_the_configs(checkpoint, tmp_path):
    path = checkpoint("sd21")
    found = inspect(path, f"{path}.config")
    alphas = DDIMScheduler(beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012).alphas_cumprod
    assert schedule(found).alpha_bar == pytest.approx(alphas.numpy(), rel=1e-5)
    assert schedule(found, zero_terminal_snr=True).alpha_bar[-1] == 0
    folder = small_config("sd21", tmp_path / "c")
    file = folder / "scheduler" / "scheduler_config.json"
    for kind, message in (("linear", None), ("squaredcos_cap_v2", "noise schedule is 'squaredcos_cap_v2'")):
        file.write_text(json.dumps({"beta_schedule": kind, "beta_start": 1e-4, "beta_end": 0.02}))
        found = inspect(path, folder)
        if message:
            with pytest.raises(ModelError, match=message):
                schedule(found)
        else:
            assert schedule(found).alpha_bar[0] == pytest.approx(1 - 1e-4)


def test_a_config_that_does_not_fit_is_refused(checkpoint, tmp_path):
    path = checkpoint("sd15")
    with pytest.raises(ModelError, match="of other sizes than its config has.*does not belong to these weights"):
        inspect(path, small_config("sd15", tmp_path / "wide", width=64))
    with pytest.raises(ModelError, match="unet/config.json is missing. It should be laid out as diffusers' folders"):
        inspect(path, tmp_path)
    with pytest.raises(ModelError, match="UNet's config makes no sense to UNet2DConditionModel"):
        skeleton("unet", {"block_out_channels": [32], "cross_attention_dim": 8})


def test_loading_draws_no_random_numbers(checkpoint):
    path = checkpoint("sd15")
    before = torch.get_rng_state()
    load(path, "sd15", config=f"{path}.config")
    assert torch.equal(before, torch.get_rng_state())


def test_the_recipes_family_is_checked_before_anything_is_loaded(checkpoint):
    path = checkpoint("sd15")
    with pytest.raises(ModelError, match="family is sdxl"):
        load(path, "sdxl", config=f"{path}.config")
    assert check(inspect(path, f"{path}.config"), "sd15")[0] == "epsilon"
