"""Every LoRA format arrives complete and at PEFT's own scale; what does not belong to the model is refused."""

import dataclasses
import json

import pytest
import torch
from lora_files import (
    FORMATS,
    Adapter,
    diffusers_pipeline,
    kohya,
    ldm_name,
    make_adapter,
    make_unet,
    peft_pretrained,
    randomise,
    target_modules,
)
from peft import LoHaConfig, LoKrConfig, get_peft_model
from safetensors.torch import save_file
from support import load_pack_module

lora_format = load_pack_module("nodes.lora_format")
lora_keys = load_pack_module("nodes.lora_keys")
lora_shapes = load_pack_module("nodes.lora_shapes")
convert, read_lora_file = lora_format.convert, lora_format.read_lora_file

QUERY = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
CONV = "down_blocks.0.resnets.0.conv1"


def weight_key(module: str) -> str:
    return f"diffusion_model.{ldm_name(module)}.weight"


def host_view(unet):
    """What the host gives for a UNet: `model_lora_keys_unet`'s names (its rules, lora.py of 0.3.64) and shapes."""
    key_map, shapes = {}, {}
    modules = dict(unet.named_modules())
    for name in target_modules(unet):
        key, base = weight_key(name), modules[name]
        original, flat = ldm_name(name), name.replace(".", "_")
        shapes[key] = tuple(base.weight.shape)
        if base.bias is not None:
            shapes[key.replace(".weight", ".bias")] = tuple(base.bias.shape)
        processor = name.replace(".to_", ".processor.to_")
        processor = processor[:-2] if processor.endswith(".to_out.0") else processor
        names = [f"lora_unet_{original.replace('.', '_')}", f"diffusion_model.{original}"]
        names += [f"lora_unet_{flat}", f"lycoris_{flat}", processor, f"unet.{processor}"]
        key_map.update(dict.fromkeys(names, key))
    return key_map, shapes


def host_delta(tensors, name, shape):
    """ΔW as the host computes it (weight_adapter/lora.py): alpha / rank · up @ down, 1 without an alpha."""
    up, down = tensors[f"{name}.lora_up.weight"], tensors[f"{name}.lora_down.weight"]
    alpha = tensors.get(f"{name}.alpha")
    scale = 1.0 if alpha is None else alpha.item() / down.shape[0]
    return scale * (up.flatten(1).float() @ down.flatten(1).float()).reshape(shape)


