"""A model's family and prediction are found, what is missing is named, and a recipe that means another is refused."""

import re

import pytest
import torch
from model_files import altered, few, hollow, without
from training_support.random_checkpoints import STANDARD, UNET, V_PROBE, small_config, tensor_shapes

from training.models import ModelError, check, inspect
from training.models.names import VAE

RECIPE = {"sd15": "sd15", "sd21": "sd21", "sdxl": "sdxl"}


def configs(path):
    return f"{path}.config"


@pytest.mark.parametrize(("family", "width", "size"), [("sd15", 768, 2.1), ("sd21", 1024, 2.6), ("sdxl", 2048, 6.9)])
def test_a_file_of_the_familys_own_sizes_is_known_by_its_header_alone(tmp_path, family, width, size):
    found = inspect(hollow(tmp_path / "model.safetensors", tensor_shapes(family, STANDARD / family)))
    assert found.family == family and found.dtype == "F16" and found.single
    assert f"attends to text {width} wide" in found.reason
    assert found.n_bytes / 1e9 == pytest.approx(size, abs=0.05)


@pytest.mark.parametrize("family", RECIPE)
def test_a_file_of_other_sizes_needs_its_configs(checkpoint, family):
    path = checkpoint(family)
    assert inspect(path, configs(path)).family == family
    with pytest.raises(ModelError, match=r"attends to text \d+ wide, where SD 1.5 has 768.*model\.config"):
        inspect(path)


def test_a_narrow_file_with_the_familys_text_width_is_told_to_bring_its_configs(tmp_path):
    shapes = tensor_shapes("sd15", STANDARD / "sd15")
    shapes[UNET + "input_blocks.0.0.weight"] = (160, 4, 3, 3)
    with pytest.raises(
        ModelError, match=r"UNet of other sizes.*input_blocks\.0\.0\.weight is \(160, 4, 3, 3\), \(320,"
    ):
        inspect(hollow(tmp_path / "x.safetensors", shapes))


# ---- prediction ----


@pytest.mark.parametrize(("v", "prediction"), [(False, "epsilon"), (True, "v_prediction")])
def test_sd21_is_told_by_the_spread_of_a_norm(checkpoint, v, prediction):
    path = checkpoint("sd21", v_prediction=v)
    found = inspect(path, configs(path))
    assert found.prediction == prediction and "by the spread of one of its norms" in found.reason


def test_sdxl_is_told_by_the_keys_that_v_models_have(checkpoint):
    plain, v = checkpoint("sdxl"), checkpoint("sdxl", v_prediction=True, zero_terminal_snr=True)
    assert inspect(plain, configs(plain)).prediction is None
    found = inspect(v, configs(v))
    assert (found.prediction, found.zero_terminal_snr) == ("v_prediction", True)
    assert check(found, "sdxl") == ("v_prediction", True)


@pytest.mark.parametrize(("said", "prediction"), [("v", "v_prediction"), ("epsilon", "epsilon"), ("?", None)])
def test_metadata_may_say_the_prediction(checkpoint, tmp_path, said, prediction):
    source = checkpoint("sd15")
    path = altered(source, tmp_path / "x.safetensors", lambda _: None, {"modelspec.prediction_type": said})
    assert inspect(path, configs(source)).prediction == prediction


def test_a_config_folder_may_say_the_prediction(checkpoint, tmp_path):
    folder = small_config("sd21", tmp_path / "c", prediction="v_prediction", zero_terminal_snr=True)
    found = inspect(checkpoint("sd21"), folder)
    assert (found.prediction, found.zero_terminal_snr) == ("v_prediction", True)


def test_the_familys_own_prediction_is_what_a_silent_file_gets(checkpoint):
    path = checkpoint("sd15")
    found = inspect(path, configs(path))
    assert found.prediction is None and check(found, "sd15") == ("epsilon", False)
    assert check(found, "sd15", "v_prediction", True) == ("v_prediction", True)


# ---- the recipe ----


