"""``python -m training.evaluate --compare A.json B.json …``: reports side by side, and where they differ.

Differences are taken from the first report; whether one is more than the spread is `figures.compare`'s to say. What
was not measured alike is not compared: a distance of another number of pictures, from other real ones, or by other
weights says nothing about the methods.
"""

from __future__ import annotations

import string
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import tyro

from .claims import claims
from .disk import OutputError, write_atomically
from .document import Block, Code, Heading, Paragraph, Table
from .figures import compare, form_of, headed, label, listed, shown, spread, title, with_role
from .report_file import read_report
from .report_html import page
from .report_markdown import render
from .report_sections import BEST, VERDICTS
from .report_tables import NONE, measured_time, of_metric
from .results import Cell

Rows = dict[tuple, tuple[str, dict]]  # what it is → (its label, steps → cell)


@dataclass(frozen=True)
class Options:
    """Show reports side by side, with their differences and whether these exceed the spread.

    Attributes:
        compare: two or more report.json, or the folders they lie in; differences are from the first
        output: FILE.html or FILE.md to write; default: Markdown to the terminal
    """

    compare: tuple[Path, ...]
    output: Path | None = None


def main(argv: Sequence[str] | None = None) -> int:
    """The command; 1 where a file is no report, or where nothing in the reports can be compared."""
    options = tyro.cli(
        Options, args=argv, prog="python -m training.evaluate", description=Options.__doc__.split("\n")[0]
    )
    try:
        if len(options.compare) < 2:
            raise ValueError("--compare takes two reports or more")
        if options.output and options.output.suffix not in (".html", ".md"):
            raise ValueError(f"--output must end in .html or .md, got {options.output}")
        reports = [read_report(path) for path in options.compare]
        blocks, compared = comparison(reports, [str(path) for path in options.compare])
        if options.output:
            text = page(blocks) if options.output.suffix == ".html" else render(blocks)
            write_atomically(options.output, text)
            print(f"Written: {options.output}")
        else:
            print(render(blocks), end="")
    except (ValueError, OSError, OutputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if not compared:
        print("error: no metric was measured alike in these reports; what differs stands above", file=sys.stderr)
    return 0 if compared else 1


def comparison(reports: Sequence[dict], names: Sequence[str]) -> tuple[list[Block], bool]:
    """(the view, whether there is a metric that can be compared)."""
    letters = string.ascii_uppercase[: len(reports)]
    if len(letters) < len(reports):
        raise ValueError(f"no more than {len(string.ascii_uppercase)} reports side by side, got {len(reports)}")
    told = [
        [f"{letter}", (Code(name), ": ", Code(report["recipe"]["name"])), report["spread"], str(report["n_samples"])]
        for letter, name, report in zip(letters, names, reports, strict=True)
    ]
    reasons = {metric: unlike(reports, metric, letters) for metric in all_metrics(reports)}
    shared = [metric for metric, why in reasons.items() if not why]
    blocks = [
        Heading("Reports side by side", 1),
        Table("The reports", ["", "report", "± over", "pictures"], told, numbers=False),
        *_refused(reports, reasons),
    ]
    matches = matched(reports)
    for metric in shared:
        blocks += _metric(reports, metric, letters, matches)
    blocks += [*_claims(reports, letters), *_costs(reports, letters, matches), *_settings(reports, letters)]
    return blocks, bool(shared)


# -- what can be compared ----------------------------------------------------------------------------------------------


def all_metrics(reports: Sequence[dict]) -> list[str]:
    """In order: the first report's, then what others have besides."""
    return list(dict.fromkeys(metric for report in reports for metric in report["metrics"]))


def unlike(reports: Sequence[dict], metric: str, letters: str) -> list[str]:
    """Why this metric's figures cannot be compared; nothing where they can."""
    without = [letter for letter, report in zip(letters, reports, strict=True) if not _has(report, metric)]
    if without:
        return [f"not measured in {listed(without)}"]
    told = [report["metrics"][metric] for report in reports]
    found = []
    if len({(one["title"], one["distance"]) for one in told}) > 1:
        found.append(f"not the same metric: {_each(letters, [one['title'] for one in told])}")
    if len({one["source"] for one in told}) > 1:
        found.append(
            f"made with other libraries or weights: {_each(letters, [one['source'] or 'unknown' for one in told])}"
        )
    found += _differing(letters, [asked_for(report) for report in reports], "other prompts")
    if told[0]["distance"]:
        found += _differing(letters, [real_pictures(report) for report in reports], "other real pictures")
        counts = [report["n_samples"] for report in reports]
        if len(set(counts)) > 1:
            found.append(f"other numbers of pictures, on which a distance depends: {_each(letters, map(str, counts))}")
    return found


def _has(report: dict, metric: str) -> bool:
    return any(name != "floor" for name in report.get(metric, {})) if metric in report["metrics"] else False


def real_pictures(report: dict) -> dict[str, str]:
    """What generated pictures were compared with."""
    recipe = report["recipe"]
    known = report["reference"] or {
        "data": recipe.get("family", recipe["name"]),
        **{name: recipe["measure"][name] for name in ("against", "fold") if name in recipe["measure"]},
    }
    return {name: str(value) for name, value in known.items()}


def asked_for(report: dict) -> dict[str, str]:
    """What pictures were generated of."""
    known = report["conditions"] or {"data": report["recipe"].get("family", report["recipe"]["name"])}
    return {name: str(value) for name, value in known.items()}


def _differing(letters: str, told: Sequence[Mapping[str, str]], what: str) -> list[str]:
    names = list(dict.fromkeys(name for one in told for name in one))
    unlike = [name for name in names if len({one.get(name) for one in told}) > 1]
    return [f"{what}: {name} {_each(letters, [one.get(name, 'not said') for one in told])}" for name in unlike]


def _each(letters: str, values) -> str:
    return ", ".join(f"{letter} {value}" for letter, value in zip(letters, values, strict=True))


def _refused(reports: Sequence[dict], reasons: Mapping[str, list[str]]) -> list[Block]:
    """What is not compared, and why."""
    titles = {m: report["metrics"][m]["title"] for report in reversed(reports) for m in report["metrics"]}
    rows = [[titles[metric], "; ".join(why)] for metric, why in reasons.items() if why]
    about = "These were not measured alike, and are not shown: a difference would not be the methods'."
    table = Table("Metrics that cannot be compared", ["metric", "what differs"], rows, numbers=False)
    return [Heading("What cannot be compared"), Paragraph(about), table] if rows else []


# -- figures side by side ----------------------------------------------------------------------------------------------


def matched(reports: Sequence[dict]) -> list[dict[str, str]]:
    """For each report: its methods' names → what they are called in all. Methods are alike by name; of those left
    over, a role that the first report and another have once each is alike too, as one's own LoRA of two trainings."""
    first, found = reports[0], []
    for report in reports:
        names = {name: name for name in shown(report)}
        mine, theirs = _roles_apart(report, first), _roles_apart(first, report)
        found.append(names | {mine[role]: theirs[role] for role in mine.keys() & theirs.keys()})
    return found


def _roles_apart(report: dict, other: dict) -> dict[str, str]:
    """role → the one method of it that the other report does not know by name."""
    apart: dict[str, list[str]] = {}
    for name in shown(report):
        role = report["methods"][name]["role"]
        if role and name not in other["methods"]:
            apart.setdefault(role, []).append(name)
    return {role: names[0] for role, names in apart.items() if len(names) == 1}


def rows_of(report: dict, metric: str, names: Mapping[str, str]) -> Rows:
    """All of a report's rows of a metric: methods, then students at other gammas, then forms and other groups."""
    rows: Rows = {("", names[m]): (label(report, m), report[metric][m]) for m in shown(report) if m in report[metric]}

    def at_gamma(student: str, gamma: str, row: dict) -> None:
        if float(gamma) != report["methods"][student]["gamma"]:
            rows[names[student], gamma] = (f"{title(report, student)} weights, γ = {gamma}", row)

    for student, by_gamma in ({with_role(report, "tcd"): report["gamma_sweep"]} | report["gamma_sweeps"]).items():
        for gamma, by_steps in by_gamma.items():
            at_gamma(student, gamma, of_metric(by_steps, metric))
    for student, by_gamma in report["student_x_gamma"].items() if metric == report["main"] else ():
        for gamma, row in by_gamma.items():
            at_gamma(student, gamma, row)
    for group, told in report["groups"].items():
        for member, by_steps in (told.get("rows") or report["forms"] or {}).items():
            rows[group, member] = (title(report, member), of_metric(by_steps, metric))
    return {key: (name, row) for key, (name, row) in rows.items() if row}


def _metric(reports: Sequence[dict], metric: str, letters: str, matches) -> list[Block]:
    """A metric's section: each row in every report that has it, and the differences from the first report's."""
    told, form = reports[0]["metrics"][metric], form_of(reports[0], metric)
    found = [rows_of(report, metric, names) for report, names in zip(reports, matches, strict=True)]
    keys = [key for key in found[0] if any(key in rows for rows in found[1:])]
    steps = [str(n) for n in sorted({int(n) for rows in found for key in keys if key in rows for n in rows[key][1]})]
    body = []
    for key in keys:
        own = {letter: rows[key] for letter, rows in zip(letters, found, strict=True) if key in rows}
        for letter, (name, row) in own.items():
            body.append([f"{name}: {letter}", *(spread(row[n], form) if n in row else NONE for n in steps)])
        name, first = own.pop(letters[0])
        for letter, (_, row) in own.items():
            apart = [difference(first.get(n), row.get(n), told) for n in steps]
            body.append([f"{name}: {letter} − {letters[0]}", *apart])
    once = Counter(key for rows in found for key in rows)
    alone = [
        f"{name} only in {letter}"
        for letter, rows in zip(letters, found, strict=True)
        for key, (name, _) in rows.items()
        if once[key] == 1
    ]
    blocks: list[Block] = [Heading(told["title"]), Paragraph(f"{BETTER[told['better']]} {LEVEL}")]
    if body:
        blocks.append(Table(f"{told['title']} by sampling steps", ["", *headed(list(map(int, steps)))], body))
    return blocks + ([Paragraph(f"{'; '.join(alone)}.")] if alone else [])


BETTER = BEST | {"real": "The best is real pictures' own."}
LEVEL = '"Level": no further apart than the root of the sum of the squared spreads (or reaches of the intervals).'


def difference(first: Cell | None, other: Cell | None, told: Mapping) -> str:
    """other − first, and what it means: "better", "worse" or "level"; "lower", "higher" where neither is better."""
    if not (first and other) or None in (first["mean"], other["mean"]):
        return NONE
    sign = compare(other, first)
    words = {"lower": ("better", "worse"), "higher": ("worse", "better")}.get(told["better"], ("lower", "higher"))
    verdict = "level" if sign == 0 else words[sign > 0]
    decimals = {"two": 2, "distance": 3, "three": 3, "four": 4, "five": 5}[told["form"]]
    return f"{other['mean'] - first['mean']:+.{decimals}f}, {verdict}".replace("-", "−")


def _claims(reports: Sequence[dict], letters: str) -> list[Block]:
    """The paper's claims, side by side."""
    found = [{claim.text: claim for claim in claims(report)} for report in reports]
    texts = [text for text in found[0] if any(text in other for other in found[1:])]
    rows = [[text, *(VERDICTS[by[text].holds] if text in by else NONE for by in found)] for text in texts]
    table = Table("The paper's claims", ["claim", *letters], rows, numbers=False)
    return [Heading("Which of the paper's claims hold"), table] if rows else []


def _costs(reports: Sequence[dict], letters: str, matches) -> list[Block]:
    """Time a picture side by side; of other machines it says nothing."""
    found = [
        {(names[m], n): (label(report, m), cost) for m, by in report["costs"].items() for n, cost in by.items()}
        for report, names in zip(reports, matches, strict=True)
    ]
    rows = []
    for key, (name, _) in found[0].items():
        if any(key in other for other in found[1:]):
            times = [measured_time(costs[key][1]) if key in costs else NONE for costs in found]
            rows.append([f"{name}, {headed([int(key[1])])[0]}", *times])
    about = "Of machines that may differ: times can be compared only where these do not."
    table = Table("Time a picture, by method and steps", ["", *letters], rows)
    return [Heading("Time a picture"), Paragraph(about), table] if rows else []


def _settings(reports: Sequence[dict], letters: str) -> list[Block]:
    """Every setting, seed and library that is not alike."""
    flat = [
        _flat(report["recipe"])
        | {f"seeds, {kind}": ", ".join(map(str, seeds)) for kind, seeds in report["seeds"].items()}
        | {f"library {name}": version for name, version in report["versions"].items()}
        for report in reports
    ]
    names = list(dict.fromkeys(name for one in flat for name in one))
    rows = [
        [name, *(Code(one[name]) if one.get(name) else NONE for one in flat)]
        for name in names
        if len({one.get(name) for one in flat}) > 1
    ]
    if not rows:
        return [Heading("Settings"), Paragraph("Settings, seeds and libraries are alike.")]
    return [Heading("Settings that differ"), Table("Settings that differ", ["setting", *letters], rows, numbers=False)]


def _flat(data: Mapping, prefix: str = "") -> dict[str, str]:
    found = {}
    for name, value in data.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return found
