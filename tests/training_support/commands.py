"""The trainer's commands in processes of their own that start at once: a server with everything imported forks them.

A process can be given faults: at the n-th call of a function it gets a signal, or may no longer write large files; or a
function is left out. And the judge's classifiers are hardly trained, which would take most of the time. Everything else
is as on the command line. Run as a script, with words, this file is ``python -m training.distill`` with such a judge.
"""

from __future__ import annotations

import importlib
import json
import os
import random
import runpy
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
CRASHED = 70  # the exit status of an exception that the command let through
QUICK_CLASSIFIER = 10  # training steps; its figures say little, but are figures
FEW = {  # of shapes: pictures, and steps of what is trained before the teacher and for the judge
    "shapes": {"TRAINING_SCENES": 300},
    "shapes_detector": {"_STEPS": QUICK_CLASSIFIER},
    "shapes_judge": {"PICTURES": 12, "REAL": 100, "FLOOR_DRAWS": 2},
    "shapes_text": {"_STEPS": 4, "_SCENES": 200},
}
MINI = (
    "--teacher.width 64 --teacher.steps 8 --teacher.batch 4 --student.rank 2 --student.alpha 3 --end_times.segments 1 "
)
MINI += "--end_times.lower_share 0.5 --training.steps 4 --training.batch 4 --training.warmup 2 --checkpoint.every 1 "
MINI += "--measure.steps 2 4 --measure.gammas 0.2 1.0 --measure.sampling_seeds 1 --measure.against validation"
MINI = tuple(MINI.split())  # the smallest recipe that goes through everything


def environment() -> dict[str, str]:
    """This process's, for a command run from any folder, on one thread."""
    return {**os.environ, "PYTHONPATH": f"{TESTS.parent}{os.pathsep}{TESTS}", "OMP_NUM_THREADS": "1"}


def at(function: str, call: int, do: str, **more) -> dict:
    """A fault at the start of a function's call (1 is the first): ``do`` is a signal's name or "limit" (``bytes``).

    Args:
        function: module and name, such as "training.loop._step".
    """
    return {"function": function, "call": call, "do": do, **more}


def without(function: str, gives=None) -> dict:
    """A fault: the function only returns ``gives``."""
    return {"function": function, "call": 0, "do": "nothing", "gives": gives}


@dataclass(frozen=True)
class Ended:
    """A process that has ended: its exit status, −n for signal n, and what it printed."""

    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"exit status {self.status}\n{self.out}\n{self.err[-3000:]}"


@dataclass(frozen=True)
class Running:
    """A process that was started."""

    commands: Commands
    pid: int
    log: Path

    def kill(self, number: int = signal.SIGKILL) -> Ended:
        """Send a signal, and wait."""
        os.kill(self.pid, number)
        return self.wait()

    def wait(self) -> Ended:
        """Wait for its end, however it comes."""
        status = self.commands.ask(wait=self.pid)
        return Ended(status, *(self.log.with_suffix(s).read_text(errors="replace") for s in (".out", ".err")))


class Commands:
    """Starts commands; `close` at the end.

    Args:
        folder: where what they print is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.started = folder, 0
        self.server = subprocess.Popen(
            [sys.executable, __file__], env=environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def ask(self, **job):
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return json.loads(self.server.stdout.readline())

    def start(
        self,
        *words: object,
        cwd: Path,
        faults: Sequence[dict] = (),
        module: str = "distill",
        variables: Mapping[str, str] | None = None,
    ) -> Running:
        """Start ``python -m training.<module> *words`` in a folder, with more environment variables."""
        self.started += 1
        log = self.folder / f"command_{self.started}"
        job = {"module": module, "words": [str(w) for w in words], "cwd": str(cwd), "log": str(log)}
        job["variables"] = dict(variables or {})
        return Running(self, self.ask(**job, faults=list(faults)), log)

    def run(self, *words: object, **options) -> Ended:
        """Start a command and wait for its end."""
        return self.start(*words, **options).wait()

    def close(self) -> None:
        """End the server."""
        self.server.communicate()


def wait_for(condition: Callable, limit: float = 60):
    """The condition's first true value; AssertionError after ``limit`` seconds."""
    until = time.monotonic() + limit
    while not (value := condition()):
        assert time.monotonic() < until, "nothing happened in time"
        time.sleep(0.001)
    return value


# ---- in the server and its children ----


def _serve() -> None:
    modules = "distill evaluate families.digits families.sd15 measure phases plots pretrained report sample_grid"
    for module in modules.split():
        importlib.import_module(f"training.{module}")
    for line in sys.stdin:
        job = json.loads(line)
        if "wait" in job:
            answer = os.waitstatus_to_exitcode(os.waitpid(job["wait"], 0)[1])
        else:
            answer = os.fork() or _child(job)
        print(json.dumps(answer), flush=True)


def _child(job: dict) -> None:
    """Run one command as a process of its own would; never returns."""
    status = CRASHED
    try:
        for number, suffix in enumerate((os.devnull, f"{job['log']}.out", f"{job['log']}.err")):
            handle = os.open(suffix, os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            os.dup2(handle, number)
        signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in what a shell starts with "&"
        os.chdir(job["cwd"])
        os.environ.update(job["variables"])
        _forget_the_seed()
        _train_the_classifiers_hardly_at_all()
        if "shapes" in job["words"]:
            _draw_few_shapes()
        for fault in job["faults"]:
            _plant(**fault)
        status = importlib.import_module(f"training.{job['module']}").main(job["words"])
    except SystemExit as end:
        status = end.code
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _train_the_classifiers_hardly_at_all() -> None:
    features = importlib.import_module("training.families.digits_features")
    assert features._STEPS > QUICK_CLASSIFIER
    features._STEPS = QUICK_CLASSIFIER


def _draw_few_shapes() -> None:
    for module, names in FEW.items():
        for name, few in names.items():
            assert getattr(importlib.import_module(f"training.families.{module}"), name) > few
            setattr(importlib.import_module(f"training.families.{module}"), name, few)


def _forget_the_seed() -> None:
    """Random numbers that nobody seeded differ from process to process, as they do in processes that are not forks."""
    import numpy as np
    import torch

    torch.seed()
    np.random.seed()
    random.seed()


def _plant(function: str, call: int, do: str, **more) -> None:
    module, _, name = function.rpartition(".")
    try:
        owner = importlib.import_module(module)
    except ModuleNotFoundError:  # a method
        module, _, of = module.rpartition(".")
        owner = getattr(importlib.import_module(module), of)
    original, calls = getattr(owner, name), 0

    def faulty(*arguments, **named):
        nonlocal calls
        calls += 1
        if calls == call:
            _do(do, **more)
        return more["gives"] if do == "nothing" else original(*arguments, **named)

    setattr(owner, name, faulty)


def _do(what: str, **more) -> None:
    if what == "limit":
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (more["bytes"], more["bytes"]))
    else:
        os.kill(os.getpid(), getattr(signal, what))


if __name__ == "__main__":
    if len(sys.argv) == 1:
        sys.exit(_serve())
    _train_the_classifiers_hardly_at_all()
    runpy.run_module("training.distill", run_name="__main__", alter_sys=True)
