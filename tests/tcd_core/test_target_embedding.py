"""The target-time embedding of TCF(S+): diffusers' sinusoid, the teacher at the start, a round trip through a file."""

import pytest
import torch
from diffusers.models.embeddings import Timesteps

from tcd_core.target_embedding import TARGET_EMBEDDING_PREFIX, TargetTimeEmbedding, sinusoidal_embedding


def trained(channels=32, embed_dim=64, seed=0):
    """An embedding whose every parameter is random, as after training."""
    torch.manual_seed(seed)
    module = TargetTimeEmbedding(channels, embed_dim)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return module


@pytest.mark.parametrize("channels", [2, 32, 320])
def test_sinusoid_is_the_one_of_diffusers(channels):
    s = torch.tensor([0.0, 1.0, 62.5, 249.0, 999.0])
    reference = Timesteps(channels, flip_sin_to_cos=True, downscale_freq_shift=0)(s)
    torch.testing.assert_close(sinusoidal_embedding(s, channels), reference, rtol=0, atol=1e-6)


def test_starts_from_the_teacher():
    output = TargetTimeEmbedding(32, 64)(torch.tensor([0.0, 500.0, 999.0]))
    assert output.shape == (3, 64)
    assert torch.count_nonzero(output) == 0


def test_gradient_reaches_the_last_layer_at_the_start():
    module = TargetTimeEmbedding(32, 64)
    module(torch.tensor([300.0])).sum().backward()
    assert module.linear_2.weight.grad.abs().max() > 0


def test_equals_the_plain_layers():
    module, s = trained(), torch.tensor([3.0, 700.5])
    plain = module.linear_2(torch.nn.functional.silu(module.linear_1(sinusoidal_embedding(s, 32))))
    torch.testing.assert_close(module(s), plain, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64, torch.float16])
def test_time_may_have_any_dtype(dtype):
    module = trained()
    torch.testing.assert_close(module(torch.tensor([640], dtype=dtype)), module(torch.tensor([640.0])))


def test_arithmetic_is_float32_in_half_precision_and_under_autocast():
    module, s = trained(), torch.tensor([123.0, 999.0])
    expected = module(s)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.testing.assert_close(module(s), expected, rtol=0, atol=0)
    half = module.half()(s)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=5e-3)


def test_round_trip_through_a_file_infers_the_sizes():
    module, s = trained(32, 96), torch.tensor([5.0, 400.0])
    tensors = module.state_dict_for_file()
    assert set(tensors) == {
        f"{TARGET_EMBEDDING_PREFIX}{name}"
        for name in ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")
    }
    again = TargetTimeEmbedding.from_state_dict({**tensors, "lora_unet_x.alpha": torch.tensor(1.0)})
    assert (again.channels, again.embed_dim) == (32, 96)
    torch.testing.assert_close(again(s), module(s), rtol=0, atol=0)


def test_half_precision_file_is_read_as_float32():
    tensors = trained().state_dict_for_file(torch.float16)
    assert all(tensor.dtype == torch.float16 for tensor in tensors.values())
    assert TargetTimeEmbedding.from_state_dict(tensors).linear_1.weight.dtype == torch.float32


def test_missing_and_unknown_tensors_are_named():
    tensors = trained().state_dict_for_file()
    tensors[TARGET_EMBEDDING_PREFIX + "linear_3.weight"] = tensors.pop(TARGET_EMBEDDING_PREFIX + "linear_2.bias")
    with pytest.raises(ValueError, match=r"missing: linear_2\.bias; unknown: linear_3\.weight"):
        TargetTimeEmbedding.from_state_dict(tensors)
    with pytest.raises(ValueError, match="missing: linear_1.weight"):
        TargetTimeEmbedding.from_state_dict({})


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("linear_1.weight", (64,)),
        ("linear_1.weight", ()),
        ("linear_1.weight", (64, 31)),
        ("linear_1.weight", (64, 0)),
        ("linear_1.bias", (63,)),
        ("linear_2.weight", (64, 32)),
        ("linear_2.bias", (64, 1)),
    ],
)
def test_misshaped_tensors_are_refused(name, shape):
    tensors = trained().state_dict_for_file()
    tensors[TARGET_EMBEDDING_PREFIX + name] = torch.zeros(shape)
    with pytest.raises(ValueError, match="do not fit together"):
        TargetTimeEmbedding.from_state_dict(tensors)


@pytest.mark.parametrize(("channels", "embed_dim"), [(0, 64), (31, 64), (32, 0), (-2, 64)])
def test_impossible_sizes_are_refused(channels, embed_dim):
    with pytest.raises(ValueError, match="channels must be even and positive"):
        TargetTimeEmbedding(channels, embed_dim)


@pytest.mark.parametrize("s", [torch.tensor(3.0), torch.zeros(2, 1)])
def test_times_of_another_shape_are_refused(s):
    with pytest.raises(ValueError, match="one time per sample"):
        TargetTimeEmbedding(32, 64)(s)
