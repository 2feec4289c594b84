"""The host's final latents against diffusers' TCDScheduler: one closed-form network, the same noises."""

import itertools

import pytest
import torch
from host_support import reference
from host_support.reference import GAMMAS, STEPS, STRENGTHS, reference_accepts, relative_error, run_reference

CASES = reference.make_cases()
NOISES = reference.make_noises()


@pytest.fixture(scope="module")
def from_host(comfyui, tmp_path_factory) -> dict[str, torch.Tensor]:
    return reference.run_host(comfyui, CASES, NOISES, tmp_path_factory.mktemp("reference"))


def worst(from_host, float64_table: bool) -> tuple[float, str]:
    return max(
        (relative_error(from_host[case["name"]], run_reference(case, NOISES, float64_table)), case["name"])
        for case in CASES
    )


def test_every_pair_the_reference_accepts_is_covered():
    covered = {(c["gamma"], c["steps"], c["strength"]) for c in CASES if "times" not in c}
    accepted = {(n, s) for n, s in itertools.product(STEPS, STRENGTHS) if reference_accepts(n, s)}
    assert covered == {(g, *pair) for g in GAMMAS for pair in accepted} and len(accepted) == 20


def test_host_equals_diffusers_as_it_is(from_host):
    error, name = worst(from_host, float64_table=False)
    assert error <= 5e-5, name


def test_host_equals_diffusers_with_its_table_in_float64(from_host):
    error, name = worst(from_host, float64_table=True)
    assert error <= 1e-5, name
