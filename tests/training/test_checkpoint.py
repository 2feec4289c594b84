"""Checkpoints: what goes in comes out, damage is seen, and a disk that fails leaves the earlier ones."""

import errno
import logging
import os
import pickle
import random
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from training import checkpoint, disk
from training.checkpoint import CheckpointError, last_good, newest, save


def state_of(step: int, size: int = 1000) -> dict:
    return {"step": step, "weights": torch.full((size,), float(step)), "rng": torch.get_rng_state()}


def saved(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- what goes in comes out ----


def test_state_comes_back_bit_for_bit(tmp_path):
    model = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.randn(4, 3)).sum().backward()
    optimiser.step()
    state = {
        "model": model.state_dict(),
        "optimiser": optimiser.state_dict(),
        "python": random.getstate(),
        "half": torch.tensor([1.5, float("nan")], dtype=torch.float16),
        "words": ["a", None, True, 2**70, -0.0, {"deep": OrderedDict(x=(1, b"y"))}],
    }
    path = save(tmp_path, 7, state, keep=1)
    found_path, found = newest(tmp_path)
    assert found_path == path == tmp_path / "step_00000007.pt"
    assert found["python"] == random.getstate() and found["words"] == state["words"]
    assert found["half"].view(torch.int16).tolist() == state["half"].view(torch.int16).tolist()
    assert all(torch.equal(found["model"][key], value) for key, value in state["model"].items())
    again = torch.optim.AdamW(model.parameters())
    again.load_state_dict(found["optimiser"])
    assert torch.equal(*(o.state_dict()["state"][0]["exp_avg_sq"] for o in (again, optimiser)))


def test_only_the_newest_are_kept(tmp_path):
    for step in (5, 10, 15, 20):
        save(tmp_path, step, state_of(step), keep=2)
    assert saved(tmp_path) == ["step_00000015.pt", "step_00000020.pt"]


def test_steps_of_nine_digits_are_newer_than_steps_of_eight(tmp_path):
    for step in (99_999_999, 100_000_000):
        save(tmp_path, step, state_of(step), keep=2)
    assert newest(tmp_path)[1]["step"] == 100_000_000


def test_going_on_from_an_earlier_step_does_not_lose_the_new_checkpoint_to_a_damaged_later_one(tmp_path):
    for step in (100, 200):
        save(tmp_path, step, state_of(step), keep=2)
    (tmp_path / "step_00000200.pt").write_bytes(b"damaged")
    save(tmp_path, 150, state_of(150), keep=1)
    assert saved(tmp_path) == ["step_00000150.pt"]
    assert newest(tmp_path)[1]["step"] == 150


def test_no_folder_and_an_empty_one_have_no_checkpoint(tmp_path):
    assert newest(tmp_path) is None and newest(tmp_path / "none") is None and last_good(tmp_path) is None


def test_what_could_not_be_loaded_again_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(TypeError, match=r"state\['rng'\]\[1\] is a .*Path"):
        save(tmp_path, 1, {"rng": [1, Path("x")]}, keep=1)
    with pytest.raises(ValueError, match="keep >= 1"):
        save(tmp_path, 1, {}, keep=0)
    assert saved(tmp_path) == []


# ---- damage ----


@pytest.fixture
def two(tmp_path):
    """A folder with checkpoints of steps 100 and 200, and the path of the newer."""
    for step in (100, 200):
        save(tmp_path, step, state_of(step), keep=2)
    return tmp_path, tmp_path / "step_00000200.pt"


@pytest.mark.parametrize("length", [0, 1, 47, 48, 49, 0.1, 0.5, 0.9, -49, -48, -47, -8, -1])
def test_a_checkpoint_cut_short_is_skipped_for_the_one_before(two, caplog, length):
    folder, path = two
    data = path.read_bytes()
    path.write_bytes(data[: int(length * len(data))] if isinstance(length, float) else data[:length])
    with caplog.at_level(logging.WARNING):
        assert newest(folder)[1]["step"] == 100
    assert "step_00000200.pt is skipped: it is" in caplog.text
    assert last_good(folder).name == "step_00000100.pt"


