"""Files are judged by what they hold, nothing is unpickled, and what is damaged is said to be."""

import os
import pickle
import struct

import pytest
import torch
from model_files import few

from training.models import ModelError, inspect
from training.models.weights import Weights

HEADER = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'


class Bomb:
    """Unpickled, it makes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (os.mkdir, (str(self.path),))


@pytest.mark.parametrize("name", ["model.safetensors", "model.ckpt"])
@pytest.mark.parametrize("protocol", [0, 1, 2, None])
def test_a_pickle_is_refused_unopened_whatever_it_is_called(tmp_path, name, protocol):
    path, trace = tmp_path / name, tmp_path / "executed"
    if protocol is not None:
        path.write_bytes(pickle.dumps({"state_dict": Bomb(trace)}, protocol))
    else:
        torch.save({"state_dict": Bomb(trace)}, path)
    with pytest.raises(ModelError, match="is a pickle.*not opened.*Load Checkpoint.*Save Checkpoint") as error:
        inspect(path)
    assert not trace.exists()
    assert ("in spite of its name" in str(error.value)) == name.endswith(".safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"a photo of a cat\nanother\n", "is a text file"),
        ("ein Bild mit Ä und Ö\n".encode() * 9, "is a text file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html>", "is a web page.*download"),
        (b"GGUF\x03\0\0\0\0\0\0\0", "GGUF"),
        (bytes(100), "no safetensors file, or damaged"),
        (struct.pack("<Q", 5000) + HEADER, "is cut short: .* Download"),
        (
            struct.pack("<Q", len(HEADER)) + HEADER + bytes(4),
            r"is cut short: 66 bytes of 70 bytes are there\. Download",
        ),
        (
            struct.pack("<Q", len(HEADER)) + HEADER.replace(b"[2]", b"[3]") + bytes(8),
            "damaged: its header makes no sense",
        ),
        (
            struct.pack("<Q", len(HEADER)) + HEADER.replace(b"}}", b"}]") + bytes(8),
            "damaged: its header makes no sense",
        ),
        (struct.pack("<Q", 11) + b'{"a": [[1]]' + bytes(8), "damaged: its header makes no sense"),
        (struct.pack("<Q", 200_000) + b"{" + b"[" * 200_000, "damaged|makes no sense"),
    ],
)
def test_what_is_no_safetensors_file_is_named(tmp_path, content, message):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=message) as error:
        inspect(path)
    assert str(path) in str(error.value)


def test_what_is_not_there_is_said(tmp_path):
    with pytest.raises(ModelError, match="there is no model .*nothing.safetensors"):
        inspect(tmp_path / "nothing.safetensors")
    with pytest.raises(ModelError, match="there is no model checkpoints/nothing.safetensors"):
        inspect("checkpoints/nothing.safetensors")
    with pytest.raises(ModelError, match="no model was given.*model.path"):
        inspect("")


def test_a_file_that_vanishes_is_said(tmp_path):
    path = few(tmp_path / "x.safetensors", "a")
    weights = Weights([path])
    path.unlink()
    with pytest.raises(ModelError, match="could not be read"), weights.reading() as read:
        read("a")
    with pytest.raises(ModelError, match="could not be read"):
        weights.fingerprint(["a"])


def test_several_files_are_one_model(tmp_path):
    weights = Weights([few(tmp_path / "1.safetensors", "a"), few(tmp_path / "2.safetensors", "b", "c")])
    assert set(weights.stored) == {"a", "b", "c"} and weights.n_bytes == 48 and weights.shape("d") is None
    with weights.reading() as read:
        assert read("c").shape == (2, 2)
