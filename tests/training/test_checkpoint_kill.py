"""Checkpoints of processes that are killed, or stopped by the system, in the middle of a save."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from training.checkpoint import newest, save

REPOSITORY = Path(__file__).parents[2]


def state_of(step: int, size: int) -> dict:
    return {"step": step, "weights": torch.full((size,), float(step))}


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def is_whole(found) -> bool:
    path, state = found
    step = state["step"]
    return path.name == f"step_{step:08d}.pt" and bool((state["weights"] == step).all())


class Children:
    """Processes that have imported torch already: a server forks one per request (see `serve`)."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, __file__]
        self.server = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, task: str, folder: Path) -> int:
        self.server.stdin.write(f"{task} {folder}\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())

    def wait(self, pid: int, limit: float = 10) -> None:
        until = time.monotonic() + limit
        while time.monotonic() < until:
            try:
                os.kill(pid, 0)
            except ProcessLookupError:
                return
            time.sleep(0.001)
        raise AssertionError(f"process {pid} is still there after {limit} s")

    def close(self):
        self.server.communicate()


@pytest.fixture(scope="module")
def children():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    server = Children()
    yield server
    server.close()


def wait_for(condition, limit: float = 10):
    until = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < until, "nothing happened in time"
        time.sleep(0.001)
    return value


def test_killed_at_any_moment_the_newest_is_whole_and_one_of_the_saved(children, tmp_path):
    chance, done, left_overs, before = random.Random(1), 0, 0, 0
    for _ in range(24):
        pid = children.start("save_for_ever", tmp_path)
        wait_for(lambda done=done: log_of(tmp_path)[-1:] > [done])
        time.sleep(chance.uniform(0, 0.03))
        os.kill(pid, signal.SIGKILL)
        children.wait(pid)
        done = log_of(tmp_path)[-1]
        left_overs += any(name.endswith(".tmp") for name in saved(tmp_path))
        found = newest(tmp_path)
        assert is_whole(found)
        assert found[1]["step"] in (done, done + 1) and found[1]["step"] > before
        before = found[1]["step"]
    assert left_overs > 5, "the kills missed the writes: this test tests nothing"
    save(tmp_path, before + 1, state_of(before + 1, size=10), keep=2)
    assert not any(name.endswith(".tmp") for name in saved(tmp_path))


def test_a_file_size_limit_of_the_system_is_reported_like_a_full_disk(children, tmp_path):
    children.wait(children.start("save_over_a_limit", tmp_path))
    words = (tmp_path / "outcome").read_text()
    assert "CheckpointError" in words and "step 2 was not written: File too large" in words
    assert f"The last good one is {tmp_path / 'step_00000001.pt'}" in words
    assert newest(tmp_path)[1]["step"] == 1
    assert saved(tmp_path) == ["outcome", "step_00000001.pt"]


def log_of(folder: Path) -> list[int]:
    log = folder / "log"
    return [int(line) for line in log.read_text().splitlines()] if log.exists() else []


def save_for_ever(folder: Path) -> None:
    found = newest(folder)
    for step in range(found[1]["step"] + 1 if found else 1, 10**6):
        save(folder, step, state_of(step, size=50_000), keep=2)
        with open(folder / "log", "a") as log:
            log.write(f"{step}\n")


def save_over_a_limit(folder: Path) -> None:
    import resource

    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    save(folder, 1, state_of(1, size=10), keep=2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
    try:
        save(folder, 2, state_of(2, size=100_000), keep=2)
    except Exception as error:
        (folder / "outcome").write_text(repr(error))


def serve(tasks: dict) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    for line in sys.stdin:
        task, _, folder = line.strip().partition(" ")
        pid = os.fork()
        if pid == 0:
            try:
                tasks[task](Path(folder))
            finally:
                os._exit(0)
        print(pid, flush=True)


if __name__ == "__main__":
    serve({"save_for_ever": save_for_ever, "save_over_a_limit": save_over_a_limit})