@pytest.mark.parametrize(
    ("family", "recipe"), [("sd15", "sdxl"), ("sdxl", "sd15"), ("sd21", "sd15"), ("sd15", "sd21v")]
)
def test_another_family_than_the_recipes_is_refused_with_both_named(checkpoint, family, recipe):
    titles = {"sd15": "Stable Diffusion 1.5", "sd21": "Stable Diffusion 2.1", "sdxl": "Stable Diffusion XL"}
    path = checkpoint(family)
    found = inspect(path, configs(path))
    words = f"family is {recipe} .*{re.escape(str(path))} is a {titles[family]} model.*Use family {family}"
    with pytest.raises(ModelError, match=words):
        check(found, recipe)


@pytest.mark.parametrize(("v", "recipe", "other"), [(True, "sd21", "sd21v"), (False, "sd21v", "sd21")])
def test_another_prediction_than_the_recipes_is_refused_unless_insisted_upon(checkpoint, v, recipe, other):
    path = checkpoint("sd21", v_prediction=v)
    found = inspect(path, configs(path))
    own = "epsilon" if v else "v_prediction"
    with pytest.raises(
        ModelError, match=f"family is {recipe}, which means {own}.*Use family {other}.*prediction to {own}"
    ):
        check(found, recipe)
    assert check(found, recipe, own) == (own, False)
    assert check(found, other) == (found.prediction, False)
    with pytest.raises(ModelError, match=f"family {recipe} means {own}.*use family {other}"):
        check(found, recipe, found.prediction)


def test_zero_terminal_snr_with_epsilon_is_refused(checkpoint):
    path = checkpoint("sd15")
    with pytest.raises(ModelError, match="eps says nothing of the picture.*model.prediction to v_prediction"):
        check(inspect(path, configs(path)), "sd15", zero_terminal_snr=True)


# ---- what is missing ----


@pytest.mark.parametrize(
    ("family", "start", "message"),
    [
        (
            "sd15",
            UNET + "output_blocks.5.1.",
            r"26 of its UNet's tensors.*model\.diffusion_model\.output_blocks\.5\.1 \(26\)",
        ),
        (
            "sdxl",
            UNET + "middle_block.0.",
            r"of its UNet's tensors are missing, in model\.diffusion_model\.middle_block\.0",
        ),
        ("sdxl", UNET + "label_emb", r"4 of its UNet's tensors.*label_emb"),
        ("sd21", VAE + "decoder.up.2.block.1.", r"8 of its VAE's tensors.*first_stage_model\.decoder\.up\.2"),
        ("sd15", VAE, r"has no VAE \(first_stage_model\.….*encode pictures.*Load VAE.*Save Checkpoint"),
        ("sd15", "cond_stage_model", r"has no text encoder \(cond_stage_model\.transformer\.….*captions.*Load CLIP"),
        ("sdxl", "conditioner.embedders.1", r"has no second text encoder \(conditioner\.embedders\.1\.model\.…"),
        ("sd21", "cond_stage_model.model.transformer.resblocks.7.", r"16 of its text encoder's.*resblocks\.7 \(16\)"),
    ],
)
def test_a_missing_block_is_named(checkpoint, tmp_path, family, start, message):
    source = checkpoint(family)
    path = altered(source, tmp_path / "x.safetensors", without(start))
    with pytest.raises(ModelError, match=message):
        inspect(path, configs(source))


def test_a_missing_block_of_a_full_size_file_is_named(tmp_path):
    shapes = {k: v for k, v in tensor_shapes("sdxl", STANDARD / "sdxl").items() if ".middle_block." not in k}
    with pytest.raises(ModelError, match=r"of its UNet's tensors are missing, in model\.diffusion_model\.middle_block"):
        inspect(hollow(tmp_path / "x.safetensors", shapes))


def test_a_unet_with_more_than_the_family_has_is_refused(checkpoint, tmp_path):
    source = checkpoint("sd15")
    path = altered(
        source,
        tmp_path / "x.safetensors",
        lambda t: t.update({UNET + "time_embed.cond_proj.weight": torch.zeros(4, 4)}),
    )
    with pytest.raises(
        ModelError, match=r"no plain Stable Diffusion 1\.5 model: its UNet has 1 tensors more.*time_embed"
    ):
        inspect(path, configs(source))