def test_any_flipped_bit_is_seen(two, caplog):
    folder, path = two
    data = path.read_bytes()
    places = [0, 1, len(data) // 2, *range(len(data) - 48, len(data)), *random.Random(0).sample(range(len(data)), 40)]
    for place in places:
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        assert newest(folder)[1]["step"] == 100, place
    path.write_bytes(data)
    assert newest(folder)[1]["step"] == 200


@pytest.mark.parametrize("extra", [b"\0", b"x" * 100])
def test_bytes_after_the_end_are_seen(two, extra):
    folder, path = two
    path.write_bytes(path.read_bytes() + extra)
    assert newest(folder)[1]["step"] == 100


def test_nothing_left_after_damage_is_none_with_a_warning_each(two, caplog):
    folder, path = two
    for each in folder.iterdir():
        each.write_bytes(b"")
    assert newest(folder) is None
    assert caplog.text.count("is skipped") == 2


def test_an_unreadable_file_and_a_folder_with_its_name_are_skipped(two, caplog):
    folder, _ = two
    (folder / "step_00000300.pt").mkdir()
    (folder / "step_00000400.pt").symlink_to(folder / "gone")
    assert newest(folder)[1]["step"] == 200
    assert caplog.text.count("is skipped") == 2


class Exploding:
    """Unpickling this creates a file."""

    def __init__(self, trace: Path):
        self.trace = trace

    def __reduce__(self):
        return (Path.touch, (self.trace,))


def test_a_forged_checkpoint_with_a_right_sum_runs_no_code(two, caplog, tmp_path):
    folder, _ = two
    trace = tmp_path / "trace"
    with disk.replacing(folder / "step_00000300.pt") as file:
        checkpoint._write({"step": 300, "x": Exploding(trace)}, file)
    assert newest(folder)[1]["step"] == 200
    assert not trace.exists() and "cannot load it" in caplog.text


def test_a_damaged_checkpoint_is_not_unpickled(two, monkeypatch):
    folder, path = two
    path.write_bytes(pickle.dumps("anything") * 10)
    loaded = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: loaded.append(k) or load(*a, **k))
    assert newest(folder)[1]["step"] == 100
    assert loaded == [{"map_location": "cpu", "weights_only": True}]


# ---- disk full, folder gone ----


@pytest.mark.parametrize("after", [0, 1, 3, 10])
def test_a_disk_that_fills_up_leaves_the_earlier_checkpoints_and_says_how_to_go_on(two, monkeypatch, after):
    folder, _ = two
    writes = iter(range(after))

    class Full:
        def __init__(self, file):
            self.file = file

        def write(self, data):
            if next(writes, None) is None:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return self.file.write(data)

    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda state, file: write(state, Full(file)))
    with pytest.raises(CheckpointError) as error:
        save(folder, 300, state_of(300, size=10**6), keep=1)
    words = str(error.value)
    assert "step 300 was not written: No space left on device. It takes about 4.0 MB" in words and "are free" in words
    assert f"{folder / 'step_00000200.pt'}: free space" in words and "--resume" in words
    assert saved(folder) == ["step_00000100.pt", "step_00000200.pt"]
    assert newest(folder)[1]["step"] == 200


@pytest.mark.parametrize("function", ["fsync", "replace", "open"])
def test_a_failing_system_call_leaves_the_earlier_checkpoints(two, monkeypatch, function):
    folder, _ = two

    def fail(*args, **kwargs):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(disk if function == "open" else os, function, fail, raising=False)
        with pytest.raises(CheckpointError, match="Read-only file system"):
            save(folder, 300, state_of(300), keep=1)
    assert saved(folder) == ["step_00000100.pt", "step_00000200.pt"]


def test_the_last_good_one_named_is_one_that_can_be_read(two, monkeypatch):
    folder, path = two
    path.write_bytes(b"damaged")

    def fail(handle):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CheckpointError, match=r"last good one is .*step_00000100\.pt"):
        save(folder, 300, state_of(300), keep=1)


def test_a_run_folder_that_has_gone_is_reported(tmp_path):
    with pytest.raises(CheckpointError, match="No such file.*There is no earlier one"):
        save(tmp_path / "gone" / "checkpoints", 1, state_of(1), keep=1)
    (tmp_path / "file").touch()
    with pytest.raises(CheckpointError, match="begin again"):
        save(tmp_path / "file", 1, state_of(1), keep=1)


def test_ctrl_c_in_the_middle_of_a_save_is_ctrl_c(two, monkeypatch):
    folder, _ = two

    class Interrupting:
        def write(self, data):
            raise KeyboardInterrupt

    write = checkpoint._write
    monkeypatch.setattr(checkpoint, "_write", lambda state, file: write(state, Interrupting()))
    with pytest.raises(KeyboardInterrupt):
        save(folder, 300, state_of(300), keep=1)
    assert saved(folder) == ["step_00000100.pt", "step_00000200.pt"]


def test_an_old_checkpoint_that_cannot_be_deleted_does_not_stop_the_run(tmp_path, caplog):
    (tmp_path / "step_00000100.pt").mkdir()
    save(tmp_path, 200, state_of(200), keep=1)
    assert newest(tmp_path)[1]["step"] == 200 and "could not be deleted" in caplog.text
