"""What a cache was made with: two caches of one identity hold the same values for the same data."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Literal

from ..recipe_model_fields import Data
from .buckets import Size, buckets
from .items import DataError

VERSION = 1  # of what is stored, and how


@dataclass(frozen=True)
class Settings:
    """How data become latents.

    Attributes:
        resolution: pixels; a bucket's area is at most its square.
        bucket_step, max_aspect: see `buckets.buckets`.
        min_side: pictures with a shorter side are skipped; does not change what is stored.
        crop: where a picture is cropped to its bucket; "random" is drawn from the picture's content, once for all.
        teacher_steps, teacher_w: of latents that the teacher makes from prompts; 0 for pictures.
    """

    resolution: int
    bucket_step: int = 64
    max_aspect: float = 2.0
    min_side: int = 256
    crop: Literal["centre", "random"] = "centre"
    teacher_steps: int = 0
    teacher_w: float = 0.0

    @classmethod
    def of(cls, data: Data, resolution: int) -> Settings:
        """Those of the recipe's section ``data``, and its ``model.resolution``."""
        made = {"teacher_steps": data.teacher_steps, "teacher_w": data.teacher_w} if data.prompts else {}
        return cls(resolution, data.bucket_step, data.max_aspect, data.min_side, **made)

    @property
    def buckets(self) -> tuple[Size, ...]:
        """The sizes that pictures are cropped to."""
        return buckets(self.resolution, self.bucket_step, self.max_aspect)

    @property
    def square(self) -> Size:
        """The size of pictures that the teacher makes."""
        side = self.resolution // self.bucket_step * self.bucket_step
        return Size(side, side)


def identity(settings: Settings, encoders: str) -> dict:
    """All that decides what is stored of a picture or caption; ``encoders`` is `Encoders.fingerprint`."""
    return {
        "version": VERSION,
        "encoders": encoders,
        "resolution": settings.resolution,
        "bucket_step": settings.bucket_step,
        "max_aspect": float(settings.max_aspect),
        "crop": settings.crop,
        "teacher_steps": settings.teacher_steps,
        "teacher_w": float(settings.teacher_w),
    }


def fingerprint(identity: dict) -> str:
    """16 hexadecimal digits that stand for an identity."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]


def check_same(found: dict, wanted: dict, where: object) -> None:
    """Refuse a cache of another identity.

    Raises:
        DataError: naming each setting that differs, with both values.
    """
    differ = [
        f"{name} is {found.get(name)!r} there and {wanted.get(name)!r} here"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if differ:
        raise DataError(
            f"{where} was made with other settings: {'; '.join(differ)}. Use the settings it was made with, or let "
            "the data be encoded again"
        )
