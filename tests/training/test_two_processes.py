"""Two processes compute what one does, and write what one does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from training_support import two_processes
from training_support.tiny import differing, fresh_accelerator

from training import checkpoint

CASES = list(two_processes.CASES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What two processes left behind, started as a user starts them."""
    folder = tmp_path_factory.mktemp("two_processes")
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--main_process_port", "0", two_processes.__file__, str(folder)]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    finished = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """The same by this one process: case → (what it saw, all that was trained)."""
    folder = tmp_path_factory.mktemp("alone")
    return {case: two_processes.distil(case, folder, fresh_accelerator()) for case in CASES}


def seen_by(folder: Path, case: str) -> list[dict]:
    return [json.loads((folder / f"{case}_process_{i}.json").read_text()) for i in (0, 1)]


def states(folder: Path, case: str) -> list[dict]:
    return [torch.load(folder / f"{case}_process_{i}.pt", weights_only=True) for i in (0, 1)]


@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_single_processs_for_the_same_global_batch(case, folder, alone):
    expected = alone[case][0]["losses"]
    for index, seen in enumerate(seen_by(folder, case)):
        assert (seen["processes"], seen["index"]) == (2, index)
        assert len(expected) == 6 and seen["losses"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_both_processes_hold_the_same_weights_and_averages_to_the_bit(case, folder, alone):
    first, second = states(folder, case)
    assert not differing(first, second)
    assert first.keys() == alone[case][1].keys()


@pytest.mark.parametrize("case", CASES)
def test_one_checkpoint_is_written_for_both(case, folder):
    assert [path.name for path in (folder / case).iterdir()] == ["step_00000006.pt"]
    _, state = checkpoint.newest(folder / case)
    first, _ = states(folder, case)
    assert not differing(state["weights"], {name: first[name] for name in state["weights"]})


def test_both_stop_where_one_is_asked_to_and_one_process_can_go_on(folder, alone):
    case, stopped = two_processes.STOPPED, folder / "stopped"
    assert [seen["updates"] for seen in seen_by(stopped, case)] == [3, 3]
    assert [path.name for path in (stopped / case).iterdir()] == ["step_00000003.pt"]
    seen, _ = two_processes.distil(case, stopped, fresh_accelerator())
    assert seen["losses"] == pytest.approx(alone[case][0]["losses"], rel=1e-4, abs=1e-6)
