"""What a pretrained model's run began with, so that ``--resume`` goes on with nothing else.

The run's folder keeps marks of the model and of the data from its beginning. They are of contents, not of places: what
was moved or renamed is the same.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from .data import DataError, Settings
from .data.plan import Plan
from .disk import OutputError, reason, write_atomically
from .families.encoders import Encoders, sum_of

logger = logging.getLogger(__name__)

FILE = "origin.json"
_FIELDS = {"resolution": "model.resolution"}  # of `Settings`, where they are not the recipe's section data
_CONTENTS = {  # in this order: where one differs, those after it do so too
    "pictures": "the pictures are others",
    "prompts": "the prompts or their seeds are others",
    "captions": "the pictures are the same, their captions are not",
    "repeats": "pictures are repeated another number of times",
    "buckets": "pictures are cropped to other sizes",
}


class Origin:
    """The marks in a run's folder.

    Args:
        resumed: whether the run has begun before; then it is warned of marks that are missing.
    """

    def __init__(self, folder: Path, resumed: bool) -> None:
        self.folder, self.resumed = Path(folder), resumed

    def check_model(self, family) -> None:
        """Refuse a model other than the run began with; keep its marks if there are none.

        Raises:
            ValueError: naming what differs.
            OutputError: the marks are damaged, or can't be written.
        """
        now, kept = model_marks(family), self._read()
        if self.resumed and kept is None:
            logger.warning(
                "%s keeps no marks of the model and data that it began with (it was begun by an earlier version): "
                "that they are the same can't be checked this time",
                self.folder,
            )
        kept = (kept or {}).get("model")
        if kept is None:
            self._write(model=now)
            return
        if differ := [_words(name, kept.get(name), now[name]) for name in now if kept.get(name) != now[name]]:
            raise ValueError(
                f"{self.folder} was begun with another model than {family.found.path}: {'; '.join(differ)}. Put the "
                "model back, or say where it is now with --model, or begin a new run without --resume"
            )

    def check_data(self, plan: Plan, settings: Settings, source: object) -> None:
        """Refuse data other than the run began with, before they are encoded; keep their marks if there are none.

        Raises:
            DataError: naming what differs.
            OutputError: the marks are damaged, or can't be written.
        """
        now, kept = data_marks(plan, settings), (self._read() or {}).get("data")
        if kept is None:
            self._write(data=now)
            return
        if differ := _differences(kept, now):
            raise DataError(
                f"{self.folder} was begun with other data than {source} holds now: {'; '.join(differ)}. Put the data "
                "back, or say where they are now with --images, --shards or --prompts, or begin a new run without "
                "--resume: what is encoded is used again"
            )

    def _read(self) -> dict | None:
        path = self.folder / FILE
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            if not isinstance(kept, dict):
                raise ValueError("it should hold an object")
            return kept
        except FileNotFoundError:
            return None
        except OSError as error:
            raise OutputError(f"{path} cannot be read: {reason(error)}") from error
        except ValueError as error:
            raise OutputError(
                f"{path} is damaged ({error}). Delete it if you know that model and data are those the run began with"
            ) from None

    def _write(self, **marks: dict) -> None:
        write_atomically(self.folder / FILE, json.dumps({**(self._read() or {}), **marks}, indent=1) + "\n")


def model_marks(family) -> dict:
    """Marks of all that a pretrained family computes with."""
    return {
        "weights": family.found.fingerprint,
        "configs": sum_of(family.found.configs),
        "vocabulary": Encoders(family, torch.device("cpu")).vocabulary,
        "prediction": family.prediction,
        "zero terminal SNR": family.zero_terminal_snr,
    }


def data_marks(plan: Plan, settings: Settings) -> dict:
    """Marks of the items of some data, whatever they are called and in whatever order, and of how they are used."""
    rows = plan.rows
    return {
        **{_FIELDS.get(name, f"data.{name}"): value for name, value in asdict(settings).items()},
        "items": len(rows),
        "prompts" if plan.generated else "pictures": _mark([row.picture] for row in rows),
        "captions": _mark([row.picture, row.text] for row in rows),
        "repeats": _mark([row.picture, row.text, row.repeats] for row in rows),
        "buckets": _mark([row.picture, *row.bucket] for row in rows),
    }


def _mark(values: Iterable[list]) -> str:
    """16 hexadecimal digits that stand for values in any order."""
    return hashlib.sha256(json.dumps(sorted(values)).encode()).hexdigest()[:16]


def _differences(kept: dict, now: dict) -> list[str]:
    """In words; of the contents the first that differs, since it tells of the others."""
    names = [name for name in {**kept, **now} if kept.get(name) != now.get(name)]
    plain = [_words(name, kept.get(name), now.get(name)) for name in names if name not in _CONTENTS]
    return plain + [words for name, words in _CONTENTS.items() if name in names][:1]


def _words(name: str, old: object, new: object) -> str:
    if name in ("weights", "configs", "vocabulary"):
        return f"its {name} {'is' if name == 'vocabulary' else 'are'} another's"
    if name == "items":
        return f"{new} items, {old} then"
    return f"{name} was {old}, is {new}"