def check_deltas(conversion, key_map, shapes, expected):
    """Every module of `expected` is in the conversion, once, with that ΔW."""
    found = {}
    for name in {key.removesuffix(".lora_up.weight") for key in conversion.tensors if key.endswith("lora_up.weight")}:
        found[key_map[name]] = host_delta(conversion.tensors, name, shapes[key_map[name]])
    assert found.keys() == {weight_key(module) for module in expected} == conversion.targets
    for module, delta in expected.items():
        torch.testing.assert_close(found[weight_key(module)], delta, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def unet():
    return make_unet()


@pytest.fixture(scope="module")
def host(unet):
    return host_view(unet)


@pytest.fixture(scope="module")
def adapter():
    return make_adapter(make_unet())


def linear(out=32, wide=32, rank=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(out, rank, generator=generator), torch.randn(rank, wide, generator=generator)


def lora(name=f"unet.{QUERY}", out=32, wide=32, rank=4):
    up, down = linear(out, wide, rank)
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


@pytest.mark.parametrize("name", FORMATS)
def test_every_module_arrives_with_peft_s_weight_change(name, adapter, host, tmp_path):
    file = FORMATS[name](adapter, tmp_path)
    expected = adapter.deltas(file.scaled)
    expected = {module: expected[module] for module in file.modules or expected}
    conversion = convert(*read_lora_file(file.path), *host)
    report = conversion.report
    assert (report.matched, report.modules, report.unmatched) == (len(expected), len(expected), ())
    assert report.ranks == (4,) and report.text_encoder == 0
    check_deltas(conversion, *host, expected)


@pytest.mark.parametrize("writer", [diffusers_pipeline, peft_pretrained], ids=lambda writer: writer.__name__)
@pytest.mark.parametrize(
    "settings",
    [
        {"rank_pattern": {QUERY: 8, "conv1": 2}, "alpha_pattern": {QUERY: 3, "attn2.to_.": 5}},
        {"alpha_pattern": {r".*attn2\.to_[qk]": 6}, "rank_pattern": {"ff.net.2": 6}},
        {"use_rslora": True},
        {"lora_alpha": 4},
    ],
    ids=["patterns", "regular expressions", "rank-stabilised", "alpha equals rank"],
)
def test_patterns_and_rank_stabilised_scales_are_peft_s(writer, settings, host, tmp_path):
    adapter = make_adapter(make_unet(), **settings)
    conversion = convert(*read_lora_file(writer(adapter, tmp_path).path), *host)
    check_deltas(conversion, *host, adapter.deltas())


@pytest.mark.parametrize("family", ["sd21v", "sdxl"])
def test_other_families_arrive_complete(family, tmp_path):
    adapter = make_adapter(make_unet(family))
    host = host_view(make_unet(family))
    conversion = convert(*read_lora_file(diffusers_pipeline(adapter, tmp_path).path), *host)
    check_deltas(conversion, *host, adapter.deltas())


@pytest.mark.parametrize(
    ("config", "factors"),
    [(LoHaConfig, {}), (LoKrConfig, {}), (LoKrConfig, {"decompose_both": True})],
    ids=["LoHa", "LoKr", "LoKr, both factors decomposed"],
)
def test_peft_s_loha_and_lokr_keep_their_scale(config, factors, unet, host, tmp_path):
    modules = [name for name in target_modules(unet) if ".attn" in name]
    model = get_peft_model(make_unet(), config(r=4, alpha=2, target_modules=modules, init_weights=False, **factors))
    randomise(model)
    model.save_pretrained(tmp_path)
    conversion = convert(*read_lora_file(tmp_path / "adapter_model.safetensors"), *host)
    assert conversion.report.matched == len(modules) == len(conversion.targets)
    layers = {name: layer for name, layer in model.named_modules() if hasattr(layer, "get_delta_weight")}
    for module in modules:
        parts = {k: v for k, v in conversion.tensors.items() if host[0][k.rpartition(".")[0]] == weight_key(module)}
        delta = other_delta({key.rpartition(".")[2]: value for key, value in parts.items()})
        torch.testing.assert_close(delta, layers[f"base_model.model.{module}"].get_delta_weight("default"))


def other_delta(p):
    """ΔW of LoHa and LoKr as the host computes it (weight_adapter/loha.py and lokr.py)."""
    if "hada_w1_a" in p:
        scale = p["alpha"].item() / p["hada_w1_b"].shape[0] if "alpha" in p else 1.0
        return scale * (p["hada_w1_a"] @ p["hada_w1_b"]) * (p["hada_w2_a"] @ p["hada_w2_b"])
    assert "alpha" not in p
    first = p["lokr_w1"] if "lokr_w1" in p else p["lokr_w1_a"] @ p["lokr_w1_b"]
    second = p["lokr_w2"] if "lokr_w2" in p else p["lokr_w2_a"] @ p["lokr_w2_b"]
    return torch.kron(first, second)


def test_other_kinds_pass_through_untouched(host):
    key_map, shapes = host
    name = "lora_unet_" + QUERY.replace(".", "_")
    up, down = linear()
    kinds = [
        {"hada_w1_a": up, "hada_w1_b": down, "hada_w2_a": up, "hada_w2_b": down, "alpha": torch.tensor(2.0)},
        {"lokr_w1": torch.randn(4, 4), "lokr_w2_a": torch.randn(8, 2), "lokr_w2_b": torch.randn(2, 8)},
        {"a1.weight": up, "a2.weight": down, "b1.weight": up, "b2.weight": down},
        {"oft_blocks": torch.randn(4, 8, 8), "alpha": torch.tensor(0.1)},
        {"oft_blocks": torch.randn(2, 4, 8, 8), "rescale": torch.ones(32, 1)},
        {"diff": torch.randn(32, 32)},
        {"set_weight": torch.randn(32, 32)},
        {"w_norm": torch.randn(32, 32)},
        {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": torch.ones(32, 1)},
        {"lora_up.weight": up, "lora_down.weight": down, "dora_scale": torch.ones(1, 32)},
    ]
    for parts in kinds:
        conversion = convert({f"{name}.{part}": tensor for part, tensor in parts.items()}, {}, key_map, shapes)
        assert conversion.report.matched == 1 and conversion.targets == {weight_key(QUERY)}
        assert {key: id(value) for key, value in conversion.tensors.items()} == {
            f"{name}.{part}": id(tensor) for part, tensor in parts.items()
        }


def test_locon_and_tucker_convolutions_are_measured_by_their_kernel(host):
    name = "lora_unet_" + CONV.replace(".", "_")
    cases = [
        {"lora_up.weight": torch.ones(32, 2, 1, 1), "lora_down.weight": torch.ones(2, 32, 3, 3)},
        {
            "lora_up.weight": torch.ones(32, 2, 1, 1),
            "lora_mid.weight": torch.ones(2, 2, 3, 3),
            "lora_down.weight": torch.ones(2, 32, 1, 1),
        },
        {f"hada_w{i}_{side}": torch.ones(2, 32) for i in (1, 2) for side in "ab"}
        | {f"hada_t{i}": torch.ones(2, 2, 3, 3) for i in (1, 2)},
        {"lokr_w1": torch.ones(4, 4), "lokr_w2": torch.ones(8, 8, 3, 3)},
        {"diff": torch.ones(32, 32, 3, 3), "diff_b": torch.ones(32)},
    ]
    for parts in cases:
        tensors = {f"{name}.{part}": tensor for part, tensor in parts.items()}
        assert convert(tensors, {}, *host).report.matched == 1
        smaller = {key: value[..., :1] if value.shape[-2:] == (3, 3) else value for key, value in tensors.items()}
        with pytest.raises(ValueError, match="the shapes differ in 1 of the 1 modules"):
            convert(smaller, {}, *host)


def test_linear_and_one_by_one_convolution_fit_each_other(host):
    key_map, shapes = host
    conv_shapes = {**shapes, weight_key(QUERY): (32, 32, 1, 1)}
    assert convert(lora(), {}, key_map, conv_shapes).report.matched == 1
    name = f"diffusion_model.{ldm_name(QUERY)}"
    assert convert({f"{name}.diff": torch.ones(32, 32)}, {}, key_map, conv_shapes).tensors[f"{name}.diff"].ndim == 4
    up, down = linear()
    dora = {f"{name}.lora_up.weight": up, f"{name}.lora_down.weight": down, f"{name}.dora_scale": torch.ones(32, 1)}
    assert convert(dora, {}, key_map, conv_shapes).tensors[f"{name}.dora_scale"].shape == (32, 1, 1, 1)


def test_bias_of_a_peft_lora_is_scaled_as_the_weight_is(host):
    tensors = lora(f"unet.{CONV}", wide=32 * 9) | {f"unet.{CONV}.lora_B.bias": torch.full((32,), 3.0)}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 2})}
    conversion = convert(tensors, metadata, *host)
    (bias,) = (value for key, value in conversion.tensors.items() if key.endswith(".diff_b"))
    torch.testing.assert_close(bias, torch.full((32,), 1.5))
    assert conversion.targets == {weight_key(CONV), weight_key(CONV).replace(".weight", ".bias")}


