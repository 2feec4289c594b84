"""Picture files of any origin, read safely: whatever is wrong with one is a reason to skip it, never a crash."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image

from .buckets import Fit, Size
from .items import Unusable

FORMATS = ("PNG", "JPEG", "WEBP", "BMP")
MAX_PIXELS = 150_000_000  # 450 MB as RGB
_ORIENTATION = 0x0112  # of EXIF
_TURNED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDES_CHANGE = (5, 6, 7, 8)


def size_of(data: bytes, min_side: int = 1) -> Size:
    """A picture's size as it is seen (EXIF's rotation done), from its header alone.

    Raises:
        Unusable: no picture, one of another format, too large to unpack, or a side shorter than ``min_side`` pixels.
    """
    with _opened(data) as image:
        size = Size(*image.size)
        if _orientation(image) in _SIDES_CHANGE:
            size = Size(size.height, size.width)
    if min(size) < min_side:
        raise Unusable(f"too small: {size.width} × {size.height} pixels, and its shorter side must have {min_side}")
    return size


def read(data: bytes, bucket: Size, crop: Fit) -> np.ndarray:
    """A picture scaled and cropped to its bucket, shape (height, width, 3), uint8 RGB.

    The rotation that EXIF tells is done. Transparent parts are laid over white. Of 16-bit pictures the higher byte is
    kept, of animations the first frame.

    Raises:
        Unusable: it is damaged or cut short.
    """
    with _opened(data) as image:
        image.load()
        orientation = _orientation(image)
        picture = _rgb(image)
        if orientation in _TURNED:
            picture = picture.transpose(_TURNED[orientation])
        if picture.size != crop.scaled:
            picture = picture.resize(crop.scaled, Image.Resampling.LANCZOS)
        box = (crop.left, crop.top, crop.left + bucket.width, crop.top + bucket.height)
        return np.asarray(picture.crop(box))


@contextmanager
def without_warnings() -> Iterator[None]:
    """Within the block Pillow does not warn of odd metadata, nor of sizes, which are looked at here.

    For the main thread alone, around the work of others: the filters are the process's.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


@contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The picture with its header read; every error within is an `Unusable`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Unusable(f"too large: {image.width} × {image.height} pixels, more than {_MAX}: scale it down")
            yield image
    except (Unusable, MemoryError):
        raise
    except Image.DecompressionBombError as error:
        raise Unusable(f"too large: it would unpack to more than {_MAX}: scale it down") from error
    except Image.UnidentifiedImageError as error:
        empty = "an empty file" if not data else "no PNG, JPEG, WebP or BMP, or its beginning is damaged"
        raise Unusable(empty) from error
    except Exception as error:  # Pillow's formats have a dozen kinds of them
        raise Unusable(f"damaged or cut short ({str(error) or type(error).__name__})") from error


_MAX = f"{MAX_PIXELS // 10**6} million"


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF says nothing of the picture itself
        return 1


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) // 256).astype(np.uint8))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")
