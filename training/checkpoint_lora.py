"""The student's LoRA at every checkpoint, as a file that ComfyUI and the others load: to try while a run goes on.

``<run>/checkpoints/tcd_<name>_step_00000500.safetensors``, of the averaged weights, as the finished one is. `--resume`
does not read them.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from torch import Tensor

from tcd_core.target_embedding import TARGET_EMBEDDING_PREFIX, TargetTimeEmbedding

from .disk import reason
from .lora_file import FileDtype, save_lora
from .objective import TrajectoryDistillation

logger = logging.getLogger(__name__)


def save_averaged_lora(
    path: Path, task: TrajectoryDistillation, metadata: Mapping[str, str], dtype: FileDtype = "fp16"
) -> None:
    """Write the LoRA of a task's averaged weights, whole or not at all; TCF(S+)'s embedding of s with it.

    Raises:
        ValueError: weights that no file holds (NaN, too large for fp16), or a student that is no LoRA.
        OSError: the disk is full or the folder can't be written.
    """
    weights = task.saved.weights
    own = {name.removeprefix("network."): w for name, w in weights.items() if name.startswith("network.")}
    save_lora(path, task.student.network, metadata, dtype, averaged_embedding(weights), values=own)


def averaged_embedding(weights: Mapping[str, Tensor]) -> TargetTimeEmbedding | None:
    """TCF(S+)'s module of a student's averaged weights; None where there is none."""
    prefix = "target_embedding."
    tensors = {
        TARGET_EMBEDDING_PREFIX + name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)
    }
    return TargetTimeEmbedding.from_state_dict(tensors) if tensors else None


class CheckpointLora:
    """Writes the LoRA of each checkpoint into its folder and deletes all but the newest few; main process alone.

    A LoRA that cannot be written is told, and the run goes on: the checkpoint that it belongs to stands.

    Args:
        folder: the run's folder of checkpoints.
        name: of the finished file, without ".safetensors": ``tcd_<recipe>``.
        write: called with the path to write; `save_averaged_lora` with its other arguments given.
        keep: how many files of this name stay, as for checkpoints; at least 1.

    Raises:
        ValueError: ``keep`` is below 1.
    """

    def __init__(self, folder: Path, name: str, write: Callable[[Path], None], keep: int) -> None:
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}")
        self.folder, self.name, self.write, self.keep = Path(folder), name, write, keep

    def path(self, step: int) -> Path:
        """Where the LoRA of a step's checkpoint is."""
        return self.folder / f"{self.name}_step_{step:08d}.safetensors"

    def on_step(self, step: int, loss: float, lr: float, norm: float | None) -> None:
        """Nothing: LoRAs are written with checkpoints."""

    def on_checkpoint(self, step: int) -> None:
        """Write the step's LoRA; then the oldest go, and those of later steps that an abandoned run left."""
        path = self.path(step)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.write(path)
        except (OSError, SafetensorError, ValueError) as error:
            why = reason(error) if isinstance(error, OSError) else error
            logger.warning("%s was not written, the training goes on: %s", path, why)
            return
        written = self._written()
        newest = sorted((number for number in written if number <= step), reverse=True)[: self.keep]
        for number in written.keys() - newest:
            try:
                written[number].unlink(missing_ok=True)
            except OSError as error:
                logger.warning("the old LoRA %s could not be deleted: %s", written[number], reason(error))

    def _written(self) -> dict[int, Path]:
        """This run's files, by step."""
        pattern = re.compile(re.escape(self.name) + r"_step_(\d{8,})\.safetensors")
        return {int(match[1]): path for path in self.folder.iterdir() if (match := pattern.fullmatch(path.name))}