def test_alpha_tensors_win_over_metadata(host):
    tensors = lora() | {f"unet.{QUERY}.alpha": torch.tensor(8.0)}
    metadata = {"lora_adapter_metadata": json.dumps({"unet.r": 4, "unet.lora_alpha": 1})}
    conversion = convert(tensors, metadata, *host)
    assert [value.item() for key, value in conversion.tensors.items() if key.endswith(".alpha")] == [8.0]


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"unet.r": "four", "unet.lora_alpha": 2}',
        '{"unet.r": 4, "unet.lora_alpha": NaN}',
        '{"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": 3}',
        '{"unet.r": 4, "unet.lora_alpha": 2, "unet.alpha_pattern": {"(": 3}}',
    ],
)
def test_settings_that_cannot_be_understood_are_refused(text, host):
    with pytest.raises(ValueError, match="can't be understood .*strength is unknown|no regular expression: "):
        convert(lora(), {"lora_adapter_metadata": text}, *host)


def test_names_the_model_lacks_are_a_partial_match(host):
    tensors = lora() | lora("unet.mid_block.attentions.0.proj_in") | {"unet.conv_in.weight": torch.zeros(2)}
    report = convert(tensors, {}, *host).report
    assert (report.matched, report.modules) == (1, 3)
    assert report.unmatched == ("unet.mid_block.attentions.0.proj_in", "unet.conv_in.weight")
    assert "matched 1 of 3 modules" in report.text("x.safetensors", 1.0)
    assert "not in this model (2): unet.mid_block.attentions.0.proj_in" in report.text("x.safetensors", 1.0)


