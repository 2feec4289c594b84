"""The LoRA at every checkpoint: the averaged weights, as many as checkpoints are kept, and no reason to stop a run."""

import logging
from functools import partial

import pytest
import torch
from lora_students import check_equal, deltas
from safetensors.torch import load_file
from training_support.runs import files_in, metadata_of
from training_support.tiny import TinyFamily, differing, distilled, randomise, tiny_recipe, tiny_unet

from training.checkpoint_lora import CheckpointLora, save_averaged_lora
from training.lora_file import load_lora
from training.objective import TrajectoryDistillation

NAME = "tcd_tiny"
METADATA = {"tcd.steps": "4"}


def task_with_averages(**sections) -> TrajectoryDistillation:
    """A task whose student and average differ."""
    task = TrajectoryDistillation(TinyFamily(), tiny_recipe(**sections))
    randomise(task.trainable(), seed=1)
    randomise(task.saved.weights, seed=2)
    return task


def writer(folder, task, keep=2) -> CheckpointLora:
    write = partial(save_averaged_lora, task=task, metadata=METADATA, dtype="fp32")
    return CheckpointLora(folder / "checkpoints", NAME, write, keep)


def names(*steps: int) -> set[str]:
    return {f"{NAME}_step_{step:08d}.safetensors" for step in steps}


def test_file_holds_the_averaged_weights(tmp_path):
    task = task_with_averages()
    loras = writer(tmp_path, task)
    loras.on_checkpoint(500)
    path = loras.path(500)
    assert path == tmp_path / "checkpoints" / "tcd_tiny_step_00000500.safetensors"
    assert metadata_of(path)["tcd.steps"] == "4"
    network = tiny_unet()
    load_lora(network, path)
    live = deltas(task.student.network)
    with torch.no_grad():
        for name, weight in task.trainable().items():
            weight.copy_(task.saved.weights[name])
    check_equal(deltas(network), deltas(task.student.network))
    assert differing(live, deltas(network))


def test_file_of_a_target_time_student_holds_its_averaged_embedding(tmp_path):
    task = task_with_averages(objective={"form": "tcf_s_plus"})
    loras = writer(tmp_path, task)
    loras.on_checkpoint(1)
    embedding = load_lora(tiny_unet(), loras.path(1)).target_embedding
    prefix = "target_embedding."
    averaged = {name.removeprefix(prefix): w for name, w in task.saved.weights.items() if name.startswith(prefix)}
    assert averaged and not differing(averaged, {name: embedding.state_dict()[name] for name in averaged})


def test_the_newest_few_are_kept(tmp_path):
    loras = writer(tmp_path, task_with_averages())
    for step in (1, 2, 3):
        loras.on_checkpoint(step)
    assert files_in(tmp_path / "checkpoints") == names(2, 3)


def test_files_of_later_steps_go_and_other_files_stay(tmp_path):
    """A run that goes on from an earlier checkpoint than it had reached."""
    loras = writer(tmp_path, task_with_averages())
    loras.on_checkpoint(7)
    others = {"tcd_tiny-2_step_00000001.safetensors", "step_00000001.pt", "tcd_tiny.safetensors"}
    for other in others:
        (tmp_path / "checkpoints" / other).touch()
    loras.on_checkpoint(5)
    assert files_in(tmp_path / "checkpoints") == names(5) | others


def test_training_is_the_same_to_the_bit_and_its_last_file_is_the_last_average(tmp_path):
    def with_loras(task):
        loras, follow = writer(tmp_path, task, keep=9), task.after_step

        def after_step():
            follow()
            loras.on_step(task.saved.updates, 0.0, 0.0, None)
            loras.on_checkpoint(task.saved.updates)

        task.after_step = after_step

    losses, states = distilled(tmp_path / "a")
    watched, same = distilled(tmp_path / "b", change=with_loras)
    assert losses == watched and not differing(states, same)
    written = tmp_path / "checkpoints"
    assert files_in(written) == names(1, 2, 3, 4, 5, 6)
    down = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
    expected = states[f"saved: network.{down}.lora_A.default.weight"]
    tensors = load_file(written / f"{NAME}_step_00000006.safetensors")
    assert torch.equal(tensors[f"lora_unet_{down.replace('.', '_')}.lora_down.weight"], expected)


def test_what_cannot_be_written_is_told_and_the_run_goes_on(tmp_path, caplog):
    def full(path):
        raise OSError(28, "No space left on device")

    with caplog.at_level(logging.WARNING):
        CheckpointLora(tmp_path, NAME, full, 1).on_checkpoint(3)
        task = task_with_averages()
        next(iter(task.saved.weights.values())).fill_(torch.nan)
        writer(tmp_path, task).on_checkpoint(4)
        (tmp_path / "a file").touch()
        CheckpointLora(tmp_path / "a file", NAME, full, 1).on_checkpoint(5)
    first, second, third = (record.getMessage() for record in caplog.records)
    assert f"{NAME}_step_00000003.safetensors was not written, the training goes on: No space left" in first
    assert "step_00000004" in second and "diverged" in second
    assert "step_00000005" in third and "exists" in third
    assert files_in(tmp_path) == {"a file"}


def test_keep_is_at_least_one(tmp_path):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        CheckpointLora(tmp_path, NAME, lambda path: None, 0)
