"""Reading LoRA files: what is damaged, disguised or unreadable gets a sentence, and nothing is ever unpickled."""

import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save, save_file
from support import load_pack_module

lora_file = load_pack_module("nodes.lora_file")
read_lora_file = lora_file.read_lora_file

TENSORS = {
    "lora_unet_x.lora_down.weight": torch.randn(2, 8),
    "lora_unet_x.lora_up.weight": torch.randn(8, 2).half(),
    "lora_unet_x.alpha": torch.tensor(1.0),
}
GOOD = save(TENSORS, metadata={"tcd.steps": "4"})


class Exploding:
    """Unpickling this creates a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def write(folder: Path, data: bytes, name: str = "x.safetensors") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_reads_tensors_and_metadata(tmp_path):
    tensors, metadata = read_lora_file(write(tmp_path, GOOD))
    assert metadata == {"tcd.steps": "4"}
    assert tensors.keys() == TENSORS.keys()
    for key, tensor in tensors.items():
        torch.testing.assert_close(tensor, TENSORS[key], rtol=0, atol=0)


def test_file_may_be_replaced_while_its_tensors_are_in_use(tmp_path):
    path = write(tmp_path, GOOD)
    tensors, _ = read_lora_file(path)
    path.write_bytes(bytes(len(GOOD)))
    torch.testing.assert_close(tensors["lora_unet_x.alpha"], torch.tensor(1.0))


@pytest.mark.parametrize("length", [*range(1, 12), 60, len(GOOD) // 2, len(GOOD) - 1])
def test_truncated_file_is_refused(tmp_path, length):
    with pytest.raises(ValueError, match=r"x\.safetensors is (truncated|damaged).* Download or copy"):
        read_lora_file(write(tmp_path, GOOD[:length]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(position=st.integers(0, len(GOOD) - 1), value=st.integers(0, 255), length=st.integers(0, len(GOOD)))
def test_any_damage_gives_a_value_error_or_finite_tensors(tmp_path, position, value, length):
    data = bytearray(GOOD[: max(length, position + 1)])
    data[position] = value
    try:
        tensors, _ = read_lora_file(write(tmp_path, bytes(data)))
    except ValueError as error:
        assert "x.safetensors" in str(error)
    else:
        assert all(torch.isfinite(tensor.float()).all() for tensor in tensors.values())


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=64))
def test_garbage_gives_a_value_error(tmp_path, data):
    with pytest.raises(ValueError, match=r"x\.safetensors (is|holds)"):
        read_lora_file(write(tmp_path, data))


def header(value) -> bytes:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return len(text).to_bytes(8, "little") + text


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (header({}), "holds no tensors"),
        (header({"__metadata__": {"a": "b"}}), "holds no tensors"),
        (header(b"{not json at all}"), "is damaged: its header and its data do not agree"),
        (header({"x": {"dtype": "F999", "shape": [1], "data_offsets": [0, 4]}}) + bytes(4), "is damaged"),
        (header({"x": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}}) + bytes(4), "is damaged"),
        (header({"x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}) + bytes(9), "is damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "Git LFS pointer"),
        (b"<!DOCTYPE html><html>Access denied</html>", "a web page"),
        (b"GGUF" + bytes(60), "a GGUF file"),
        (bytes(range(100, 164)), "its header is unreadable"),
        (b"\xff" * 8 + b"{" + bytes(20), "is truncated"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, data, message):
    with pytest.raises(ValueError, match=message):
        read_lora_file(write(tmp_path, data))


@pytest.mark.parametrize("writer", ["torch.save", "torch.save, old", "pickle"])
def test_renamed_pickle_is_refused_and_not_opened(tmp_path, writer):
    trace, path = tmp_path / "trace", tmp_path / "renamed.safetensors"
    content = {"x": Exploding(trace)}
    if writer == "pickle":
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=writer == "torch.save")
    with pytest.raises(ValueError, match=r"is not a safetensors file but .*pickle.* was not opened"):
        read_lora_file(path)
    assert not trace.exists()


@pytest.mark.parametrize("name", ["x.pt", "x.ckpt", "x.bin", "x"])
def test_other_extensions_are_refused(tmp_path, name):
    with pytest.raises(ValueError, match="is not a .safetensors file. Other formats can run code"):
        read_lora_file(write(tmp_path, GOOD, name))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_first_tensor_with_nan_or_infinity_is_named(tmp_path, value, dtype):
    bad = torch.zeros(5, 3, dtype=dtype)
    bad[4, 1] = value
    path = tmp_path / "bad.safetensors"
    save_file({**TENSORS, "lora_unet_y.lora_up.weight": bad}, path)
    with pytest.raises(ValueError, match=r"holds NaN or infinity, first in lora_unet_y\.lora_up\.weight"):
        read_lora_file(path)


@pytest.mark.parametrize("dtype", [torch.float8_e5m2, torch.float8_e4m3fn])
def test_float8_is_checked_too(tmp_path, dtype):
    path = tmp_path / "eight.safetensors"
    save_file({"a.lora_up.weight": torch.ones(4, 4).to(dtype)}, path)
    assert read_lora_file(path)[0]["a.lora_up.weight"].dtype == dtype
    save_file({"a.lora_up.weight": torch.full((4, 4), float("nan")).to(dtype)}, path)
    with pytest.raises(ValueError, match="NaN or infinity"):
        read_lora_file(path)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float8_e5m2, torch.float8_e4m3fn])
def test_every_bit_pattern_is_judged_as_torch_judges_it(dtype):
    whole_number = torch.uint8 if dtype.itemsize == 1 else torch.int16
    first = 0 if dtype.itemsize == 1 else -(2**15)
    values = torch.arange(first, first + 2 ** (8 * dtype.itemsize)).to(whole_number).view(dtype)
    judged = [lora_file._is_finite(value) for value in values]
    assert judged == torch.isfinite(values.float()).tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_largest_numbers_are_finite(dtype):
    limits = torch.finfo(dtype)
    assert lora_file._is_finite(torch.tensor([limits.max, limits.min, limits.tiny, -0.0], dtype=dtype))


def test_unreadable_files_get_a_value_error(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"gone\.safetensors could not be read \(No such file.*disk is connected"):
        read_lora_file(tmp_path / "gone.safetensors")
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(ValueError, match="could not be read"):
        read_lora_file(tmp_path / "folder.safetensors")

    def fail(self):
        raise OSError(5, "Input/output error")

    path = write(tmp_path, GOOD)
    monkeypatch.setattr(Path, "read_bytes", fail)
    with pytest.raises(ValueError, match=r"x\.safetensors could not be read \(Input/output error\)"):
        read_lora_file(path)


def test_peft_settings_are_read_beside_a_file_of_peft_s_name(tmp_path):
    (tmp_path / "adapter_config.json").write_text('{"lora_alpha": 2}')
    assert "adapter_config.json" not in read_lora_file(write(tmp_path, GOOD))[1]
    _, metadata = read_lora_file(write(tmp_path, GOOD, "adapter_model.safetensors"))
    assert json.loads(metadata["adapter_config.json"]) == {"lora_alpha": 2}


def test_fingerprint_changes_with_the_file_and_with_peft_s_settings(tmp_path):
    path = write(tmp_path, GOOD, "adapter_model.safetensors")
    seen = {lora_file.fingerprint(path)}
    (tmp_path / "adapter_config.json").write_text("{}")
    seen.add(lora_file.fingerprint(path))
    os.utime(path, ns=(1, 1))
    seen.add(lora_file.fingerprint(path))
    path.unlink()
    seen.add(lora_file.fingerprint(path))
    assert len(seen) == 4