@pytest.mark.parametrize(
    "prefix",
    [
        "lora_te_text_model_encoder_layers_0_mlp_fc1",
        "lora_te2_text_model_encoder_layers_0_mlp_fc1",
        "text_encoder.text_model.encoder.layers.0.mlp.fc1",
        "text_encoder_2.text_model.encoder.layers.0.mlp.fc1",
        "base_model.model.text_model.encoder.layers.0.mlp.fc1",
    ],
)
def test_text_encoders_are_counted_apart(prefix, host):
    report = convert(lora() | lora(prefix, 64, 64), {}, *host).report
    assert (report.matched, report.modules, report.text_encoder, report.unmatched) == (1, 1, 1, ())
    assert "for text encoders (1 modules): not applied" in report.text("x", 1.0)
    with pytest.raises(ValueError, match="changes only text encoders .* use ComfyUI's Load LoRA"):
        convert(lora(prefix, 64, 64), {}, *host)


def test_nothing_that_matches_is_refused(host):
    with pytest.raises(
        ValueError, match=r"none of the file's 1 modules .* first names: transformer\.blocks\.0\.attn\.to_q"
    ):
        convert(lora("transformer.blocks.0.attn.to_q"), {}, *host)
    with pytest.raises(ValueError, match="holds no LoRA modules"):
        convert({}, {}, *host)
    with pytest.raises(ValueError, match="none of the file's 1 modules"):
        convert({"first_stage_model.decoder.conv_in.weight": torch.zeros(2, 2)}, {}, *host)


@pytest.mark.parametrize(
    ("made_for", "used_on", "message"),
    [
        ("sdxl", "sd15", "made for SDXL: cross-attention 2048 wide; this model is SD 1.5: 768"),
        ("sd15", "sd21v", "made for SD 1.5: cross-attention 768 wide; this model is SD 2.x: 1024"),
        ("sd21v", "sdxl", "made for SD 2.x: cross-attention 1024 wide; this model is SDXL: 2048"),
    ],
)
@pytest.mark.parametrize("writer", [diffusers_pipeline, kohya], ids=lambda writer: writer.__name__)
def test_other_families_are_refused_by_their_cross_attention(made_for, used_on, message, writer, tmp_path):
    modules = [name for name in target_modules(make_unet(made_for)) if "attn2" in name]
    file = writer(make_adapter(make_unet(made_for), modules), tmp_path)
    with pytest.raises(ValueError, match=message):
        convert(*read_lora_file(file.path), *host_view(make_unet(used_on)))


def test_family_is_seen_in_loha_and_lokr_and_for_unknown_widths(host):
    name = "lora_unet_somewhere_attn2_to_k"
    loha = {f"{name}.hada_w{i}_a": torch.ones(32, 4) for i in (1, 2)}
    loha |= {f"{name}.hada_w{i}_b": torch.ones(4, 1280) for i in (1, 2)}
    with pytest.raises(ValueError, match="another family: cross-attention 1280 wide; this model is SD 1.5: 768"):
        convert(loha | lora(), {}, *host)
    lokr = {f"{name}.lokr_w1": torch.ones(4, 4), f"{name}.lokr_w2": torch.ones(8, 512)}
    with pytest.raises(ValueError, match="made for SDXL: cross-attention 2048 wide"):
        convert(lokr, {}, *host)


def test_one_module_of_another_shape_refuses_the_file(adapter, host, tmp_path):
    tensors, metadata = read_lora_file(kohya(adapter, tmp_path).path)
    tensors["lora_unet_conv_in.lora_down.weight"] = torch.ones(4, 9, 3, 3)
    with pytest.raises(ValueError, match=r"differ in 1 of the \d+ .* lora_unet_conv_in .*\(4, 9, .*\(32, 4, 3, 3\)"):
        convert(tensors, metadata, *host)


