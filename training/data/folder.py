"""A folder of pictures with captions, in the layout that kohya's trainer made common.

Beside ``cat.jpg`` stands ``cat.txt`` (or ``cat.caption``). Pictures below a folder named ``5_cats`` count five times in
an epoch; the innermost such name holds.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from ..disk import reason
from .items import CAPTION_LIMIT, DataError, Item, Skipped, Unusable, caption_of

PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
CAPTIONS = (".txt", ".caption")
OTHER_PICTURES = (".gif", ".tif", ".tiff", ".avif", ".heic", ".heif", ".jxl", ".jp2", ".psd")
_REPEATS = re.compile(r"(\d+)_.*")


class PictureFolder:
    """The pictures below a folder, by their path's order.

    Hidden files are passed over; a link to a folder is not followed, but listed.

    Raises:
        DataError: there is no such folder.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            what = "is a file, not a folder" if self.folder.exists() else "does not exist"
            raise DataError(f"data.images: {self.folder} {what}. Name the folder that your pictures are in")

    def __str__(self) -> str:
        return f"the folder {self.folder}"

    def __iter__(self) -> Iterator[Item | Skipped]:
        for place, folders, files in os.walk(self.folder, onerror=_unreadable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in folders:
                if os.path.islink(path := Path(place, name)):
                    yield Skipped(self._key(path), "a link to a folder: copy it, or name the folder it leads to")
            yield from self._pictures(Path(place), sorted(name for name in files if not name.startswith(".")))

    def _pictures(self, place: Path, names: list[str]) -> Iterator[Item | Skipped]:
        beside = {(Path(name).stem, Path(name).suffix.lower()): name for name in names}
        repeats = self._repeats(place)
        for path in (place / name for name in names):
            if path.suffix.lower() in PICTURES:
                captions = [place / found for end in CAPTIONS if (found := beside.get((path.stem, end)))]
                yield self._item(path, captions, repeats)
            elif path.suffix.lower() in OTHER_PICTURES:
                yield Skipped(self._key(path), "not PNG, JPEG, WebP or BMP: convert it to one of them")

    def _item(self, path: Path, captions: list[Path], repeats: int) -> Item | Skipped:
        if not captions:
            return Skipped(self._key(path), f"no caption: {path.stem}.txt is not beside it")
        if repeats == 0:
            return Skipped(self._key(path), "its folder's name says 0 repeats")
        try:
            with open(captions[0], "rb") as file:
                caption = caption_of(file.read(CAPTION_LIMIT + 1))
        except OSError as error:
            return Skipped(self._key(path), f"its caption {captions[0].name} cannot be read: {reason(error)}")
        except Unusable as error:
            return Skipped(self._key(path), str(error))
        return Item(self._key(path), caption, repeats, path.read_bytes)

    def _repeats(self, place: Path) -> int:
        for part in reversed(place.relative_to(self.folder).parts):
            if match := _REPEATS.fullmatch(part):
                return int(match[1])
        return 1

    def _key(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix().encode("utf-8", "backslashreplace").decode()


def _unreadable(error: OSError) -> None:
    raise DataError(f"data.images: {error.filename} cannot be listed: {reason(error)}. Make it readable") from error
