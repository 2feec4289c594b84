"""report.json, report.md and the lines printed at the end of a run, from measured `Results`.

    results = Results(recipe, recipe_hash, n_samples, floors={"fd": 0.56, …}, …)
    results.add("fd", "tcd", 4, 0.66, training_seed=0, sampling_seed=0)
    …
    report = write_report(results, folder)
    print(summary(results, files))

Every sentence is worked out from the numbers (`claims`); a table whose values were not measured is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .claims import at, cell, few_and_many, measured_steps, number, three
from .disk import write_atomically
from .report_markdown import cells, headed, label, phases, to_markdown
from .results import METHODS, Results, to_json

__all__ = ["Results", "summary", "to_json", "to_markdown", "write_report"]

BLOCK = 5  # step counts side by side in the summary: 100 characters hold no more


def write_report(results: Results, folder: Path) -> dict:
    """Write report.json and report.md into the folder, each whole or not at all; returns what report.json holds.

    Raises:
        OutputError: the folder cannot be written to.
    """
    report = to_json(results)
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(Path(folder) / "report.md", to_markdown(report))
    write_atomically(Path(folder) / "report.json", text)  # last: it marks the run as finished
    return report


def summary(results: Results, files: Sequence[Path] = ()) -> str:
    """What is printed at the end: distances as multiples of the floor, accuracy, time, and where the files are.

    Args:
        files: what was written, in the order to be listed; grouped by folder.
    """
    report = to_json(results)
    return "\n".join([*_distances(report), *_accuracy(report), f"Time: {phases(report)}", *_files(files)])


def _distances(report: dict) -> list[str]:
    steps, floor = measured_steps(report), report["fd"]["floor"]
    unit = f", as a multiple of real pictures' own ({number(floor)})" if floor else " (no floor was measured)"
    lines = [f"Fréchet distance{unit}, {report['n_samples']} pictures each", f"± over {report['spread']}", ""]
    for i in range(0, len(steps), BLOCK):
        part = steps[i : i + BLOCK]
        lines.append(" " * 14 + "".join(f"{head:>17}" for head in headed(part)))
        for method in METHODS:
            if method in report["fd"]:
                row = {n: _scaled(value, floor or 1.0) for n, value in report["fd"][method].items()}
                lines.append(f"{label(report, method):14}" + "".join(f"{text:>17}" for text in cells(row, part)))
        lines.append("")
    return lines


def _scaled(value: dict, floor: float) -> dict:
    return {key: v / floor if key != "n" and v is not None else v for key, v in value.items()}


def _accuracy(report: dict) -> list[str]:
    few, _ = few_and_many(report)
    values = {method: value for method in METHODS if (value := cell(report["accuracy"], method, few))}
    if not values:
        return []
    words = [f"{METHODS[method]} {three(value['mean'])}" for method, value in reversed(values.items())]
    floor = report["accuracy"]["floor"]
    return [f"Class accuracy {at([few])}: {', '.join(words)}" + (f"; real {three(floor)}" if floor is not None else "")]


def _files(files: Sequence[Path]) -> list[str]:
    folders: dict[Path, list[str]] = {}
    for path in map(Path, files):
        folders.setdefault(path.parent, []).append(path.name)
    return [line for folder, names in folders.items() for line in (f"Files in {folder}:", *(f"  {n}" for n in names))]
