"""Words as arrays of ink, in the font that comes with Pillow, which every host has."""

from __future__ import annotations

import math
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw, ImageFont


class Lettering:
    """The font at a size in pixels.

    Pillow before 10.1, or without FreeType, has one bitmap font 11 pixels high; its dots are then enlarged.
    """

    def __init__(self, size: int):
        self.size, self._dot = size, 1
        try:
            self._font = ImageFont.load_default(size)
        except (TypeError, ImportError):
            self._font = ImageFont.load_default()
            self._dot = max(1, round(size / 11))

    @cached_property
    def height(self) -> int:
        """Of a line, the same for every word."""
        metrics = getattr(self._font, "getmetrics", None)
        return self._dot * (sum(metrics()) if metrics else self._font.getbbox("Ag")[3])

    def width(self, word: str) -> int:
        return self._dot * math.ceil(self._font.getlength(word))

    def ink(self, word: str) -> np.ndarray:
        """How much ink is in each pixel, 0 to 1: height × width of the word, float32."""
        image = Image.new("L", (self.width(word) // self._dot, self.height // self._dot))
        ImageDraw.Draw(image).text((0, 0), word, fill=255, font=self._font)
        return np.kron(np.asarray(image, np.float32) / 255, np.ones((self._dot, self._dot), np.float32))
