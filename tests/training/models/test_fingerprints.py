"""Two models are the same only if every byte of their weights is, and a large file is read once for that."""

import hashlib
import json
import os
import shutil
import tracemalloc

import pytest
import torch
from safetensors.torch import load_file, save_file

from training.models import ModelError, fingerprints, inspect
from training.models.weights import Weights

NAMES = ("a", "b")
LONG_AGO = 1_600_000_000_000_000_000  # ns


@pytest.fixture
def file(tmp_path):
    """Two tensors, 3 MB and 40 bytes, last changed long ago."""
    generator = torch.Generator().manual_seed(0)
    tensors = {"a": torch.randn(750_000, generator=generator), "b": torch.randn(10, generator=generator)}
    path = tmp_path / "model.safetensors"
    save_file(tensors, path)
    os.utime(path, ns=(LONG_AGO, LONG_AGO))
    return path


@pytest.fixture
def memory(tmp_path, monkeypatch):
    """The folder of what is remembered, where files of any size are, as soon as they are written; and what was read."""
    read = []

    def counting(stored, real=fingerprints._sum_of):
        read.append(stored.n_bytes)
        return real(stored)

    monkeypatch.setattr(fingerprints, "_WORTH", 0)
    monkeypatch.setattr(fingerprints, "_SETTLED", -1)
    monkeypatch.setattr(fingerprints, "_sum_of", counting)
    monkeypatch.setattr(fingerprints, "_folder", lambda: folder)
    folder = tmp_path / "memory"
    folder.mkdir()
    yield folder, read
    fingerprints._known.clear()


def fingerprint(*files) -> str:
    """As another process finds it: nothing is known but what is on the disk."""
    fingerprints._known.clear()
    return Weights(files).fingerprint(NAMES)


def set_byte(path, place: int) -> None:
    """Changes a byte, and leaves the file's size and the time of its change as they were."""
    before = path.stat()
    with open(path, "r+b") as file:
        file.seek(place)
        (byte,) = file.read(1)
        file.seek(place)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


# ---- what is told apart ----


@pytest.mark.parametrize("place", [-1, -41, -1_500_000, -3_000_000], ids=["last", "end of a", "middle", "early"])
def test_a_byte_anywhere_makes_other_weights(file, place):
    before = fingerprint(file)
    set_byte(file, file.stat().st_size + place)
    assert fingerprint(file) != before


def test_a_model_with_one_value_changed_deep_in_a_tensor_is_another(checkpoint, tmp_path):
    """As long as its first kilobytes were the same, it was taken for the same."""
    source, other = checkpoint("sd15"), tmp_path / "other.safetensors"
    tensors = load_file(source)
    name = max((n for n in tensors if n.startswith("model.diffusion_model.")), key=lambda n: tensors[n].numel())
    assert tensors[name].nbytes > 2048
    tensors[name].view(-1)[-1] += 1
    save_file(tensors, other)
    assert inspect(source, f"{source}.config").fingerprint != inspect(other, f"{source}.config").fingerprint


def test_looking_at_a_model_reads_no_weights(checkpoint, memory):
    """So that whatever else is wrong with a run is said at once."""
    source, (_, read) = checkpoint("sd15"), memory
    found = inspect(source, f"{source}.config")
    assert not read
    assert found.fingerprint and read


def test_types_shapes_and_names_count_beside_values(tmp_path):
    values = torch.arange(10, dtype=torch.int32)
    found = set()
    for number, other in enumerate([values, values.view(2, 5), values.float(), values.view(torch.float32)]):
        save_file({"a": values, "b": other.clone()}, tmp_path / f"{number}.safetensors")
        found.add(fingerprint(tmp_path / f"{number}.safetensors"))
    assert len(found) == 4


def test_copies_and_other_shards_are_the_same(file, tmp_path):
    copy = shutil.copy(file, tmp_path / "copy.safetensors")
    for name, tensor in load_file(file).items():
        save_file({name: tensor, f"not {name}": -tensor}, tmp_path / f"{name}.safetensors")
    assert fingerprint(file) == fingerprint(copy) == fingerprint(*(tmp_path / f"{n}.safetensors" for n in NAMES))