@pytest.mark.parametrize(
    "parts",
    [
        {"lora_up.weight": (32, 4), "lora_down.weight": (3, 32)},
        {"lora_up.weight": (31, 4), "lora_down.weight": (4, 32)},
        {"lora_up.weight": (32,), "lora_down.weight": (4, 32)},
        {"hada_w1_a": (32, 2), "hada_w1_b": (2, 31), "hada_w2_a": (32, 2), "hada_w2_b": (2, 31)},
        {"hada_w1_a": (32, 2), "hada_w1_b": (3, 32), "hada_w2_a": (32, 2), "hada_w2_b": (2, 32)},
        {"lokr_w1": (4, 4), "lokr_w2": (8, 9)},
        {"a1.weight": (31, 2), "a2.weight": (2, 31), "b1.weight": (31, 2), "b2.weight": (2, 31)},
        {"oft_blocks": (3, 8, 8)},
        {"diff": (32, 33)},
        {"diff": (16, 64)},
        {"set_weight": (64,)},
        {"lora_up.weight": (32, 4), "lora_down.weight": (4, 32), "dora_scale": (7, 1)},
    ],
)
def test_every_kind_s_shape_is_checked(parts, host):
    tensors = {f"unet.{QUERY}.{part}": torch.ones(shape) for part, shape in parts.items()}
    with pytest.raises(ValueError, match="the shapes differ in 1 of the 1 modules"):
        convert(tensors, {}, *host)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"lora_up.weight": (32, 4)}, "incomplete: .* lacks lora_down.weight"),
        ({"lora_down.weight": (4, 32), "alpha": ()}, "lacks lora_up.weight"),
        ({"hada_w1_a": (32, 4), "hada_w1_b": (4, 32)}, "lacks hada_w2_a, hada_w2_b"),
        ({"lokr_w1": (4, 4), "lokr_w2_a": (8, 2)}, "lacks lokr_w2_b"),
        ({"a1.weight": (32, 4)}, "lacks a2.weight"),
        ({"lora_up.weight": (32, 0), "lora_down.weight": (0, 32)}, "empty tensor"),
        ({"lora_up.weight": (32, 4), "lora_down.weight": (4, 32), "alpha": (2,)}, "alpha of shape"),
        ({"lora_up.weight": (32, 4), "lora_down.weight": (4, 32), "diff": (32, 32)}, "holds lora and diff"),
        ({"lora_up.weight": (32, 4), "lora_B.weight": (32, 4), "lora_A.weight": (4, 32)}, "two tensors for lora_up"),
    ],
)
def test_inconsistent_files_are_refused(parts, message, host):
    tensors = {f"unet.{QUERY}.{part}": torch.ones(shape) for part, shape in parts.items()}
    with pytest.raises(ValueError, match=message):
        convert(tensors, {}, *host)


def test_two_loras_in_one_file_are_refused(host):
    both = lora() | lora(f"diffusion_model.{ldm_name(QUERY)}")
    with pytest.raises(ValueError, match="change the same weight: the file mixes two LoRAs"):
        convert(both, {}, *host)


def test_peft_s_dora_is_refused_in_a_sentence(host, tmp_path):
    adapter = make_adapter(make_unet(), [QUERY], use_dora=True)
    with pytest.raises(ValueError, match="is a DoRA in PEFT's form .* merge the adapter"):
        convert(*read_lora_file(diffusers_pipeline(adapter, tmp_path).path), *host)


def test_parts_of_a_fused_weight_are_matched_and_measured():
    """SD3's query, key and value are thirds of one weight in the host: (key, (dimension, start, length))."""
    key = "diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"
    key_map = {f"transformer.blocks.0.to_{name}": (key, (0, 64 * i, 64)) for i, name in enumerate("qkv")}
    tensors = {}
    for name in "qkv":
        tensors |= lora(f"base_model.model.blocks.0.to_{name}", 64, 64)
    conversion = convert(tensors, {}, key_map, {key: (192, 64)})
    assert conversion.targets == set(key_map.values())
    assert {key.rpartition(".lora")[0] for key in conversion.tensors} == set(key_map)
    wide = lora("transformer.blocks.0.to_q", 192, 64)
    with pytest.raises(ValueError, match=r"the shapes differ.*\(64, 64\)"):
        convert(wide, {}, key_map, {key: (192, 64)})


def test_packed_weights_are_not_compared(host):
    key_map, shapes = host
    assert convert(lora(out=7), {}, key_map, {**shapes, weight_key(QUERY): None}).report.matched == 1