def test_what_is_not_used_may_be_there_or_not(checkpoint, tmp_path):
    source = checkpoint("sd21")
    unused = "cond_stage_model.model.transformer.resblocks.23."  # SD 2.1 takes the last layer but one

    def change(tensors):
        without(unused)(tensors)
        tensors["model_ema.decay"] = torch.zeros(1)

    path = altered(source, tmp_path / "x.safetensors", change)
    assert inspect(path, configs(source)).fingerprint == inspect(source, configs(source)).fingerprint


def test_a_fingerprint_tells_weights_apart_and_not_copies(checkpoint, tmp_path):
    source = checkpoint("sd15")
    same = altered(source, tmp_path / "same.safetensors", lambda _: None)
    other = altered(source, tmp_path / "other.safetensors", lambda t: t[UNET + "out.2.bias"].add_(1))
    wanted = inspect(source, configs(source)).fingerprint
    assert inspect(same, configs(source)).fingerprint == wanted != inspect(other, configs(source)).fingerprint


# ---- what it is instead ----

WHOLE = r".*UNet, VAE and text encoder in one \.safetensors"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (["lora_unet_mid_block_attentions_0_proj_in.lora_down.weight"], "is a LoRA.*on top of a checkpoint" + WHOLE),
        (["unet.down_blocks.0.attentions.0.proj_in.lora_A.weight"], "is a LoRA" + WHOLE),
        (["control_model.input_blocks.0.0.weight"], "is a ControlNet" + WHOLE),
        (["emb_params"], "is a textual-inversion embedding" + WHOLE),
        (["clip_g", "clip_l"], "is a textual-inversion embedding"),
        (["model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight"], "is a Stable Diffusion 3 model.*sdxl can"),
        (["double_blocks.0.img_attn.qkv.weight"], "is a Flux model"),
        (["down_blocks.0.resnets.0.conv1.weight", "conv_in.weight"], "UNet of a diffusers folder.*model_index.json"),
        (["decoder.conv_in.weight", "encoder.conv_in.weight"], "is a VAE alone" + WHOLE),
        (["first_stage_model.decoder.conv_in.weight"], "is a VAE alone"),
        (["text_model.encoder.layers.0.mlp.fc1.weight"], "is a text encoder alone"),
        (["input_blocks.0.0.weight"], "is a UNet alone"),
        (["a.scaled_fp8", UNET + "out.2.bias"], "is a quantised model.*fp16, bf16 or fp32"),
        (["something.else"], "no checkpoint that is known here.*something.else"),
        ([], "holds no tensors"),
    ],
)
def test_another_kind_of_file_is_named_with_what_to_give(tmp_path, keys, message):
    with pytest.raises(ModelError, match=message):
        inspect(few(tmp_path / "x.safetensors", *keys))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"input_blocks.0.0.weight": (320, 9, 3, 3)}, "an inpainting model: its UNet takes 9 channels"),
        ({"input_blocks.0.0.weight": (320, 8, 3, 3)}, "editing by instructions: its UNet takes 8 channels"),
        ({"label_emb.0.0.weight": (1536, 2560)}, "is the SDXL refiner.*base"),
        ({"label_emb.0.0.weight": (1280, 1536)}, "unclip"),
        ({"time_embed.time_stack.0.weight": (1,)}, "is a video model"),
    ],
)
def test_another_kind_of_unet_is_named(tmp_path, changed, message):
    shapes = tensor_shapes("sd21", STANDARD / "sd21") | {UNET + key: shape for key, shape in changed.items()}
    with pytest.raises(ModelError, match=message):
        inspect(hollow(tmp_path / "x.safetensors", shapes))


@pytest.mark.parametrize("key", ["edm_vpred.sigma_max", "edm_mean"])
def test_an_edm_model_is_named(tmp_path, key):
    shapes = tensor_shapes("sdxl", STANDARD / "sdxl") | {key: ()}
    with pytest.raises(ModelError, match="is an EDM model"):
        inspect(hollow(tmp_path / "x.safetensors", shapes))


def test_the_probe_is_a_name_of_the_file():
    assert V_PROBE in tensor_shapes("sd21", STANDARD / "sd21")
