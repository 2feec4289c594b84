"""Which target time a TCF(S+) network is told, and what the patch does to the time embedding; no host needed."""

import copy

import pytest
import torch
from support import load_pack_module

target_patch = load_pack_module("nodes.target_patch")
TargetTimeEmbedding = load_pack_module("tcd_core.target_embedding").TargetTimeEmbedding


def time_of(sigma):
    return 100.0 * sigma


def options(sigma, sigmas=(4.0, 3.0, 1.5, 0.0), **more):
    return {"sigmas": torch.full((2,), sigma), "sample_sigmas": torch.tensor(sigmas), **more}


@pytest.fixture
def patch():
    torch.manual_seed(0)
    embedding = TargetTimeEmbedding(32, 64)
    torch.nn.init.normal_(embedding.linear_2.weight)
    return target_patch.TargetTimePatch(embedding, 0.5, time_of)


@pytest.mark.parametrize(
    ("sigma", "expected"),
    [(4.0, 300.0), (3.0, 150.0), (1.5, 0.0), (2.0, 150.0), (9.0, 400.0), (3.0000002, 150.0)],
    ids=["first", "middle", "last", "between", "above", "rounded"],
)
def test_without_the_sampler_s_word_s_is_the_next_lower_sigma_s_time(sigma, expected):
    assert target_patch.target_time(options(sigma), time_of) == pytest.approx(expected)


def test_evaluation_at_the_last_sigma_aims_at_itself():
    assert target_patch.target_time(options(1.5, (4.0, 1.5)), time_of) == pytest.approx(150.0)
    assert target_patch.target_time(options(1.0, (4.0, 1.5)), time_of) == pytest.approx(100.0)


def test_the_sampler_s_word_counts_first():
    assert target_patch.target_time(options(3.0, tcd_target_time=42.0), time_of) == 42.0
    assert target_patch.target_time({"tcd_target_time": 0.0}, time_of) == 0.0


@pytest.mark.parametrize("missing", ["sigmas", "sample_sigmas"])
def test_nothing_to_go_by_is_an_error_that_says_what_to_do(missing):
    given = {key: value for key, value in options(3.0).items() if key != missing}
    with pytest.raises(RuntimeError, match="Use sampler tcd"):
        target_patch.target_time(given, time_of)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_adds_strength_times_the_embedding_in_float32(patch, dtype):
    emb = torch.randn(3, 64).to(dtype)
    result = patch(emb, 32, {"tcd_target_time": 123.0})
    expected = (emb.float() + 0.5 * patch.embedding(torch.tensor([123.0]))).to(dtype)
    assert result.dtype == dtype and not result.requires_grad
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_copies_share_weights_and_moves_leave_them(patch):
    copied = copy.deepcopy({"patches": [patch]})["patches"][0]
    assert copied is not patch and copied.embedding is patch.embedding
    assert patch.to(torch.bfloat16) is patch and patch.to("cpu") is patch
    moved = patch.to(torch.device("meta"))
    assert moved.embedding.linear_2.weight.is_meta and not patch.embedding.linear_2.weight.is_meta
    assert moved.strength == patch.strength and moved.time_of is patch.time_of
