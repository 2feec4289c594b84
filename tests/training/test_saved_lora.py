"""The saved LoRA: kohya's keys with the true alpha, and the same weights through diffusers, peft and our own loader."""

import datetime
import math
from pathlib import Path

import pytest
import torch
from diffusers import StableDiffusionPipeline
from lora_files import make_unet, randomise
from lora_students import ALPHA, RANK, check_equal, deltas, student
from peft import LoraConfig, inject_adapter_in_model
from safetensors import safe_open
from safetensors.torch import load_file

from tcd_core.target_embedding import TargetTimeEmbedding
from training.lora_file import kohya_name, load_lora, lora_metadata, save_lora

WIDTH, EMBED = 32, 128  # of the small UNet: its first block's, and its time embedding's
FILE = "x.safetensors"
METADATA = {
    "title": "digits",
    "architecture": "tcd-digits/lora",
    "base_model": "tcd_digits",
    "prediction_type": "epsilon",
    "resolution": 8,
    "rank": RANK,
    "alpha": ALPHA,
    "form": "tcf1",
    "steps": 4,
    "gamma": 0.2,
    "cfg": 1.0,
    "training_span": "k=50, N=1000, s in [0, t_n]",
    "recipe_hash": "0123456789abcdef",
}


def through_diffusers(path: Path) -> dict[str, torch.Tensor]:
    """ΔW after the pipeline's own loader, which converts kohya's keys."""
    unet = make_unet()
    state, alphas = StableDiffusionPipeline.lora_state_dict(path.parent, weight_name=path.name)
    StableDiffusionPipeline.load_lora_into_unet(state, alphas, unet)
    return deltas(unet, "default_0")


@pytest.fixture
def target() -> TargetTimeEmbedding:
    torch.manual_seed(5)
    embedding = TargetTimeEmbedding(WIDTH, EMBED)
    torch.nn.init.normal_(embedding.linear_2.weight)
    return embedding


@pytest.mark.parametrize("config", [{}, {"use_rslora": True}, {"lora_alpha": RANK}], ids=["alpha", "rslora", "rank"])
def test_weights_come_out_equal_through_diffusers_peft_and_our_loader(tmp_path, config):
    network = student(**config)
    expected = deltas(network)
    save_lora(tmp_path / FILE, network, {}, "fp32")
    check_equal(through_diffusers(tmp_path / FILE), expected)
    bare = make_unet()
    load_lora(bare, tmp_path / FILE)
    check_equal(deltas(bare), expected)


def test_keys_are_kohya_s_and_alpha_is_the_true_one(tmp_path):
    network = student()
    save_lora(tmp_path / FILE, network, {}, "fp16")
    tensors = load_file(tmp_path / FILE)
    parts = ("lora_down.weight", "lora_up.weight", "alpha")
    assert set(tensors) == {f"{kohya_name(name)}.{part}" for name in deltas(network) for part in parts}
    assert "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q.lora_up.weight" in tensors
    assert {tensor.item() for key, tensor in tensors.items() if key.endswith(".alpha")} == {ALPHA}
    assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
    conv = network.get_submodule("down_blocks.0.resnets.0.conv1")
    stored = tensors["lora_unet_down_blocks_0_resnets_0_conv1.lora_down.weight"]
    torch.testing.assert_close(stored, conv.lora_A["default"].weight.detach().half(), rtol=0, atol=0)


def test_alpha_that_fp16_cannot_hold_is_float32(tmp_path):
    save_lora(tmp_path / FILE, student(lora_alpha=math.pi), {}, "fp16", alpha=math.pi)
    alpha = next(tensor for key, tensor in load_file(tmp_path / FILE).items() if key.endswith(".alpha"))
    assert alpha.dtype == torch.float32 and alpha.item() == pytest.approx(math.pi, rel=1e-7)


def test_fp16_file_is_the_rounded_weights(tmp_path):
    network = student()
    save_lora(tmp_path / FILE, network, {}, "fp16")
    other = student(seed=2)
    load_lora(other, tmp_path / FILE)
    check_equal(deltas(other), deltas(network), 1e-3)
    rounded = network.conv_in.lora_A["default"].weight.detach().half().float()
    torch.testing.assert_close(other.conv_in.lora_A["default"].weight.detach(), rounded, rtol=0, atol=0)


def test_loading_changes_the_network_s_output_and_keeps_its_adapter_switched_on(tmp_path):
    network, bare = student(), make_unet()
    save_lora(tmp_path / FILE, network, {}, "fp32")
    generator = torch.Generator().manual_seed(0)
    x, tokens = torch.randn(2, 4, 8, 8, generator=generator), torch.randn(2, 3, 768, generator=generator)
    with torch.no_grad():
        before = bare(x, 500, tokens).sample
        load_lora(bare, tmp_path / FILE)
        torch.testing.assert_close(bare(x, 500, tokens).sample, network(x, 500, tokens).sample)
        assert (before - bare(x, 500, tokens).sample).norm() > 1e-3 * before.norm()


