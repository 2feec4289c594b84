"""Batches from a finished cache."""

from collections import Counter

import pytest
import torch
from some_data import FakeEncoders, as_bytes, drawn, encoded, write_folder

from training.data.blocks import Reader
from training.data.cache import Cache
from training.data.folder import PictureFolder


@pytest.fixture
def cache(tmp_path):
    return encoded(PictureFolder(write_folder(tmp_path / "in", 14)), tmp_path / "cache")


def same(one, two):
    torch.testing.assert_close(tuple(one), tuple(two), rtol=0, atol=0)


def test_a_batch_is_of_one_size_with_the_captions_and_sizes_of_its_rows(cache):
    for step in range(6):
        rows, latents, texts, sizes = cache.batch(step, 4, 0, "tcd")
        assert latents.shape[:2] == (4, 4) and len(sizes[:, 4:].unique(dim=0)) == 1
        assert tuple(latents.shape[2:]) == tuple((sizes[0, 4:] / 8).int().tolist())
        captions = [f"picture of {int(cache.names[row][:3]) // 2}" for row in rows]
        for name, wanted in FakeEncoders().texts(captions).items():
            torch.testing.assert_close(texts[name], wanted, rtol=0, atol=0)
        assert sizes.dtype == torch.float32 and torch.equal(sizes, cache.sizes[rows])


def test_a_batch_follows_from_its_arguments_in_a_cache_that_was_opened_again(cache):
    again = Cache.open(cache.folder, cache.identity)
    for step in reversed(range(8)):
        same(cache.batch(step, 4, 7, "tcd", dropout=0.5), again.batch(step, 4, 7, "tcd", dropout=0.5))
    assert cache.batch(3, 4, 7, "tcd").rows.tolist() != cache.batch(3, 4, 8, "tcd").rows.tolist()


@pytest.mark.parametrize("processes", [2, 4])
def test_processes_parts_make_up_the_batch_and_nothing_else_is_read(cache, processes, monkeypatch):
    read, asked = Reader.__call__, []
    monkeypatch.setattr(
        Reader, "__call__", lambda self, file, key, names: asked.append(key) or read(self, file, key, names)
    )
    whole = cache.batch(2, 8, 0, "tcd", dropout=0.3)
    asked.clear()
    size = 8 // processes
    parts = [cache.batch(2, 8, 0, "tcd", slice(i * size, (i + 1) * size), 0.3) for i in range(processes)]
    assert len(asked) == 2 * 8
    for name in ("rows", "latents", "sizes"):
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))
    assert torch.equal(torch.cat([part.texts["pooled"] for part in parts]), whole.texts["pooled"])


def test_an_epoch_shows_each_item_repeats_times(tmp_path):
    folder = write_folder(tmp_path / "in", 3)
    write_folder(folder / "3_more", 5)
    cache = encoded(PictureFolder(folder), tmp_path / "cache")
    assert len(cache) == 8 and cache.epoch == 3 + 15
    seen = Counter(cache.names[row] for step in range(18) for row in cache.batch(step, 1, 0, "s").rows)
    assert seen == {name: 3 if name.startswith("3_more/") else 1 for name in cache.names}
    assert sum(cache.buckets.values()) == 18 and set(cache.buckets) == {(64, 64), (80, 48), (48, 80)}


def test_dropped_captions_are_the_empty_one_in_their_share(cache):
    empty = cache.texts([""])["pooled"][0]

    def share(dropout):
        batches = [cache.batch(step, 4, 0, "s", dropout=dropout).texts["pooled"] for step in range(200)]
        return (torch.cat(batches) == empty).all(1).float().mean().item()

    assert share(0.0) == 0 and share(1.0) == 1 and share(0.25) == pytest.approx(0.25, abs=0.06)


def test_pictures_that_are_there_twice_are_stored_once_and_seen_twice(tmp_path):
    folder = write_folder(tmp_path / "in", 4)
    (folder / "copy.png").write_bytes((folder / "000.png").read_bytes())
    (folder / "copy.txt").write_text("another caption")
    encoders = FakeEncoders()
    cache = encoded(PictureFolder(folder), tmp_path / "cache", encoders)
    assert len(cache) == 5 and sum(shape[0] for shape in encoders.shapes) == 4
    seen = Counter(cache.names[row] for step in range(5) for row in cache.batch(step, 1, 0, "s").rows)
    assert set(seen.values()) == {1} and len(seen) == 5


def test_the_first_captions_are_there_in_words(tmp_path):
    folder = write_folder(tmp_path / "in", 9)
    (folder / "000.png").write_bytes((folder / "000.png").read_bytes()[:300])
    (folder / "001.png").unlink()
    cache = encoded(PictureFolder(folder), tmp_path / "cache", captions=["for validation"])
    assert cache.captions(2) == ["picture of 1", "picture of 2"]
    assert cache.captions(9) == [f"picture of {i}" for i in range(1, 5)]


def test_more_files_than_are_held_open_at_a_time(cache):
    few = Cache.open(cache.folder)
    few._read.limit = 1
    for step in range(6):
        same(cache.batch(step, 4, 0, "s"), few.batch(step, 4, 0, "s"))
    assert len(few._read._open) == 1


def test_a_file_that_goes_while_the_cache_is_open_is_an_error_for_people(cache):
    for path in cache.folder.parent.glob("pictures-*"):
        path.unlink()
    with pytest.raises(ValueError, match=r"pictures-.* cannot be read: .*No such file.*Start the run again"):
        cache.batch(0, 4, 0, "s")


def test_a_single_picture_is_enough(tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "a.png").write_bytes(as_bytes(drawn(0)))
    (folder / "a.txt").write_text("a")
    cache = encoded(PictureFolder(folder), tmp_path / "cache")
    assert cache.batch(5, 4, 0, "s").rows.tolist() == [0, 0, 0, 0]
