"""Picture files of every kind, and files that are none: each gives pixels or a reason."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from some_data import as_bytes, drawn, png_bomb, png_chunk

from training.data import pictures
from training.data.buckets import Fit, Size
from training.data.items import Unusable
from training.data.pictures import read, size_of, without_warnings


def whole(data: bytes) -> np.ndarray:
    """A picture neither scaled nor cropped."""
    size = size_of(data)
    return read(data, size, Fit(size, 0, 0))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_each_format_gives_its_pixels(kind):
    picture = drawn(3, 48, 32)
    found = whole(as_bytes(picture, kind, quality=95))
    assert found.shape == (32, 48, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.asarray(picture)).mean() < (6 if kind in ("JPEG", "WEBP") else 0.01)


def test_a_picture_is_scaled_to_cover_and_cropped_where_told():
    left_half_black = Image.fromarray(np.repeat([[[0, 0, 0], [255, 255, 255]]], 1, 0).astype(np.uint8)).resize(
        (80, 40), 0
    )
    crops = [read(as_bytes(left_half_black), Size(20, 20), Fit(Size(40, 20), left, 0)) for left in (0, 10, 20)]
    assert [float(c.mean()) for c in crops] == pytest.approx([0, 127.5, 255], abs=2)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exifs_rotation_is_done_in_the_size_and_in_the_pixels(orientation):
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8] = 255  # a white corner at the upper left
    turn = {1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud}
    turn |= {5: lambda a: np.swapaxes(a, 0, 1), 6: lambda a: np.rot90(a, 1)}
    turn |= {7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2), 8: lambda a: np.rot90(a, 3)}
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = as_bytes(Image.fromarray(np.ascontiguousarray(turn[orientation](upright))), exif=exif)
    assert size_of(data) == (24, 16)
    np.testing.assert_array_equal(whole(data), upright)


def test_transparent_parts_are_white():
    clear = Image.new("RGBA", (16, 16), (255, 0, 0, 0))
    clear.putpixel((3, 4), (0, 0, 255, 255))
    for picture in (clear, clear.convert("LA").convert("RGBA")):
        assert tuple(whole(as_bytes(picture))[0, 0]) == (255, 255, 255)
    assert tuple(whole(as_bytes(clear))[4, 3]) == (0, 0, 255)
    palette = Image.new("P", (16, 16), 0)
    assert tuple(whole(as_bytes(palette, transparency=0))[0, 0]) == (255, 255, 255)


def test_cmyk_grey_bilevel_and_16_bit_become_rgb():
    red = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    assert np.abs(whole(as_bytes(red, "JPEG"))[0, 0].astype(int) - [255, 0, 0]).max() < 12
    assert tuple(whole(as_bytes(Image.new("L", (16, 16), 77)))[0, 0]) == (77, 77, 77)
    assert tuple(whole(as_bytes(Image.new("1", (16, 16), 1)))[0, 0]) == (255, 255, 255)
    deep = Image.fromarray(np.full((16, 16), 0x8040, np.uint16))
    assert deep.mode == "I;16" and tuple(whole(as_bytes(deep))[0, 0]) == (0x80, 0x80, 0x80)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_is_taken(kind):
    data = as_bytes(drawn(1), kind, save_all=True, append_images=[drawn(2)], lossless=True)
    np.testing.assert_array_equal(whole(data), np.asarray(drawn(1)))


def test_too_small_is_told_with_both_numbers():
    with pytest.raises(Unusable, match=r"too small: 48 × 32 pixels, and its shorter side must have 64"):
        size_of(as_bytes(drawn(0, 48, 32)), 64)
    assert size_of(as_bytes(drawn(0, 48, 32)), 32) == (48, 32)


# ---- bombs ----


@pytest.mark.parametrize("side", [13_000, 60_000])
def test_a_png_bomb_is_refused_by_its_header(side):
    bomb = png_bomb(side)
    assert len(bomb) < 2000
    for look in (size_of, whole):
        with without_warnings(), pytest.raises(Unusable, match=r"too large: .* 150 million.* scale it down"):
            look(bomb)


def test_a_bomb_in_a_text_chunk_is_refused():
    packed = zlib.compress(bytes(PngImagePlugin.MAX_TEXT_CHUNK * 20), 9)
    bomb = png_bomb(16, png_chunk(b"zTXt", b"Comment\0\0" + packed))
    with pytest.raises(Unusable, match="damaged or cut short"):
        whole(bomb)


def test_more_pixels_than_allowed_are_refused_but_many_are_fine(monkeypatch):
    monkeypatch.setattr(pictures, "MAX_PIXELS", 2000)
    assert whole(as_bytes(drawn(0, 40, 50))).shape == (50, 40, 3)
    with pytest.raises(Unusable, match="too large: 40 × 51"):
        size_of(as_bytes(drawn(0, 40, 51)))


# ---- damage ----


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP"])
def test_a_picture_cut_short_anywhere_is_a_reason_and_no_crash(kind):
    data = as_bytes(drawn(5, 64, 64), kind)
    for cut in range(0, len(data) - 16, max(1, len(data) // 40)):
        with pytest.raises(Unusable, match="cut short|no PNG|empty file"):
            whole(data[:cut])


def test_noise_in_a_picture_gives_pixels_or_a_reason():
    chance = np.random.default_rng(0)
    for kind in ("PNG", "JPEG", "WEBP", "BMP"):
        data = as_bytes(drawn(5, 64, 64), kind)
        for _ in range(60):
            damaged = bytearray(data)
            for place in chance.integers(0, len(data), 4):
                damaged[place] = chance.integers(256)
            try:
                size = size_of(bytes(damaged))
                if max(size) < 1000:
                    read(bytes(damaged), size, Fit(size, 0, 0))
            except Unusable as error:
                assert str(error)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 100,
        b"GIF89a",
        as_bytes(drawn(0), "GIF"),
        as_bytes(drawn(0), "TIFF"),
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    ],
)
def test_other_files_are_no_pictures_whatever_they_are_called(data):
    with pytest.raises(Unusable, match="empty file|no PNG, JPEG, WebP or BMP"):
        size_of(data)


def test_damaged_exif_says_nothing_and_costs_nothing():
    file = io.BytesIO()
    drawn(0).save(file, "JPEG", exif=b"Exif\0\0not a TIFF header at all")
    assert size_of(file.getvalue()) == (40, 40) and whole(file.getvalue()).shape == (40, 40, 3)
