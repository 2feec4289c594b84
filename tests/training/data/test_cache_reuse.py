"""What a cache has is used again; what is of another setting, damaged or missing is not."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from some_data import (
    SETTINGS,
    FakeEncoders,
    Said,
    as_bytes,
    blocks_of,
    drawn,
    encoded,
    latents_of,
    tree,
    write_folder,
)

from training.data.cache import Cache
from training.data.folder import PictureFolder
from training.data.items import DataError
from training.data.settings import identity


def test_a_second_pass_asks_the_encoders_for_nothing_and_changes_nothing(tmp_path):
    source = PictureFolder(write_folder(tmp_path / "in", 9))
    encoded(source, tmp_path / "cache")
    before = tree(tmp_path / "cache")

    class OnlyItsName:
        fingerprint = "fake"

    said = Said()
    encoded(source, tmp_path / "cache", OnlyItsName(), say=said)
    assert tree(tmp_path / "cache") == before and "All of it is in the cache already" in str(said)


def test_new_pictures_and_captions_are_encoded_and_nothing_else(tmp_path):
    folder = write_folder(tmp_path / "in", 6)
    first = encoded(PictureFolder(folder), tmp_path / "cache")
    (folder / "000.txt").write_text("another caption")
    (folder / "001.png").rename(folder / "renamed.png")
    (folder / "001.txt").rename(folder / "renamed.txt")
    (folder / "new.png").write_bytes(as_bytes(drawn(99)))
    (folder / "new.txt").write_text("picture of 0")
    encoders = FakeEncoders()
    second = encoded(PictureFolder(folder), tmp_path / "cache", encoders)
    assert encoders.shapes == [(1, 3, 64, 64)] and encoders.captions == ["", "another caption"]
    assert first.folder != second.folder and len(Cache.open(first.folder)) == 6 and len(second) == 7
    assert torch.equal(latents_of(first)["001.png"], latents_of(second)["renamed.png"])


@pytest.mark.parametrize(
    "changed",
    [
        {"resolution": 80},
        {"bucket_step": 8},
        {"max_aspect": 1.5},
        {"crop": "random"},
        {"teacher_steps": 10},
        {"teacher_w": 2.0},
    ],
)
def test_a_cache_of_another_setting_is_not_used(tmp_path, changed):
    source = PictureFolder(write_folder(tmp_path / "in", 5))
    first = encoded(source, tmp_path / "cache")
    other, encoders = replace(SETTINGS, **changed), FakeEncoders()
    second = encoded(source, tmp_path / "cache", encoders, other)
    assert sum(shape[0] for shape in encoders.shapes) == 5 and "picture of 0" in encoders.captions
    assert first.folder.parent != second.folder.parent
    (name,) = changed
    with pytest.raises(DataError, match=rf"was made with other settings: {name} is .* there and .* here"):
        Cache.open(first.folder, identity(other, "fake"))


def test_a_cache_of_another_models_encoders_is_not_used(tmp_path):
    source = PictureFolder(write_folder(tmp_path / "in", 5))
    first = encoded(source, tmp_path / "cache")
    second = encoded(source, tmp_path / "cache", FakeEncoders("other model", 3.0))
    one, two = latents_of(first), latents_of(second)
    assert all(not torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(DataError, match="encoders is 'fake' there and 'other model' here"):
        Cache.open(first.folder, second.identity)


def test_blocks_and_indices_that_were_copied_in_from_another_setting_are_not_used(tmp_path):
    source, other = PictureFolder(write_folder(tmp_path / "in", 5)), FakeEncoders("other model", 3.0)
    first = encoded(source, tmp_path / "cache")
    honest = encoded(source, tmp_path / "honest", other)
    shutil.copytree(first.folder.parent, blocks_of(tmp_path / "cache", encoders="other model"))
    with pytest.raises(DataError, match="encoders is 'fake' there and 'other model' here"):
        Cache.open(blocks_of(tmp_path / "cache", encoders="other model") / first.folder.name, honest.identity)
    said = Said()
    second = encoded(source, tmp_path / "cache", other, say=said)
    assert "is not used, and encoded again if it is needed: it is of other settings" in str(said)
    assert tree(second.folder.parent) == tree(honest.folder.parent)


def test_a_shorter_side_that_is_allowed_changes_what_is_used_but_not_what_is_stored(tmp_path):
    folder = write_folder(tmp_path / "in", 6)
    all_of_it = encoded(PictureFolder(folder), tmp_path / "cache")
    encoders = FakeEncoders()
    fewer = encoded(PictureFolder(folder), tmp_path / "cache", encoders, replace(SETTINGS, min_side=35))
    assert len(all_of_it) == 6 and fewer.names == ["000.png", "003.png"] and encoders.shapes == []
    assert "001.png: too small: 60 × 30 pixels" in (fewer.folder / "skipped.txt").read_text()


@pytest.mark.parametrize(
    "damage", [lambda data: data[:-1], lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"{" * 50]
)
def test_a_damaged_block_is_never_used_and_made_again(tmp_path, damage):
    source = PictureFolder(write_folder(tmp_path / "in", 9))
    cache = encoded(source, tmp_path / "cache")
    whole = tree(tmp_path / "cache")
    for kind in ("pictures", "texts"):
        block = sorted(cache.folder.parent.glob(f"{kind}-*"))[0]
        block.write_bytes(damage(block.read_bytes()))
        with pytest.raises(DataError, match=rf"{kind}-.* is damaged: \d+ bytes where \d+ were written. Start the run"):
            Cache.open(cache.folder)
        encoders = FakeEncoders()
        encoded(source, tmp_path / "cache", encoders)
        assert len(encoders.shapes) + len(encoders.captions) < 8 and tree(tmp_path / "cache") == whole


def test_a_missing_block_index_or_settings_are_named(tmp_path):
    cache = encoded(PictureFolder(write_folder(tmp_path / "in", 9)), tmp_path / "cache")
    copies = [tmp_path / str(i) for i in range(4)]
    for copy in copies:
        shutil.copytree(tmp_path / "cache", copy)
    blocks = [next(copy.iterdir()) for copy in copies]
    index = cache.folder.name
    next(blocks[0].glob("pictures-*")).unlink()
    (blocks[1] / index / "index.json").unlink()
    (blocks[2] / index / "index.json").write_text('{"version": 1, "items"')
    (blocks[3] / "settings.json").unlink()
    words = [
        "pictures-.* is missing",
        "is no finished cache: it has no index.json",
        "is damaged",
        "settings.json is missing",
    ]
    for folder, what in zip(blocks, words, strict=True):
        with pytest.raises(DataError, match=what):
            Cache.open(folder / index)


def test_an_index_of_a_later_version_is_refused(tmp_path):
    cache = encoded(PictureFolder(write_folder(tmp_path / "in", 3)), tmp_path / "cache")
    index = json.loads((cache.folder / "index.json").read_text())
    (cache.folder / "index.json").write_text(json.dumps(index | {"version": 99}))
    with pytest.raises(DataError, match="it is of version 99, this is version 1"):
        Cache.open(cache.folder)
