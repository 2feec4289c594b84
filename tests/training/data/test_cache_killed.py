"""A pass that is killed with SIGKILL, at every write of a file and at any moment, goes on to the same bytes.

Run as a script, this file is a server that has everything imported and forks one process per pass.
"""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from some_data import FakeEncoders, encoded, tree, write_folder

from training.data.folder import PictureFolder
from training.data.prompts import Prompts

HERE = Path(__file__).resolve().parent
NEVER = 10**6


class Passes:
    """Starts passes over ``in`` or ``p.txt`` into a folder, each a process of its own."""

    def __init__(self):
        environment = {**os.environ, "PYTHONPATH": f"{HERE.parents[2]}{os.pathsep}{HERE}", "OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **job):
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def status(self, **job) -> int:
        """Run a pass to its end; −n if it was killed by signal n."""
        return self.ask(wait=self.ask(**job))

    def close(self):
        self.server.communicate()


@pytest.fixture(scope="module")
def passes():
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    server = Passes()
    yield server
    server.close()


@pytest.fixture
def data(tmp_path):
    folder = write_folder(tmp_path / "in", 10)
    (folder / "005.png").write_bytes((folder / "005.png").read_bytes()[:400])
    (tmp_path / "p.txt").write_text("".join(f"prompt {i}\n" for i in range(6)))
    return tmp_path


@pytest.mark.parametrize("kind, every", [("pictures", 1), ("prompts", 3)])
def test_killed_at_any_write_the_next_pass_finishes_the_same_bytes(passes, data, kind, every):
    job = {"folder": str(data), "cache": "cache", "kind": kind, "blocks": 4}
    assert passes.status(**job, kill_at=NEVER) == 0
    whole = tree(data / "cache")
    done = []
    for kill_at in range(1, NEVER, every):
        shutil.rmtree(data / "cache")
        status = passes.status(**job, kill_at=kill_at)
        if status == 0:
            break
        assert status == -signal.SIGKILL
        left = tree(data / "cache")
        done.append(sum(Path(name).name.startswith(("pictures-", "texts-")) for name in left))
        assert all(whole[name] == content for name, content in left.items() if name in whole), "no file is ever half"
        assert passes.status(**job, kill_at=NEVER) == 0
        assert tree(data / "cache") == whole, f"killed at write {kill_at}"
    blocks = sum(Path(name).name.startswith(("pictures-", "texts-")) for name in whole)
    assert set(done) == set(range(blocks + 1)) and blocks >= 4, "the kills were spread over the pass"


def test_killed_again_and_again_a_pass_comes_to_its_end_with_nothing_encoded_twice_that_was_finished(passes, data):
    job = {"folder": str(data), "cache": "cache", "kind": "pictures", "blocks": 2, "slow": 0.05}
    chance, kills = random.Random(0), 0
    assert passes.status(**job | {"cache": "alone"}, kill_at=NEVER) == 0
    whole = finished(data / "alone")
    while finished(data / "cache") < whole:
        before = finished(data / "cache")
        pid = passes.ask(**job, kill_at=NEVER)
        until(lambda before=before: finished(data / "cache") > before)  # each pass does a block more, then is killed
        time.sleep(chance.uniform(0, 0.05))
        os.kill(pid, signal.SIGKILL)  # one that has ended is not waited for yet: its number is still its own
        kills += passes.ask(wait=pid) == -signal.SIGKILL
    assert kills > 1, "the kills missed the pass: this test tests nothing"
    assert passes.status(**job, kill_at=NEVER) == 0
    assert tree(data / "cache") == tree(data / "alone")


def finished(cache: Path) -> int:
    """How many blocks of pictures are whole."""
    return len(list(cache.glob("*/pictures-*")))


def until(happened) -> None:
    """Wait for it; a minute without it is a failure."""
    end = time.monotonic() + 60
    while not happened():
        assert time.monotonic() < end, "a pass did nothing for a minute"
        time.sleep(0.002)


# ---- in the server and its children ----


def _set_blocks(size: int) -> None:
    from training.data import plan

    plan.PICTURES_PER_BLOCK = plan.PROMPTS_PER_BLOCK = plan.TEXTS_PER_BLOCK = size


def _pass(folder: str, cache: str, kind: str, blocks: int, kill_at: int, slow: float = 0.0) -> None:
    """One pass, killed just before or after the n-th time that a file is put on the disk or gets its name."""
    _set_blocks(blocks)
    calls = 0

    def counted(function):
        def call(*arguments):
            nonlocal calls
            calls += 1
            if calls == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*arguments)

        return call

    os.fsync, os.replace = counted(os.fsync), counted(os.replace)

    class Slow(FakeEncoders):
        def latents(self, pixels):
            time.sleep(slow)
            return super().latents(pixels)

    data = Path(folder)
    source = PictureFolder(data / "in") if kind == "pictures" else Prompts(data / "p.txt")
    encoded(source, data / cache, Slow())


def _serve() -> None:
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork() or _child(job)
        print(json.dumps(answer), flush=True)


def _child(job: dict) -> None:
    status = 70
    try:
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.dup2(os.open(Path(job["folder"]) / "err", os.O_RDWR | os.O_CREAT), 2)
        _pass(**job)
        status = 0
    finally:
        os._exit(status)


if __name__ == "__main__":
    _serve()
