"""What generated pictures are compared with: a folder of real ones, or the statistics of their features."""

from __future__ import annotations

import hashlib
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.buckets import Size
from ..data.folder import PICTURES
from ..data.items import DataError, Unusable
from ..data.pictures import size_of
from ..disk import reason
from .distances import Gaussian
from .inception import WIDTH

FEW = 2 * WIDTH  # below this many vectors their covariance is singular or nearly so, and FID far too large
_ASYMMETRY = 1e-3  # of a covariance, relative: what float32 may leave


@dataclass(frozen=True)
class Reference:
    """Real pictures, or their statistics.

    Attributes:
        path: as it was given.
        pictures: files; empty where only statistics are there.
        statistics: None where pictures are there.
        smaller: how many of the pictures are smaller than the generated ones, and so are enlarged.
        sha256: of the pictures' names and sizes in bytes, or of the statistics' file.
    """

    path: Path
    pictures: tuple[Path, ...]
    statistics: Gaussian | None
    smaller: int
    sha256: str

    @property
    def data(self) -> dict[str, str | int]:
        """For a report."""
        kind = {"pictures": len(self.pictures)} if self.pictures else {"statistics": self.path.name}
        return {"name": self.path.name, **kind, "sha256": self.sha256[:16]}


def open_reference(path: Path, generated: int, side: int) -> Reference:
    """Real pictures or statistics, looked at.

    Args:
        generated: pictures that each set to be compared with it has.
        side: of these, px.

    Raises:
        DataError: it is not there, damaged, or of so few pictures that a distance from it would say nothing.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return Reference(path, (), _statistics(path), 0, _sha256(_bytes(path)))
    if not path.is_dir():
        what = "is neither a folder of pictures nor a .npz of statistics" if path.exists() else "does not exist"
        raise DataError(f"--reference: {path} {what}. Give the real pictures' folder, or their mu and sigma as .npz")
    found = sorted(
        Path(place, name)
        for place, folders, files in os.walk(path)
        for name in files
        if Path(name).suffix.lower() in PICTURES and not name.startswith(".")
    )
    if len(found) < max(2, generated / 2):
        raise DataError(
            f"--reference: {path} holds {len(found)} picture{'s' * (len(found) != 1)}, for {generated} generated ones: "
            "FID and KID would say nothing. Give the real pictures of the prompts, at least half as many as there are "
            "prompts, or fewer prompts (--count)"
        )
    smaller = sum(_too_small(picture, side) for picture in found)
    listing = "\n".join(f"{p.relative_to(path).as_posix()} {p.stat().st_size}" for p in found)
    return Reference(path, tuple(found), None, smaller, _sha256(listing.encode("utf-8", "backslashreplace")))


def notes_on(reference: Reference, generated: int) -> list[str]:
    """What a reader must know of distances from it, a line each."""
    notes = []
    least = min(generated, len(reference.pictures) or generated)
    if least < FEW:
        notes.append(
            f"FID is of {least} pictures only: with fewer than {FEW} it comes out far too high, and is to be compared "
            "with other figures of exactly as many pictures, and with no published one. KID has no such bias."
        )
    if reference.smaller:
        notes.append(
            f"{reference.smaller} of the {len(reference.pictures)} reference pictures are smaller than the generated "
            "ones and were enlarged, which blurs them."
        )
    if reference.pictures and len(reference.pictures) != generated:
        notes.append(f"{generated} generated pictures are compared with {len(reference.pictures)} real ones.")
    return notes


def _statistics(path: Path) -> Gaussian:
    try:
        with np.load(path) as found:
            missing = [name for name in ("mu", "sigma") if name not in found]
            if missing:
                raise DataError(
                    f"--reference: {path} holds {', '.join(found) or 'nothing'} and no {' and '.join(missing)}: give "
                    "statistics as pytorch-fid and clean-fid write them"
                )
            mean, covariance = np.float64(found["mu"]), np.float64(found["sigma"])
    except (OSError, ValueError, TypeError, zipfile.BadZipFile, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"--reference: {path} cannot be read ({error}): make it again") from error
    if mean.shape != (WIDTH,) or covariance.shape != (WIDTH, WIDTH):
        raise DataError(
            f"--reference: {path} has mu {mean.shape} and sigma {covariance.shape}, not ({WIDTH},) and "
            f"({WIDTH}, {WIDTH}): it is of another network's features"
        )
    asymmetry = np.abs(covariance - covariance.T).max() / max(np.abs(covariance).max(), 1e-12)
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()) or asymmetry > _ASYMMETRY:
        raise DataError(
            f"--reference: {path} holds no mean and covariance (not finite, or not symmetric): make it again"
        )
    return Gaussian(mean, (covariance + covariance.T) / 2, None)


def _too_small(path: Path, side: int) -> bool:
    """Whether a picture's shorter side is below ``side``; DataError if it is damaged from its header on."""
    try:
        with open(path, "rb") as file:
            size = size_of(file.read())
    except OSError as error:
        raise DataError(f"--reference: {path} cannot be read: {reason(error)}") from error
    except Unusable as error:
        raise DataError(f"--reference: {path} is {error}: delete it, or copy it again") from error
    return min(size) < side


def square(side: int) -> Size:
    """The size that real pictures are scaled and cropped to."""
    return Size(side, side)


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"--reference: {path} cannot be read: {reason(error)}") from error


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
