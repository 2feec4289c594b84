"""report.json, report.md, report.html and the lines printed at the end, from measured `Results`.

    results = Results(recipe, recipe_hash, n_samples, floors={"fd": 0.56, …}, …)
    results.add("fd", "tcd", 4, 0.66, training_seed=0, sampling_seed=0)
    …
    report = write_report(results, folder, pictures)
    print(summary(results, files))

Every sentence is worked out from the numbers (`claims`); a table whose values were not measured is left out.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from .disk import write_atomically
from .figures import at, cell, few_and_many, form_of, headed, label, measured_steps, number, phases, shown, title
from .report_html import to_html
from .report_json import to_json
from .report_markdown import to_markdown
from .report_tables import cells, floor_of
from .results import Results

__all__ = ["Results", "summary", "to_html", "to_json", "to_markdown", "write_report"]

WIDTH = 100  # characters of a line of the summary
COLUMN = 17  # of one step count's figures


def write_report(results: Results, folder: Path, pictures: Sequence[Path] = ()) -> dict:
    """Write the three reports into the folder, each whole or not at all; returns what report.json holds.

    Args:
        pictures: those that `plots` and `sample_grid` wrote into the folder, by which the reports show them.

    Raises:
        OutputError: the folder cannot be written to.
    """
    report = to_json(results)
    text = json.dumps(report, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(Path(folder) / "report.md", to_markdown(report, [path.name for path in pictures]))
    write_atomically(Path(folder) / "report.html", to_html(report, pictures))
    write_atomically(Path(folder) / "report.json", text)  # last: it marks the run as finished
    return report


def summary(results: Results, files: Sequence[Path] = ()) -> str:
    """What is printed at the end: the main metric (a distance as multiples of its floor), shares, time, files.

    Args:
        files: what was written, in the order to be listed; grouped by folder.
    """
    report = to_json(results)
    return "\n".join([*_main(report), *_others(report), f"Time: {phases(report)}", *_files(files)])


def _main(report: dict) -> list[str]:
    main, steps, floor = report["main"], measured_steps(report), floor_of(report, report["main"])
    told = report["metrics"][main]
    name = "Fréchet distance" if main == "fd" else told["title"]
    unit = f", as a multiple of real pictures' own ({number(floor)})" if floor else ""
    if told["distance"] and not floor:
        unit = " (no floor was measured)"
    names = {m: label(report, m) for m in shown(report) if m in report[main]}
    names = {m: name if len(name) <= 40 else name[:39] + "…" for m, name in names.items()}
    room = max(14, 1 + max(map(len, names.values()), default=0))
    lines = [f"{name}{unit}, {report['n_samples']} pictures each", f"± over {report['spread']}", ""]
    form = number if floor else form_of(report, main)
    block = (WIDTH - room) // COLUMN
    for i in range(0, len(steps), block):
        part = steps[i : i + block]
        lines.append(" " * room + "".join(f"{head:>{COLUMN}}" for head in headed(part)))
        for method, name in names.items():
            row = {n: _scaled(value, floor or 1.0) for n, value in report[main][method].items()}
            lines.append(f"{name:{room}}" + "".join(f"{text:>{COLUMN}}" for text in cells(row, part, form)))
        lines.append("")
    return lines


def _scaled(value: dict, floor: float) -> dict:
    """Without its interval, for which a line has no room."""
    if value["mean"] is None:
        return value
    return {"mean": value["mean"] / floor, "std": value["std"] / floor, "n": value["n"]}


def _others(report: dict) -> list[str]:
    """A line for each other metric of which more is better, at few steps."""
    few, _ = few_and_many(report)
    lines = []
    for metric, told in report["metrics"].items():
        form = form_of(report, metric)
        values = {m: value for m in shown(report) if (value := cell(report[metric], m, few))}
        if values and metric != report["main"] and told["better"] == "higher":
            words = [f"{title(report, m)} {form(value['mean'])}" for m, value in reversed(values.items())]
            real = report[metric]["floor"]
            words[-1] += f"; real {form(real)}" if real is not None else ""
            lines.append(f"{told['title']} {at([few])}: {', '.join(words)}")
    return lines


def _files(files: Sequence[Path]) -> list[str]:
    folders: dict[Path, list[str]] = {}
    for path in map(Path, files):
        folders.setdefault(path.parent, []).append(path.name)
    return [line for folder, names in folders.items() for line in (f"Files in {folder}:", *(f"  {n}" for n in names))]
