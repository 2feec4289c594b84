"""Data of which some or all cannot be used, and passes that are refused."""

import os
import shutil
from collections import namedtuple
from dataclasses import replace

import pytest
import torch
from some_data import (
    SETTINGS,
    FakeEncoders,
    Said,
    as_bytes,
    drawn,
    encoded,
    png_bomb,
    tree,
    write_folder,
    write_tar,
)

from training.data.cache import Cache, estimate
from training.data.folder import PictureFolder
from training.data.items import DataError, Item
from training.data.plan import make_plan
from training.data.shards import Shards
from training.disk import OutputError
from training.folder_lock import lock


def test_what_cannot_be_used_is_counted_listed_and_in_a_file_and_the_rest_goes_on(tmp_path):
    folder = write_folder(tmp_path / "in", 5)
    data = (folder / "002.png").read_bytes()
    (folder / "002.png").write_bytes(data[: len(data) // 2])  # its header is whole
    (folder / "bomb.png").write_bytes(png_bomb(60_000))
    (folder / "bomb.txt").write_text("a bomb")
    (folder / "latin.png").write_bytes(as_bytes(drawn(50)))
    (folder / "latin.txt").write_bytes("café".encode("latin-1"))
    (folder / "tiny.png").write_bytes(as_bytes(drawn(51, 8, 8)))
    (folder / "tiny.txt").write_text("tiny")
    said = Said()
    cache = encoded(PictureFolder(folder), tmp_path / "cache", say=said)
    assert cache.names == ["000.png", "001.png", "003.png", "004.png"]
    assert "3 skipped:" in str(said) and "1 more were skipped, damaged:\n  002.png: damaged or cut short" in str(said)
    lines = (cache.folder / "skipped.txt").read_text().splitlines()
    assert [line.split(":")[0] for line in lines] == ["bomb.png", "latin.png", "tiny.png", "002.png"]
    assert "too large: 60000 × 60000 pixels" in lines[0] or "too large: it would unpack" in lines[0]
    assert "not UTF-8 (byte 0xe9" in lines[1] and "too small: 8 × 8" in lines[2]
    assert f"All 4 that were skipped are listed in {cache.folder / 'skipped.txt'}" in str(said)
    encoders = FakeEncoders()
    again = encoded(PictureFolder(folder), tmp_path / "cache", encoders)
    assert encoders.shapes == [] and again.folder == cache.folder, "what is damaged is not tried again"


def test_a_truncated_shard_is_named_and_what_is_before_the_cut_is_used(tmp_path):
    folder = write_folder(tmp_path / "in", 6)
    files = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
    whole = write_tar(tmp_path / "a.tar", files).read_bytes()
    (tmp_path / "a.tar").write_bytes(whole[: whole.index(b"004.png")])
    said = Said()
    cache = encoded(Shards(str(tmp_path / "a.tar")), tmp_path / "cache", say=said)
    assert cache.names == [f"a.tar/{i:03}" for i in range(4)]
    assert f"{tmp_path / 'a.tar'}: the shard is damaged after 4 samples" in str(said)


def test_only_the_first_ten_are_shown(tmp_path):
    folder = write_folder(tmp_path / "in", 15)
    for i in range(13):
        (folder / f"{i:03}.txt").unlink()
    said = Said()
    encoded(PictureFolder(folder), tmp_path / "cache", say=said)
    assert "13 skipped" in str(said) and str(said).count("no caption") == 10 and "and 3 more" in str(said)


def test_nothing_left_over_is_an_error_with_the_reasons(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    for path in folder.glob("*.txt"):
        path.unlink()
    encoders = FakeEncoders()
    with pytest.raises(DataError, match=r"all 3 were skipped.\n  000.png: no caption: 000.txt is not beside it\n  001"):
        encoded(PictureFolder(folder), tmp_path / "cache", encoders)
    assert encoders.captions == []
    for path in folder.iterdir():
        path.unlink()
    with pytest.raises(DataError, match="the folder .*in holds nothing to train on"):
        encoded(PictureFolder(folder), tmp_path / "cache")


def test_nothing_left_over_after_decoding_is_an_error_too_each_time(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    for path in folder.glob("*.png"):
        path.write_bytes(path.read_bytes()[:300])
    for _ in range(2):
        with pytest.raises(DataError, match=r"all 3 were skipped.\n  000.png: damaged or cut short"):
            encoded(PictureFolder(folder), tmp_path / "cache")


def test_values_that_are_not_finite_name_the_picture_and_the_way_out(tmp_path):
    class Overflowing(FakeEncoders):
        def latents(self, pixels):
            return super().latents(pixels) * torch.inf

    source = PictureFolder(write_folder(tmp_path / "in", 3))
    with pytest.raises(DataError, match=r"the VAE gave NaN or infinity for '000.png': its weights .* fp16"):
        encoded(source, tmp_path / "cache", Overflowing())
    assert not list(tmp_path.glob("cache/*/pictures-*"))


@pytest.mark.parametrize("call", [1, 2])
def test_data_that_change_during_the_pass_are_an_error(tmp_path, call):
    pictures = [as_bytes(drawn(i)) for i in range(4)]

    class Changing:
        passes = 0

        def __iter__(self):
            self.passes += 1
            shown = pictures if self.passes == 1 else [pictures[:2], [*pictures[:2], *pictures[:2]]][call - 1]
            return iter([Item(str(i), "c", 1, lambda data=data: data) for i, data in enumerate(shown)])

    with pytest.raises(DataError, match="was changed while the data were being read. Start it again"):
        encoded(Changing(), tmp_path / "cache")


def test_too_little_space_is_told_before_anything_is_encoded(tmp_path, monkeypatch):
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage(10**6, 10**6 - 5000, 5000))
    encoders = FakeEncoders()
    with pytest.raises(OutputError, match=r"too little space .* 5.0 kB are free. .* --data.cache"):
        encoded(PictureFolder(write_folder(tmp_path / "in", 9)), tmp_path / "cache", encoders)
    assert encoders.shapes == []


def test_the_estimate_is_near_what_the_cache_takes_and_is_told(tmp_path):
    class Larger(FakeEncoders):
        def texts(self, captions):
            return {"encoder_hidden_states": torch.zeros(len(captions), 77, 64, dtype=torch.float16)}

    source = PictureFolder(write_folder(tmp_path / "in", 12, ((256, 256), (400, 200))))
    settings = replace(SETTINGS, resolution=256)
    planned = make_plan(source, settings, tmp_path / "none", "", say=Said())
    wanted = estimate(planned, 77 * 64 * 2)
    assert (wanted.pictures, wanted.captions) == (12, 7)
    said = Said()
    encoded(source, tmp_path / "cache", Larger(), settings, say=said)
    assert f"To encode: 12 pictures, 7 captions; about {wanted.n_bytes / 1000:.1f} kB" in str(said)
    taken = sum(len(data) for data in tree(tmp_path / "cache").values())
    assert 0.9 * taken < wanted.n_bytes < 1.1 * taken


def test_a_cache_that_another_run_writes_to_is_refused_and_can_be_read(tmp_path):
    source = PictureFolder(write_folder(tmp_path / "in", 3))
    cache = encoded(source, tmp_path / "cache")
    with lock(cache.folder.parent):
        with pytest.raises(OutputError, match=f"in use by process {os.getpid()} .* --data.cache"):
            encoded(source, tmp_path / "cache")
        assert len(Cache.open(cache.folder)) == 3
