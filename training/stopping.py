"""When a run must stop before its end: a signal asked for it, or its loss is beyond help."""

from __future__ import annotations

import math
import signal
import statistics
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path


class TrainingDiverged(RuntimeError):
    """The loss or the gradient is not finite, or the loss has exploded; the message says where and what to try."""


@dataclass
class Stop:
    """Whether a signal has asked the loop to stop after the present step, and which ("SIGINT", "SIGTERM")."""

    requested: bool = False
    signal: str = ""


@contextmanager
def catch_signals() -> Iterator[Stop]:
    """Within the block, SIGINT and SIGTERM set a flag that the loop reads at its next step's end.

    A second SIGINT raises KeyboardInterrupt as usual. A signal that the process was started to ignore stays ignored.
    Handlers are put back at the end; outside the main thread, where Python allows none, nothing is done.
    """
    stop = Stop()
    interrupts = 0

    def note(number, frame):
        nonlocal interrupts
        interrupts += number == signal.SIGINT
        if interrupts > 1:
            raise KeyboardInterrupt
        stop.requested, stop.signal = True, signal.Signals(number).name

    with _handling({signal.SIGINT: note, signal.SIGTERM: note}):
        yield stop


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Within the block SIGTERM raises KeyboardInterrupt, as SIGINT does: for work that is begun again, not resumed."""

    def interrupt(number, frame):
        raise KeyboardInterrupt

    with _handling({signal.SIGTERM: interrupt}):
        yield


@contextmanager
def _handling(handlers: dict) -> Iterator[None]:
    """Signal handlers, put back at the end; ignored signals stay so, and off the main thread, where Python allows no
    handlers, nothing is done."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in handlers}
    before = {number: handler for number, handler in before.items() if handler is not signal.SIG_IGN}
    try:
        for number in before:
            signal.signal(number, handlers[number])
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


class LossGuard:
    """Stops a run whose loss or gradient is not finite, or whose loss is far above what it was.

    Args:
        explode: how many times the median of the last `WINDOW` losses a loss may be; not judged before `AT_LEAST`.
    """

    WINDOW, AT_LEAST = 100, 20

    def __init__(self, explode: float):
        if not explode > 1:
            raise ValueError(f"training.explode must be above 1 (losses over their running median), got {explode}")
        self.explode = explode
        self.losses: deque[float] = deque(maxlen=self.WINDOW)

    def check(
        self,
        step: int,
        loss: float,
        grad_norm: float | None,
        describe: Callable[[], str],
        last_good: Path | None,
    ) -> None:
        """Look at one optimiser step.

        Args:
            step: its number.
            loss: the mean loss of its batch.
            grad_norm: the gradient's norm before clipping; None where it is not known, or where a loss scaler skips
                steps with infinite ones by itself (fp16).
            describe: says which batch it was; called only if the run stops.
            last_good: the newest checkpoint.

        Raises:
            TrainingDiverged: with step, batch, value, last good checkpoint and advice.
        """
        what, half = None, ""
        if not math.isfinite(loss):
            what = f"the loss is {loss}"
        elif grad_norm is not None and not math.isfinite(grad_norm):
            what = f"the gradient's norm is {grad_norm} (loss {loss:.4g})"
            half = (
                ". With a finite loss that is often a number format too narrow for the network: --training.precision no"
            )
        elif len(self.losses) >= self.AT_LEAST and loss > self.explode * (usual := statistics.median(self.losses)) > 0:
            what = f"the loss is {loss:.4g}, more than {self.explode:g} times its running median of {usual:.4g}"
        if what is None:
            self.losses.append(loss)
            return
        good = f"The last good checkpoint is {last_good}" if last_good else "No checkpoint has been written yet"
        raise TrainingDiverged(
            f"training stopped at step {step}: {what}. Batch: {describe()}. {good}; the same recipe would come to the "
            "same end, so lower training.lr, lengthen training.warmup, clip the gradient (training.clip) or weight the "
            f'loss (objective.weight = "min_snr"){half}'
        )

    def state_dict(self) -> dict:
        """The last losses, for a checkpoint: a run that goes on judges as if it had not stopped."""
        return {"losses": list(self.losses)}

    def load_state_dict(self, state: dict) -> None:
        """Take over the losses of `state_dict`."""
        self.losses = deque(state["losses"], maxlen=self.WINDOW)