def test_given_values_are_saved_in_place_of_the_live_ones(tmp_path):
    live, averaged = student(), student(seed=7)
    values = {name: p.detach().double() for name, p in averaged.named_parameters()}
    save_lora(tmp_path / FILE, live, {}, "fp32", values=values)
    check_equal(through_diffusers(tmp_path / FILE), deltas(averaged))
    del values["conv_in.lora_B.default.weight"]
    with pytest.raises(ValueError, match=r"values to save do not fit: conv_in\.lora_B\.default\.weight is missing"):
        save_lora(tmp_path / FILE, live, {}, values=values)
    values["conv_in.lora_B.default.weight"] = torch.zeros(2, 2)
    with pytest.raises(ValueError, match=r"has shape \(2, 2\), expected \(32, 4, 1, 1\)"):
        save_lora(tmp_path / FILE, live, {}, values=values)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_one_of_two_adapters_is_saved(tmp_path):
    network = student()
    inject_adapter_in_model(LoraConfig(r=2, lora_alpha=5, target_modules=["conv_in"]), network, "ema")
    randomise(network, 9)
    save_lora(tmp_path / FILE, network, {}, "fp32", adapter="ema")
    check_equal(through_diffusers(tmp_path / FILE), deltas(network, "ema"))


def test_different_ranks_and_alphas_survive(tmp_path):
    patterns = {"rank_pattern": {"conv_in": 2, "to_q": 6}, "alpha_pattern": {"to_k": 5, "conv_in": 7}}
    network, bare = student(**patterns), make_unet()
    save_lora(tmp_path / FILE, network, {}, "fp32")
    load_lora(bare, tmp_path / FILE, adapter="student")
    check_equal(deltas(bare, "student"), deltas(network))


@pytest.mark.parametrize(("dtype", "tolerance"), [("fp32", 0), ("fp16", 1e-3)])
def test_target_embedding_travels_in_the_file(tmp_path, target, dtype, tolerance):
    save_lora(tmp_path / FILE, student(), {"a": "b"}, dtype, target)
    loaded = load_lora(make_unet(), tmp_path / FILE)
    s = torch.tensor([0.0, 249.0])
    torch.testing.assert_close(loaded.target_embedding(s), target(s), rtol=tolerance, atol=10 * tolerance)
    assert loaded.metadata["a"] == "b"
    save_lora(tmp_path / FILE, student(), {})
    assert load_lora(make_unet(), tmp_path / FILE).target_embedding is None


def test_metadata_says_what_the_lora_is():
    metadata = lora_metadata(**METADATA, date="2026-01-02T03:04:05+00:00")
    assert metadata == {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": "tcd-digits/lora",
        "modelspec.implementation": "diffusers",
        "modelspec.title": "digits",
        "modelspec.date": "2026-01-02T03:04:05+00:00",
        "modelspec.prediction_type": "epsilon",
        "modelspec.resolution": "8x8",
        "ss_network_module": "networks.lora",
        "ss_network_dim": "4",
        "ss_network_alpha": "3.0",
        "ss_base_model_version": "tcd_digits",
        "tcd.form": "tcf1",
        "tcd.steps": "4",
        "tcd.gamma": "0.2",
        "tcd.cfg": "1.0",
        "tcd.training_span": "k=50, N=1000, s in [0, t_n]",
        "tcd.recipe_hash": "0123456789abcdef",
    }
    assert datetime.datetime.fromisoformat(lora_metadata(**METADATA)["modelspec.date"]).tzinfo is not None
    assert lora_metadata(**METADATA | {"prediction_type": "v_prediction"})["modelspec.prediction_type"] == "v"


def test_tcf2_form_is_told_where_there_is_one():
    metadata = lora_metadata(**METADATA | {"form": "tcf2", "tcf2_form": "epsilon"})
    assert (metadata["tcd.form"], metadata["tcd.tcf2_form"]) == ("tcf2", "epsilon")
    assert "tcd.tcf2_form" not in lora_metadata(**METADATA | {"tcf2_form": "epsilon"})
    with pytest.raises(ValueError, match="needs its tcf2_form"):
        lora_metadata(**METADATA | {"form": "tcf2"})
    with pytest.raises(ValueError, match="form must be tcf1, tcf2 or tcf_s_plus, got 'tcf3'"):
        lora_metadata(**METADATA | {"form": "tcf3"})


def test_metadata_is_in_the_file_s_header(tmp_path):
    metadata = lora_metadata(**METADATA)
    save_lora(tmp_path / FILE, student(), metadata)
    with safe_open(tmp_path / FILE, framework="pt") as file:
        assert file.metadata() == {**metadata, "format": "pt"}


@pytest.mark.parametrize("family", ["sd21v", "sdxl"])
def test_other_families_round_trip(tmp_path, family):
    network, bare = make_unet(family), make_unet(family)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2"]
    network.add_adapter(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=targets))
    randomise(network)
    save_lora(tmp_path / FILE, network, {}, "fp32")
    load_lora(bare, tmp_path / FILE)
    check_equal(deltas(bare), deltas(network))
