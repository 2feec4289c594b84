"""A run's folder: claimed once, held by one process at a time, and found again by ``--resume``.

A run is ``base`` (by default ``outputs/digits``) or, where that is taken, ``base-2``, ``base-3``, …. Its folder holds
`RECIPE` as soon as it begins and `REPORT` once it is finished; `STATE` says which phases are done.
"""

from __future__ import annotations

import itertools
import json
import os
import re
from pathlib import Path

from training.disk import OutputError, reason, write_atomically

OUTPUTS = Path("outputs")  # of all runs, but those that are told another folder
RECIPE = "recipe.toml"
REPORT = "report.json"
STATE = "state.json"


# ---- which folder ----


def claim(base: Path) -> Path:
    """Take a folder for a new run: ``base`` if it does not exist or is empty, else the first free of ``base-2``, ….

    A folder in which anything lies (a run, finished or not, or somebody's files) is left alone. Of processes that claim
    at once each gets its own folder: the one that creates `STATE` in it (O_EXCL) has it.

    Raises:
        OutputError: ``base`` is a file, or no folder can be made there.
    """
    base = _named(base)
    for number in itertools.count(1):
        folder = _numbered(base, number)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not any(folder.iterdir()):
                with open(folder / STATE, "x", encoding="utf-8") as file:
                    file.write(_state_text({}))
                return folder
        except FileExistsError:
            if number == 1 and not os.path.isdir(folder):
                raise OutputError(f"{folder} is a file: the output must be a folder, name another one") from None
        except OSError as error:
            raise OutputError(
                f"cannot make the folder {folder}: {reason(error)}. Choose another with --output"
            ) from error


def find_unfinished(base: Path) -> Path | None:
    """The newest unfinished run of ``base``, ``base-2``, …, by when it began; None if there is none."""
    unfinished = [folder for folder in _runs(base) if not is_finished(folder)]
    return max(unfinished, key=lambda folder: (folder / RECIPE).stat().st_mtime_ns, default=None)


def newest_unfinished(outputs: Path) -> list[Path]:
    """The unfinished runs in a folder of runs, whatever their recipes, the one that began last first.

    Raises:
        OutputError: there is none.
    """
    try:
        runs = [folder for folder in outputs.iterdir() if os.path.isfile(folder / RECIPE)]
    except OSError:
        runs = []
    unfinished = [folder for folder in runs if not is_finished(folder)]
    if not unfinished:
        raise OutputError(
            f"nothing to resume: there is no unfinished run in {outputs}"
            f"{f', and {len(runs)} finished' if runs else ''}. Begin a new run without --resume, or name a run's "
            "folder with --output"
        )
    return sorted(unfinished, key=lambda folder: ((folder / RECIPE).stat().st_mtime_ns, folder.name), reverse=True)


def is_finished(folder: Path) -> bool:
    """Whether the run in ``folder`` has been measured: its report is there."""
    return os.path.isfile(Path(folder) / REPORT)


def resume(base: Path, named: bool = True) -> Path:
    """The folder that ``--resume`` goes on with.

    Args:
        base: ``--output``, or the recipe's own folder.
        named: whether the user named it: then an unfinished run in ``base`` itself comes first, even if there is a
            newer one in ``base-2``. False takes the newest.

    Raises:
        OutputError: there is no unfinished run; the message lists the finished ones.
    """
    runs = _runs(base)
    if named and _named(base) in runs and not is_finished(_named(base)):
        return _named(base)
    newest = find_unfinished(base)
    if newest is not None:
        return newest
    done = f"Finished there: {', '.join(map(str, runs))}." if runs else "No run has begun there."
    raise OutputError(
        f"nothing to resume: there is no unfinished run in {base} (nor in {base}-2, {base}-3, …). {done} "
        "Begin a new run without --resume, or name its folder with --output"
    )


def _runs(base: Path) -> list[Path]:
    """The folders of ``base``, ``base-2``, … in which a run has begun, by number."""
    base = _named(base)
    pattern = re.compile(rf"{re.escape(base.name)}(?:-([2-9]|[1-9]\d+))?")
    try:
        matches = [pattern.fullmatch(entry.name) for entry in base.parent.iterdir()]
    except OSError:
        return []
    numbers = sorted(int(match[1] or 1) for match in matches if match)
    return [folder for n in numbers if os.path.isfile((folder := _numbered(base, n)) / RECIPE)]


def _numbered(base: Path, number: int) -> Path:
    return base if number == 1 else base.with_name(f"{base.name}-{number}")


def _named(base: Path) -> Path:
    """The same folder by a path that ends in its name (``.`` and ``..`` do not)."""
    base = Path(base)
    return base.resolve() if base.name in ("", "..") else base


# ---- which phases are done ----


def finished(folder: Path) -> dict[str, float]:
    """The finished phases of a run ("teacher", "tcd", …) with the seconds each took; {} for a run that has none.

    Raises:
        OutputError: the list is damaged.
    """
    path = Path(folder) / STATE
    try:
        phases = json.loads(path.read_text(encoding="utf-8"))["phases"]
        return {str(name): float(seconds) for name, seconds in phases.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise OutputError(
            f"{path} is damaged ({error}). Delete it to do every phase of this run again, from its checkpoints"
        ) from error


def mark_finished(folder: Path, phase: str, seconds: float) -> None:
    """Add a phase to the finished ones, with the seconds it took.

    Raises:
        OutputError: it cannot be written; the list of before is still there.
    """
    write_atomically(Path(folder) / STATE, _state_text({**finished(folder), phase: float(seconds)}))


def _state_text(phases: dict[str, float]) -> str:
    return json.dumps({"phases": phases}, indent=1) + "\n"
