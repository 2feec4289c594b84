"""Sampler and scheduler `tcd` enter the host's lists once, and never in another pack's place."""

import json
from pathlib import Path

import pytest

DRIVER = Path(__file__).parent / "drivers" / "behaviour_registration_driver.py"
OURS, NOT_OURS, NONE = "ours", "another pack's", "none"


@pytest.fixture(scope="module")
def results(comfyui, tmp_path_factory) -> dict:
    file = tmp_path_factory.mktemp("registration") / "results.json"
    comfyui.run_driver(DRIVER, file)
    return json.loads(file.read_text())


def test_importing_the_pack_registers_nothing(results):
    """The host's entry point does: an import at any depth changes no list."""
    before = results["loaded"]
    assert before["samplers"] == before["schedulers"] == {"tcd": NONE, "tcd_toolkit": NONE}
    assert before["listed"]["samplers"] == before["listed"]["schedulers"] == {"tcd": 0, "tcd_toolkit": 0}


@pytest.mark.parametrize("how", ("once", "again"))
def test_registering_lists_tcd_once_however_often_it_is_done(results, how: str):
    after = results[how]
    assert all(answer == ["tcd", "tcd"] for answer in after["answers"])
    assert after["samplers"] == after["schedulers"] == {"tcd": OURS, "tcd_toolkit": NONE}
    assert after["listed"]["samplers"] == after["listed"]["schedulers"] == {"tcd": 1, "tcd_toolkit": 0}
    assert after["in KSampler"] == [1, 1]
    assert not [line for line in after["log"] if "another pack" in line]


@pytest.mark.parametrize("when", ("both taken", "taken afterwards"))
def test_another_pack_s_tcd_is_left_alone_and_the_log_says_so(results, when: str):
    """Packs load in no particular order: `register` looks again when the server starts."""
    after = results[when]
    assert set(map(tuple, after["answers"])) == {("tcd_toolkit", "tcd_toolkit")}
    assert after["samplers"] == after["schedulers"] == {"tcd": NOT_OURS, "tcd_toolkit": OURS}
    assert after["listed"]["samplers"] == after["listed"]["schedulers"] == {"tcd": 1, "tcd_toolkit": 1}
    for kind in ("sampler", "scheduler"):
        lines = [line for line in after["log"] if f"{kind} registered as 'tcd_toolkit'" in line]
        assert lines and all("'tcd' belongs to another pack and is left alone" in line for line in lines)


@pytest.mark.parametrize("taken, free", [("sampler", "scheduler"), ("scheduler", "sampler")])
def test_only_the_name_that_is_taken_changes(results, taken: str, free: str):
    after = results[f"{taken} taken"]
    assert after[f"{taken}s"] == {"tcd": NOT_OURS, "tcd_toolkit": OURS}
    assert after[f"{free}s"] == {"tcd": OURS, "tcd_toolkit": NONE}
    assert [line for line in after["log"] if "another pack" in line and line.startswith(f"TCD Toolkit: {taken}")]
    assert not [line for line in after["log"] if "another pack" in line and line.startswith(f"TCD Toolkit: {free}")]


def test_a_listed_name_without_a_function_is_another_pack_s_too(results):
    after = results["name taken"]
    assert after["answers"] == [["tcd_toolkit", "tcd"]]
    assert after["samplers"] == {"tcd": NONE, "tcd_toolkit": OURS}
    assert after["listed"]["samplers"] == {"tcd": 1, "tcd_toolkit": 1}
