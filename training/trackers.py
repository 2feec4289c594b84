"""Trackers of a run through accelerate: TensorBoard by default, others by name; loss, learning rate, gradient, speed.

TensorBoard's files stand in ``<run>/logs``: ``tensorboard --logdir outputs`` shows every run there.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import matplotlib.image
import numpy as np
from accelerate import Accelerator
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, filter_trackers, get_available_trackers

logger = logging.getLogger(__name__)

EVERY = 10  # steps between two points of a curve
_INSTALLED_AS = {"comet_ml": "comet-ml"}  # pip's names, where they are not accelerate's


def check_trackers(names: Sequence[str]) -> None:
    """Refuse trackers that are unknown or not installed; to be called before anything is trained.

    Raises:
        ValueError: with pip's name for what is missing, and how to do without.
    """
    known = list(LOGGER_TYPE_TO_CLASS)
    if unknown := [name for name in names if name not in known]:
        raise ValueError(f"there is no tracker {unknown[0]!r}: accelerate has {', '.join(sorted(known))}")
    available = {str(getattr(name, "value", name)) for name in get_available_trackers()}
    if missing := [name for name in names if name not in available]:
        packages = " ".join(_INSTALLED_AS.get(name, name) for name in missing)
        raise ValueError(
            f"the tracker {', '.join(missing)} is not installed: `pip install {packages}`, or leave it out of "
            "validation.trackers (none at all: an empty list)"
        )


class Trackers:
    """Logs one phase of a run: means over `EVERY` steps, and pictures. A context; on the main process alone.

    A tracker that fails while the run goes on (its server is away, the disk is full) is told once and dropped.

    Among several hooks it comes last: the time that others take at a checkpoint is then not in its samples per second.

    Args:
        accelerator: any; its own trackers are replaced.
        names: accelerate's trackers; see `check_trackers`.
        folder: where they write: ``<run>/logs``; made when there is something to write.
        phase: the run's name there, such as "tcd_my-model".
        batch: samples per step, over all processes.
        config: the recipe's fields, nested as they are.
        first: steps done before, in a run that is resumed: what an earlier process logged after it is not shown.

    Raises:
        ValueError: as `check_trackers`, or a tracker could not be started; the message says which setting.
    """

    def __init__(
        self,
        accelerator: Accelerator,
        names: Sequence[str],
        folder: Path,
        phase: str,
        batch: int,
        config: Mapping | None = None,
        first: int = 0,
        every: int = EVERY,
    ) -> None:
        check_trackers(names)
        self.accelerator, self.batch, self.every, self.last = accelerator, batch, every, first
        self._losses: list[float] = []
        self._norms: list[float] = []
        self._lr, self._seconds, self._since = 0.0, 0.0, time.monotonic()
        folder = Path(folder)
        if names:
            folder.mkdir(parents=True, exist_ok=True)
        accelerator.trackers = []
        accelerator.project_configuration.logging_dir = str(folder)
        accelerator.log_with = filter_trackers(list(names), str(folder))
        settings = {"tensorboard": {"purge_step": first + 1}, "wandb": {"dir": str(folder)}}
        try:
            accelerator.init_trackers(phase, init_kwargs=settings)
        except Exception as error:  # each tracker has its own
            raise ValueError(
                f"a tracker of {', '.join(names)} could not be started ({error}): set it up, or leave it out of "
                "validation.trackers"
            ) from error
        self.trackers = list(accelerator.trackers)
        self._each(lambda tracker: _store(tracker, _flat(config or {})))

    def __enter__(self) -> Trackers:
        return self

    def __exit__(self, *of_error) -> None:
        self.close()

    def on_step(self, step: int, loss: float, lr: float, norm: float | None) -> None:
        """Take a step's values, and log the means of the last `every`."""
        now = time.monotonic()
        self._seconds += now - self._since
        self._since, self._lr = now, lr
        self._losses.append(loss)
        if norm is not None:
            self._norms.append(norm)
        if step % self.every == 0:
            self._log(step)

    def on_checkpoint(self, step: int) -> None:
        """Log what is not logged yet, and leave the time since the step out of the speed."""
        self._log(step)
        self._since = time.monotonic()

    def picture(self, step: int, path: Path) -> None:
        """Log a validation picture's file, where a tracker takes pictures."""
        if not self.trackers:
            return
        pixels = np.rint(matplotlib.image.imread(path)[..., :3] * 255).astype(np.uint8)
        self._each(lambda tracker: _log_picture(tracker, "validation", pixels, step))

    def close(self) -> None:
        """Log what is left and end the trackers."""
        self._log(self.last)
        self._each(lambda tracker: tracker.finish())
        self.trackers = self.accelerator.trackers = []

    def _log(self, step: int) -> None:
        if not self._losses:
            return
        step, count = max(step, self.last + len(self._losses)), len(self._losses)
        values = {"loss": sum(self._losses) / count, "learning_rate": self._lr}
        if self._norms:
            values["gradient_norm"] = sum(self._norms) / len(self._norms)
        if self._seconds > 0:
            values["samples_per_second"] = count * self.batch / self._seconds
        self._losses, self._norms, self._seconds, self.last = [], [], 0.0, step
        self._each(lambda tracker: tracker.log(values, step=step))

    def _each(self, use: Callable) -> None:
        """Use every tracker; one that fails is dropped."""
        for tracker in list(self.trackers):
            try:
                use(tracker)
            except Exception as error:  # of a network, a disk, a service: none is worth the run
                self.trackers.remove(tracker)
                logger.warning("the tracker %s stopped, the training goes on: %s", tracker.name, error)


def _store(tracker, config: Mapping[str, str | int | float | bool]) -> None:
    """The recipe: as text for TensorBoard, whose hyperparameters would make a run of their own at each start."""
    if not config:
        return
    if tracker.name == "tensorboard":
        table = "\n".join(["| field | value |", "| --- | --- |", *(f"| {k} | {v} |" for k, v in config.items())])
        tracker.writer.add_text("recipe", table, global_step=0)
    else:
        tracker.store_init_configuration(dict(config))


def _log_picture(tracker, tag: str, pixels: np.ndarray, step: int) -> None:
    """Pixels (H, W, 3), bytes. accelerate's trackers each take pictures their own way, or not at all."""
    if not hasattr(tracker, "log_images"):
        return
    if tracker.name == "tensorboard":
        tracker.log_images({tag: pixels[None]}, step=step, dataformats="NHWC")
        tracker.writer.flush()
    elif tracker.name in ("aim", "clearml"):
        tracker.log_images({tag: pixels}, step=step)
    else:
        tracker.log_images({tag: [pixels]}, step=step)


def _flat(config: Mapping, prefix: str = "") -> dict[str, str | int | float | bool]:
    """Nested fields by dotted names; what is no number, word or switch as text."""
    flat: dict = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