def test_it_is_sha256_of_each_tensor_s_sha256(file):
    sums = [hashlib.sha256(tensor.numpy().tobytes()).digest() for tensor in load_file(file).values()]
    heads = [repr((name, "F32", (n,))).encode() for name, n in (("a", 750_000), ("b", 10))]
    assert fingerprint(file) == hashlib.sha256(heads[0] + sums[0] + heads[1] + sums[1]).hexdigest()


def test_memory_stays_flat(tmp_path):
    path = tmp_path / "large.safetensors"
    save_file(dict.fromkeys(NAMES, torch.zeros(1)) | {"a": torch.zeros(20_000_000, dtype=torch.uint8)}, path)
    weights = Weights([path])
    tracemalloc.start()
    try:
        weights.fingerprint(NAMES)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_a_file_that_became_shorter_is_said(file):
    weights = Weights([file])
    os.truncate(file, file.stat().st_size - 1)
    with pytest.raises(ModelError, match="model.safetensors could not be read: it has become shorter"):
        weights.fingerprint(NAMES)


# ---- what is remembered ----


def test_a_file_is_read_once(file, memory):
    _, read = memory
    first = fingerprint(file)
    assert sum(read) == 3_000_040 and fingerprint(file) == first and sum(read) == 3_000_040


def test_in_one_process_it_is_known_without_a_place_to_write_to(file, memory, monkeypatch):
    def refused():
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(fingerprints, "_folder", refused)
    _, read = memory
    found = [Weights([file]).fingerprint(NAMES) for _ in range(3)]
    assert len(set(found)) == 1 and sum(read) == 3_000_040
    assert fingerprint(file) == found[0] and sum(read) == 6_000_080


@pytest.mark.skipif(os.name == "nt", reason="Windows has no time of a file's last change of any kind")
def test_a_file_whose_times_were_set_back_is_read_again(file, memory):
    before = fingerprint(file)
    set_byte(file, 2_000_000)
    assert file.stat().st_mtime_ns == LONG_AGO and fingerprint(file) != before


def test_what_changes_while_it_is_read_or_was_just_written_is_not_remembered(file, memory, monkeypatch):
    folder, _ = memory

    def changing(stored, real=fingerprints._sum_of):
        os.utime(file)
        return real(stored)

    with monkeypatch.context() as patched:
        patched.setattr(fingerprints, "_sum_of", changing)
        fingerprint(file)
    assert not list(folder.iterdir()) and not fingerprints._known
    monkeypatch.setattr(fingerprints, "_SETTLED", 3600)
    fingerprint(file)
    assert not list(folder.iterdir()) and not fingerprints._known


def damage(text: str) -> list[str]:
    """A memory that is cut short, empty, of another shape, another's, or with a digit changed by hand."""
    kept = json.loads(text)
    digits = kept["fingerprint"]
    wrong = kept | {"fingerprint": digits[:-1] + ("0" if digits[-1] != "0" else "1")}
    return [text[:-9], "", "[]", "null", json.dumps({"files": kept["files"]}), json.dumps(wrong)]


@pytest.mark.parametrize("number", range(6))
def test_a_damaged_memory_counts_for_nothing_and_is_mended(file, memory, number):
    folder, read = memory
    before = fingerprint(file)
    (path,) = folder.iterdir()
    whole = path.read_text()
    path.write_text(damage(whole)[number])
    assert fingerprint(file) == before and sum(read) == 6_000_080
    assert [other.read_text() for other in folder.iterdir()] == [whole]


def test_the_memory_of_other_tensors_or_of_a_changed_file_is_not_taken(file, memory):
    _, read = memory
    before = fingerprint(file)
    assert Weights([file]).fingerprint(["a"]) != before
    tensors = load_file(file)
    tensors["b"] += 1
    save_file(tensors, file)
    assert fingerprint(file) != before and len(read) == 5


def test_small_files_leave_nothing_behind(file, memory, monkeypatch):
    folder, _ = memory
    monkeypatch.setattr(fingerprints, "_WORTH", 3_000_041)
    fingerprint(file)
    assert not list(folder.iterdir())


def test_it_is_kept_among_the_assets_of_huggingface_hub(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._cache_assets.HF_ASSETS_CACHE", str(tmp_path), raising=True)
    assert fingerprints._folder().is_relative_to(tmp_path)


def test_a_bar_is_shown_of_what_takes_long_alone(file, monkeypatch, capsys):
    fingerprint(file)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(fingerprints, "_SHOWN", 1e-9)
    fingerprint(file)
    assert "hashing the weights" in capsys.readouterr().err
