"""What can't be saved or loaded as a LoRA is refused with a sentence, and files and networks stay as they were."""

import math
import os
from pathlib import Path

import pytest
import torch
from lora_files import make_unet
from lora_students import RANK, check_equal, deltas, student
from safetensors.torch import load_file, save_file

from tcd_core.target_embedding import TargetTimeEmbedding
from training.lora_file import load_lora, lora_layers, save_lora

WIDTH, EMBED = 32, 128  # of the small UNet: its first block's, and its time embedding's
FILE = "x.safetensors"


def spoil(network, value: float) -> None:
    with torch.no_grad():
        network.get_submodule("up_blocks.0.resnets.1.conv2").lora_B["default"].weight[1, 1] = value


@pytest.mark.parametrize(
    ("value", "dtype", "message"),
    [
        (math.nan, "fp32", r"up_blocks\.0\.resnets\.1\.conv2 holds NaN or infinity.*Save an earlier checkpoint"),
        (-math.inf, "fp16", r"up_blocks\.0\.resnets\.1\.conv2 holds NaN or infinity.*Save an earlier checkpoint"),
        (-7e4, "fp16", r"up_blocks\.0\.resnets\.1\.conv2 holds 7e\+04, more than fp16 can.*save as fp32"),
    ],
)
def test_weights_that_cannot_be_saved_are_named_and_nothing_is_written(tmp_path, value, dtype, message):
    network = student()
    save_lora(tmp_path / FILE, network, {})
    before = (tmp_path / FILE).read_bytes()
    spoil(network, value)
    with pytest.raises(ValueError, match=message):
        save_lora(tmp_path / FILE, network, {}, dtype)
    assert [path.name for path in tmp_path.iterdir()] == [FILE] and (tmp_path / FILE).read_bytes() == before


def test_large_weights_are_saved_as_fp32(tmp_path):
    network = student()
    spoil(network, -7e4)
    save_lora(tmp_path / FILE, network, {}, "fp32")
    assert load_file(tmp_path / FILE)["lora_unet_up_blocks_0_resnets_1_conv2.lora_up.weight"].min() == -7e4


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_file_and_no_other(tmp_path, monkeypatch, failing):
    network = student()
    save_lora(tmp_path / FILE, network, {})
    before = (tmp_path / FILE).read_bytes()

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, failing, fail)
    with pytest.raises(OSError, match="No space left"):
        save_lora(tmp_path / FILE, student(seed=3), {})
    assert [path.name for path in tmp_path.iterdir()] == [FILE] and (tmp_path / FILE).read_bytes() == before


def test_what_a_plain_lora_file_cannot_hold_is_refused(tmp_path):
    with pytest.raises(ValueError, match="carries no LoRA named 'default': add one first"):
        save_lora(tmp_path / FILE, make_unet(), {})
    with pytest.raises(ValueError, match=r"conv_in has lora_magnitude_vector\.default\.weight, which a plain LoRA"):
        save_lora(tmp_path / FILE, student(use_dora=True), {})
    with pytest.raises(ValueError, match="has alpha 3, not 4"):
        save_lora(tmp_path / FILE, student(), {}, alpha=4.0)
    with pytest.raises(ValueError, match='dtype must be "fp16" or "fp32"'):
        save_lora(tmp_path / FILE, student(), {}, "bf16")
    assert not list(tmp_path.iterdir())


def rewritten(folder: Path, **changes) -> Path:
    """A good file with tensors changed, or removed (None), by their names' ends."""
    save_lora(folder / FILE, student(), {})
    tensors = load_file(folder / FILE)
    for name, value in changes.items():
        key = next((key for key in tensors if key.endswith(name.replace("__", "."))), name)
        tensors = {k: v for k, v in tensors.items() if k != key} | ({} if value is None else {key: value})
    save_file(tensors, folder / FILE)
    return folder / FILE


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"lora_unet_nowhere__alpha": torch.ones(())}, "lora_unet_nowhere__alpha belongs to no module"),
        ({"conv_in__lora_up__weight": None}, r"conv_in lacks lora_up\.weight: the file is incomplete"),
        ({"conv_in__lora_up__weight": torch.zeros(8, RANK, 1, 1)}, r"conv_in has shapes \(4, 4, 3, 3\) and \(8, 4, 1"),
        ({"conv_in__lora_down__weight": torch.zeros(())}, r"conv_in has shapes \(\) and"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_the_network_left_alone(tmp_path, changes, message):
    bare = make_unet()
    with pytest.raises(ValueError, match=rf"x\.safetensors: {message}"):
        load_lora(bare, rewritten(tmp_path, **changes))
    assert not lora_layers(bare)


def test_files_that_are_no_lora_or_damaged_are_refused(tmp_path):
    save_file(TargetTimeEmbedding(WIDTH, EMBED).state_dict_for_file(), tmp_path / FILE)
    with pytest.raises(ValueError, match=r"holds no lora_unet_\* tensors"):
        load_lora(make_unet(), tmp_path / FILE)
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-3])
    with pytest.raises(ValueError, match=r"x\.safetensors is no whole safetensors file .*copy it again"):
        load_lora(make_unet(), tmp_path / FILE)
    with pytest.raises(FileNotFoundError):
        load_lora(make_unet(), tmp_path / "gone.safetensors")
    save_lora(tmp_path / FILE, student(), {}, target_embedding=TargetTimeEmbedding(WIDTH, 64))
    with pytest.raises(ValueError, match="embedding is 32 to 64 wide, the network's time embedding 32 to 128"):
        load_lora(make_unet(), tmp_path / FILE)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"lora_alpha": 2.0}, r"has rank 4 and alpha 3 in the file, 4 and 2 in the network"),
        ({"r": 3}, r"has rank 4 and alpha 3 in the file, 3 and 3 in the network"),
        ({"target_modules": ["conv_in"]}, "the network's LoRA 'default' has other modules than the file, first down_"),
    ],
)
def test_a_network_with_another_lora_is_refused(tmp_path, config, message):
    save_lora(tmp_path / FILE, student(), {})
    network = student(**config)
    before = deltas(network)
    with pytest.raises(ValueError, match=message):
        load_lora(network, tmp_path / FILE)
    check_equal(deltas(network), before, 0.0)
