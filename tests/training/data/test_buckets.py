"""The sizes that pictures are cropped to, and the crop."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.data.buckets import Size, bucket_for, buckets, fit, sizes_record
from training.data.items import DataError
from training.data.settings import Settings


@pytest.mark.parametrize(
    "resolution, step, aspect", [(1024, 64, 2.0), (512, 64, 2.0), (768, 8, 3.0), (1000, 64, 1.5), (512, 64, 1.0)]
)
def test_buckets_keep_area_step_and_aspect_in_both_orientations_and_none_holds_another(resolution, step, aspect):
    sizes, square = buckets(resolution, step, aspect), Size(*[resolution // step * step] * 2)
    for width, height in sizes:
        assert width * height <= resolution**2 and width % step == height % step == 0
        assert max(width / height, height / width) <= aspect
        assert Size(height, width) in sizes
        inside = any((w, h) != (width, height) and w >= width and h >= height for w, h in sizes)
        assert not inside or (width, height) == square
    assert square in sizes


def test_sdxls_and_sd15s():
    tall = [Size(704, 1408), Size(768, 1344), Size(832, 1216), Size(896, 1152), Size(960, 1088)]
    wide = [Size(h, w) for w, h in reversed(tall)]
    assert list(buckets(1024)) == [*tall, Size(1024, 1024), *wide]
    assert list(buckets(512)) == [(384, 640), (448, 576), (512, 512), (576, 448), (640, 384)]


@given(st.integers(16, 5000), st.integers(16, 5000), st.floats(0, 1), st.floats(0, 1))
def test_every_picture_fits_one_with_its_crop_inside(width, height, right, down):
    sizes = buckets(512)
    bucket = bucket_for(width, height, sizes)
    nearest = min(abs(math.log(w / h * height / width)) for w, h in sizes)
    assert abs(math.log(bucket.width / bucket.height * height / width)) <= nearest + 1e-8
    crop = fit(Size(width, height), bucket, right, down)
    assert 0 <= crop.left <= crop.scaled.width - bucket.width and 0 <= crop.top <= crop.scaled.height - bucket.height
    assert crop.scaled.width == bucket.width or crop.scaled.height == bucket.height
    assert bucket_for(height, width, sizes) == (bucket.height, bucket.width) or width / height == pytest.approx(
        1, rel=0.2
    )


def test_sizes_are_recorded_as_sdxl_is_told_them():
    size, bucket = Size(3000, 1000), bucket_for(3000, 1000, buckets(1024))
    crop = fit(size, bucket)
    assert bucket == (1408, 704) and crop == (Size(2112, 704), 352, 0)
    assert sizes_record(size, bucket, crop) == (1000, 3000, 0, 352, 704, 1408)


@pytest.mark.parametrize(
    "values, words",
    [
        ((512, 20, 2.0), "bucket_step must be a multiple of 8 pixels, got 20"),
        ((512, 0, 2.0), "bucket_step must be a multiple of 8"),
        ((32, 64, 2.0), "model.resolution must be at least data.bucket_step = 64 pixels, got 32"),
        ((512, 64, 0.5), "max_aspect must be at least 1, got 0.5"),
        ((512, 64, float("nan")), "max_aspect must be at least 1, got nan"),
    ],
)
def test_numbers_that_leave_no_bucket_are_refused(values, words):
    with pytest.raises(DataError, match=words):
        buckets(*values)


def test_the_teachers_pictures_are_square():
    assert Settings(1024).square == (1024, 1024) and Settings(1000).square == (960, 960)
