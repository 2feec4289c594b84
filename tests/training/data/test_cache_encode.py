"""The pass that fills a cache: what is encoded, and how."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from some_data import SETTINGS, FakeEncoders, drawn, encoded, latents_of, write_folder, write_tar

from training.data.buckets import bucket_for, fit
from training.data.folder import PictureFolder
from training.data.items import DataError
from training.data.prompts import Prompts
from training.data.shards import Shards
from training.data.work import as_pixels


def test_the_cache_holds_what_the_encoders_make_of_each_picture_and_caption(tmp_path):
    encoders = FakeEncoders()
    cache = encoded(PictureFolder(write_folder(tmp_path / "in", 9)), tmp_path / "cache", encoders)
    assert len(cache) == 9 == cache.epoch
    latents = latents_of(cache)
    for i in range(9):
        picture = drawn(i, *((40, 40), (60, 30), (30, 60))[i % 3])
        bucket = bucket_for(*picture.size, SETTINGS.buckets)
        crop = fit(bucket.__class__(*picture.size), bucket)
        resized = picture.resize(crop.scaled, Image.Resampling.LANCZOS)
        resized = resized.crop((crop.left, crop.top, crop.left + bucket.width, crop.top + bucket.height))
        alone = FakeEncoders().latents(as_pixels([np.asarray(resized)]))[0]
        torch.testing.assert_close(latents[f"{i:03}.png"], alone, rtol=0, atol=0)
        caption = FakeEncoders().texts([f"picture of {i // 2}"])
        for name, tensor in cache.texts([f"picture of {i // 2}"]).items():
            torch.testing.assert_close(tensor, caption[name], rtol=0, atol=0)


def test_a_caption_is_embedded_once_and_the_empty_one_is_there_and_those_asked_for_besides(tmp_path):
    encoders = FakeEncoders()
    source = PictureFolder(write_folder(tmp_path / "in", 9))
    cache = encoded(source, tmp_path / "cache", encoders, captions=["for validation", "picture of 1"])
    assert encoders.captions == ["", "", *(f"picture of {i}" for i in range(5)), "for validation"]  # "" is tried first
    assert cache.texts(["", "for validation"])["pooled"].shape == (2, 5)
    with pytest.raises(DataError, match="the caption 'never' is not in the cache"):
        cache.texts(["never"])


def test_pictures_go_through_the_encoder_in_batches_of_one_size(tmp_path):
    encoders = FakeEncoders()
    encoded(PictureFolder(write_folder(tmp_path / "in", 8)), tmp_path / "cache", encoders, picture_batch=2)
    square, wide, tall = (3, 64, 64), (3, 48, 80), (3, 80, 48)  # in this turn, in blocks of 4
    assert encoders.shapes == [(2, *square), (1, *wide), (1, *tall), (2, *wide), (1, *tall), (1, *square)]


def test_pixels_are_minus_one_to_one():
    pixels = as_pixels([np.array([[[0, 255, 51]]], np.uint8)])
    torch.testing.assert_close(pixels, torch.tensor([-1.0, 1.0, -0.6]).reshape(1, 3, 1, 1))


def test_shards_give_the_same_cache_values_as_the_folder_they_were_made_of(tmp_path):
    folder = write_folder(tmp_path / "in", 7)
    write_tar(tmp_path / "a.tar", {path.name: path.read_bytes() for path in sorted(folder.iterdir())})
    one = encoded(PictureFolder(folder), tmp_path / "one")
    encoders = FakeEncoders()
    two = encoded(Shards(str(tmp_path / "a.tar")), tmp_path / "one", encoders)
    assert encoders.shapes == [] and encoders.captions == [], "the content is the same: nothing is encoded again"
    assert [f"a.tar/{name[:-4]}" for name in one.names] == two.names
    torch.testing.assert_close(list(latents_of(one).values()), list(latents_of(two).values()), rtol=0, atol=0)


def test_prompts_give_the_teachers_latents(tmp_path):
    (tmp_path / "p.txt").write_text("a\nb\nc\n")
    encoders = FakeEncoders()
    cache = encoded(Prompts(tmp_path / "p.txt", 3), tmp_path / "cache", encoders)
    assert len(cache) == 9 and len(encoders.prompts) == 9 and encoders.shapes == []
    assert {size for *_, size in encoders.prompts} == {(64, 64)} and len({seed for _, seed, _ in encoders.prompts}) == 9
    assert cache.sizes.unique(dim=0).tolist() == [[64, 64, 0, 0, 64, 64]]
    name, prompt, seed = "line 2, picture 3", "b", [s for p, s, _ in encoders.prompts if p == "b"][2]
    torch.testing.assert_close(latents_of(cache)[name], FakeEncoders().from_prompt([prompt], [seed], (64, 64))[0])


def test_prompts_need_to_know_what_the_teacher_did(tmp_path):
    (tmp_path / "p.txt").write_text("a\n")
    with pytest.raises(ValueError, match="latents from prompts need Settings.teacher_steps"):
        encoded(Prompts(tmp_path / "p.txt"), tmp_path / "cache", settings=replace(SETTINGS, teacher_steps=0))


def test_large_pictures_are_fine_without_a_word_of_the_library(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)  # it warns from here on, and refuses twice as many
    with warnings.catch_warnings(record=True) as warned:
        folder = write_folder(tmp_path / "in", 3, sizes=((80, 80),))
        assert len(encoded(PictureFolder(folder), tmp_path / "cache")) == 3
    assert not warned


def test_sizes_and_crops_are_recorded_and_a_random_crop_is_the_pictures_own(tmp_path):
    folder = write_folder(tmp_path / "in", 6, sizes=((200, 40), (40, 200)))
    centre = encoded(PictureFolder(folder), tmp_path / "cache")
    assert centre.sizes[:2].tolist() == [[40, 200, 0, 80, 48, 80], [200, 40, 80, 0, 80, 48]]
    settings = replace(SETTINGS, crop="random")
    random = encoded(PictureFolder(folder), tmp_path / "cache", settings=settings)
    again = encoded(PictureFolder(folder), tmp_path / "again", settings=settings)
    assert torch.equal(random.sizes, again.sizes) and not torch.equal(random.sizes, centre.sizes)
    assert len({tuple(size) for size in random.sizes[::2].tolist()}) > 1
