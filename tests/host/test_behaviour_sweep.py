"""Every scheduler of the host is safe at every gamma and order on every kind of model; noises are independent."""

import json
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "drivers" / "behaviour_sweep_driver.py"
STOCK = {"simple", "sgm_uniform", "karras", "exponential", "ddim_uniform", "beta", "normal"}
STOCK |= {"linear_quadratic", "kl_optimal"}


@pytest.fixture(scope="module")
def results(comfyui, tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("sweep") / "results.json"
    comfyui.run_driver(DRIVER, file)
    return json.loads(file.read_text())


def test_no_step_aims_above_its_next_sigma_or_changes_the_noise_level(results):
    """Ten kinds of model × the host's schedulers × 1, 4 and 13 steps × 5 gammas × 3 orders; coefficients finite."""
    schedulers, not_finite = (results["plans"][name] for name in ("schedulers", "not finite"))
    assert {*STOCK, "tcd"} <= set(schedulers)
    assert set(not_finite) <= {"kl_optimal, 1 steps"}  # the host divides by zero there
    assert results["plans"]["count"] == 10 * (len(schedulers) * 3 - len(not_finite)) * 5 * 3
    assert results["plans"]["wrong"] == []


def test_every_scheduler_samples_finite_latents_at_every_gamma(results):
    assert results["samples"]["count"] == 4 * len(results["plans"]["schedulers"]) * 5
    assert results["samples"]["wrong"] == []


@pytest.mark.parametrize("run", ("0", "7", str(2**64 - 1), "sigmas above the model's"))
def test_no_noise_of_a_run_is_used_twice(results, run: str):
    """Neither the initial noise nor another step's or item's; what is left of ς_0 makes up to 0.1 (1: the same)."""
    assert results["noises"][run] < 0.2


def test_items_of_any_size_are_the_same_alone(results):
    """Item numbers from batch_index, in any order, repeated too; 520 × 520 pixels (65 × 65) among the sizes."""
    assert len(results["batches"]) == 20
    assert {name: error for name, error in results["batches"].items() if error > 1e-5} == {}