def test_report_tells_what_the_file_recommends(adapter, host, tmp_path):
    tensors, metadata = read_lora_file(kohya(adapter, tmp_path).path)
    report = convert(tensors, {**metadata, "modelspec.architecture": "stable-diffusion-v1/lora"}, *host).report
    assert report.recommended == {"steps": "4", "gamma": "0.3", "cfg": "1.0"}
    count = report.modules
    assert report.text("tcd.safetensors", 0.8).splitlines() == [
        "tcd.safetensors: kohya, rank 4",
        f"matched {count} of {count} modules, strength 0.8",
        "ss_base_model_version: sd_v1",
        "modelspec.architecture: stable-diffusion-v1/lora",
        "recommended by the file: steps 4, gamma 0.3, cfg 1.0",
    ]
    assert "(nothing applied)" in report.text("x", 0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.matched = 0


@pytest.mark.parametrize(
    ("metadata", "lines", "tcf2_form"),
    [
        ({}, [], None),
        ({"tcd.form": "tcf1"}, ["distilled with TCF(1)"], None),
        ({"tcd.form": "tcf1", "tcd.tcf2_form": "epsilon"}, ["distilled with TCF(1)"], None),
        ({"tcd.form": "tcf_s_plus"}, ["distilled with TCF(S+)"], None),
        ({"tcd.form": "later"}, ["distilled with later"], None),
        ({"tcd.form": "tcf2"}, ["distilled with TCF(2): sample it with order 2"], None),
        ({"tcd.form": "tcf2", "tcd.tcf2_form": "x"}, ["distilled with TCF(2): sample it with order 2"], None),
        (
            {"tcd.form": "tcf2", "tcd.tcf2_form": "epsilon"},
            ["distilled with TCF(2): sample it with order 2, which then takes its epsilon form"],
            "epsilon",
        ),
        (
            {"tcd.training_span": "k=50, N=1000, s in [0, t_n]", "tcd.recipe_hash": "0123456789abcdef"},
            ["trained over k=50, N=1000, s in [0, t_n]", "recipe 0123456789ab"],
            None,
        ),
    ],
)
def test_report_tells_how_the_file_was_distilled(host, metadata, lines, tcf2_form):
    report = convert(lora(), metadata, *host).report
    assert report.text("x", 1.0).splitlines()[3:-1] == lines  # after file, count and a missing alpha
    assert report.tcf2_form == tcf2_form


def test_report_without_metadata_and_with_many_unknown_names(host):
    tensors = lora()
    for index in range(30):
        tensors |= lora(f"unet.nowhere.{index}")
    text = convert(tensors, {"ss_base_model_version": "x" * 500}, *host).report.text("x", 1.0)
    assert "the file recommends no settings" in text and "and 20 more" in text
    assert max(map(len, text.splitlines())) < 400


def test_target_time_embedding_is_no_module(host):
    embedding = load_pack_module("tcd_core.target_embedding").TargetTimeEmbedding(32, 128)
    conversion = convert(lora() | embedding.state_dict_for_file(), {}, *host)
    assert conversion.report.target_embedding and conversion.report.modules == 1
    assert not any("target_embedding" in key for key in conversion.tensors)
    assert "TCF(S+)" in conversion.report.text("x", 1.0)


def test_file_with_788_modules_is_converted(tmp_path):
    """As many as the SDXL TCD LoRA has."""
    names = [f"unet.blocks.{index}.to_q" for index in range(788)]
    shapes = {f"diffusion_model.{name[5:]}.weight": (8, 8) for name in names}
    key_map = {f"lora_unet_{name[5:].replace('.', '_')}": f"diffusion_model.{name[5:]}.weight" for name in names}
    tensors = {}
    for name in names:
        tensors |= lora(name, 8, 8, 1)
    save_file(tensors, tmp_path / "x.safetensors")
    report = convert(*read_lora_file(tmp_path / "x.safetensors"), key_map, shapes).report
    assert report.matched == report.modules == 788


def test_adapter_helper_makes_a_scale_other_than_one(adapter):
    assert isinstance(adapter, Adapter)
    module = next(iter(adapter.deltas()))
    torch.testing.assert_close(adapter.deltas(False)[module], 2 * adapter.deltas()[module])
