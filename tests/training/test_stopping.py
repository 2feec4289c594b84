"""Signals become a flag the loop reads; a loss beyond help stops the run with what a person needs to go on."""

import math
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from training.stopping import LossGuard, TrainingDiverged, catch_signals

LOOP = """
import signal, sys, time
from training.stopping import catch_signals
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with catch_signals() as stop:
        print("ready", flush=True)
        for step in range(10_000):
            time.sleep(0.001)
            if stop.requested and "stubborn" not in sys.argv:
                break
            if stop.requested:
                print("asked", flush=True)
        print("stopped by", stop.signal, flush=True)
    print("handlers back:", signal.getsignal(signal.SIGINT) is signal.default_int_handler, flush=True)
except KeyboardInterrupt:
    print("KeyboardInterrupt", flush=True)
"""


@pytest.fixture
def loop():
    """Starts a process with a loop that stops between two steps when it is asked to (or, stubborn, does not)."""
    started = []

    def start(*arguments):
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        command = [sys.executable, "-c", LOOP, *arguments]
        started.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
        assert started[0].stdout.readline() == "ready\n"
        return started[0]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_stops_the_loop_at_its_next_step(loop, name):
    process = loop()
    process.send_signal(signal.Signals[name])
    assert process.communicate(timeout=10)[0] == f"stopped by {name}\nhandlers back: True\n"
    assert process.returncode == 0


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT to send")
def test_a_second_ctrl_c_interrupts_at_once_and_a_second_sigterm_does_not(loop):
    process = loop("stubborn")
    process.send_signal(signal.SIGTERM)
    assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGINT)
    for _ in range(20):
        assert process.stdout.readline() == "asked\n"
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=10)[0].endswith("KeyboardInterrupt\n")


def test_handlers_are_put_back_after_an_error_too():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError), catch_signals():
        assert signal.getsignal(signal.SIGTERM) is not before[1]
        raise ZeroDivisionError
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_an_ignored_signal_stays_ignored():
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with catch_signals() as stop:
            signal.raise_signal(signal.SIGTERM)
        assert not stop.requested
    finally:
        signal.signal(signal.SIGTERM, before)


def test_outside_the_main_thread_nothing_is_caught():
    seen = []

    def body():
        with catch_signals() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    assert seen == [(False, signal.getsignal(signal.SIGTERM))]


# ---- the guard ----


def check(guard, step, loss, grad_norm=1.0, last_good=Path("run/step_00000100.pt")):
    guard.check(step, loss, grad_norm, lambda: "rows 3, 1, 4 at t = 999, 12, 500", last_good)


def after(n, loss=0.5, explode=10.0):
    guard = LossGuard(explode)
    for step in range(n):
        check(guard, step, loss)
    return guard


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("where", ["loss", "grad_norm"])
def test_a_value_that_is_not_finite_stops_the_run_from_the_first_step_on(value, where):
    with pytest.raises(TrainingDiverged) as error:
        check(LossGuard(10), 0, **{"loss": 0.5, where: value})
    words = str(error.value)
    assert "stopped at step 0" in words and str(value) in words and ("norm" in words) == (where == "grad_norm")
    assert "rows 3, 1, 4 at t = 999, 12, 500" in words and "run/step_00000100.pt" in words.replace("\\", "/")
    assert "training.lr" in words and "training.warmup" in words


def test_an_exploding_loss_stops_the_run():
    guard = after(20)
    check(guard, 20, 5.0)
    with pytest.raises(
        TrainingDiverged, match=r"step 21: the loss is 5\.01, more than 10 times .* 0\.5.* No checkpoint"
    ):
        check(guard, 21, 5.01, last_good=None)


def test_the_first_losses_may_be_anything():
    guard = after(19)
    check(guard, 19, 1e9, grad_norm=None)


def test_the_batch_is_described_only_when_the_run_stops():
    LossGuard(10).check(0, 1.0, None, lambda: pytest.fail("described"), None)


def test_a_loss_that_was_zero_has_not_exploded_when_it_is_not():
    check(after(30, loss=0.0), 30, 1e-3)


def test_only_the_last_hundred_losses_count():
    guard = after(200, loss=1000.0)
    for step in range(60):
        check(guard, step, 1.0)
    with pytest.raises(TrainingDiverged, match="running median of 1"):
        check(guard, 60, 1000.0)


def test_a_guard_that_was_saved_judges_as_if_the_run_had_not_stopped():
    chance = random.Random(0)
    losses = [chance.lognormvariate(0, 1) for _ in range(150)]
    through, again = LossGuard(5), LossGuard(5)
    verdicts = [[], []]
    for step, loss in enumerate(losses):
        for guard, verdict in zip((through, again), verdicts, strict=True):
            try:
                check(guard, step, loss)
                verdict.append(True)
            except TrainingDiverged:
                verdict.append(False)
        state, again = again.state_dict(), LossGuard(5)
        again.load_state_dict(state)
    assert verdicts[0] == verdicts[1] and 0 < verdicts[0].count(False) < 20
    assert again.state_dict() == through.state_dict()


@pytest.mark.parametrize("explode", [1, 0, -1, math.nan])
def test_a_limit_that_would_stop_every_run_is_refused(explode):
    with pytest.raises(ValueError, match="training.explode must be above 1"):
        LossGuard(explode)
