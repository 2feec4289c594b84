"""report.md: the tables of a report beside the paper's, and the sentences that the numbers earn."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import paper
from .claims import claims, measured_steps, number, saturation, spread, student_sentence, three
from .results import FORMS, LCM_GAMMA, METHODS, METRICS

VERDICTS = {True: "yes", False: "**no**", None: "within the spread"}
PAPER = {
    "fd": ("fid", "FID"),
    "complexity": ("complexity", "complexity"),
}  # metric → its like in the paper, and its name


def to_markdown(report: dict) -> str:
    """The report for a reader who knows nothing of the run; takes what `to_json` gives."""
    sections = [_head, _distance, _claims, _student, _gammas, _pixels, _accuracy, _complexity, _forms, _run]
    return "\n\n".join(text for section in sections if (text := section(report))) + "\n"


# -- formats -------------------------------------------------------------------------------------------------------


def table(head: Sequence[str], rows: Sequence[Sequence[str]], numbers: bool = True) -> str:
    """A Markdown table; numbers: all columns but the first to the right."""
    rule = ["---", *["---:" if numbers else "---"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, rule, *rows])


def label(report: dict, method: str) -> str:
    """The method's name, with gamma for LCM and TCD."""
    gamma = {"lcm": LCM_GAMMA, "tcd": report["recipe"]["measure"]["gamma"]}.get(method)
    return METHODS[method] + (f", γ = {gamma:g}" if gamma is not None else "")


def headed(steps: Sequence[int]) -> list[str]:
    """Column heads."""
    return [f"{n} {'step' if n == 1 else 'steps'}" for n in steps]


def duration(seconds: float) -> str:
    """ "4.2 s", "48 s", "3 min 5 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def phases(report: dict) -> str:
    """The whole time, and each phase's where it is known."""
    names = METHODS | FORMS
    parts = [f"{names.get(key, key)} {duration(value)}" for key, value in report["seconds"].items() if key != "total"]
    return duration(report["seconds"]["total"]) + (f" ({', '.join(parts)})" if parts else "")


def cells(row: dict, steps: Sequence[int], form: Callable = number, floor: float | None = None) -> list[str]:
    """A row's figures with their spread and, given the floor, as a multiple of it; a dash where there is none."""

    def one(value):
        if value is None:
            return "–"
        times = f" ({number(value['mean'] / floor)}×)" if floor and value["mean"] is not None else ""
        return spread(value, form) + times

    return [one(row.get(str(n))) for n in steps]


def method_table(report: dict, metric: str, form: Callable, real: str, times: bool = False) -> str:
    """Methods × steps, the real pictures' figure, and beside them the paper's figures where it has this metric."""
    steps, values = measured_steps(report, metric), report[metric]
    floor = values["floor"]
    theirs, name = PAPER.get(metric, (None, None))
    head = ["", *headed(steps)]
    rows = [
        [label(report, m), *cells(values[m], steps, form, floor if times else None)] for m in METHODS if m in values
    ]
    if floor is not None:
        rows.append([real, *[form(floor)] * len(steps)])
    if theirs:
        head += [f"paper's {name}: {paper.STEPS[0]}", *map(str, paper.STEPS[1:])]
        figures = [[f"{figure:g}" for figure in paper.TABLE_1[theirs][m]] for m in METHODS if m in values]
        figures += [["–"] * len(paper.STEPS)] if floor is not None else []
        rows = [row + more for row, more in zip(rows, figures, strict=True)]
    return table(head, rows)


# -- sections ------------------------------------------------------------------------------------------------------


def _head(report: dict) -> str:
    recipe, n, seeds = report["recipe"], report["n_samples"], report["seeds"]
    if "lcm" in report["fd"]:
        title, what = "TCD and LCM", "A TCD student and, on the same budget, an LCM baseline were"
    else:
        title, what = "TCD", "A TCD student was"
    lines = [
        f"# {title} on recipe `{recipe['name']}`",
        f"{what} distilled from one teacher and sampled in few steps, beside the teacher itself under numerical "
        f"solvers with as many steps. Each figure is of {n} generated pictures against {n} real ones. "
        + _spread(report),
    ]
    if len(seeds["training"]) == 1:
        lines.append("With one training seed ± does not say how much a second training would differ.")
    if recipe["measure"].get("against") == "validation":
        lines.append("**Measured against the validation split, which is for choosing settings: not for publication.**")
    return "\n\n".join(lines)


def _spread(report: dict) -> str:
    if max(map(len, report["seeds"].values())) == 1:
        return "Each was measured once: how far another seed would move it is not known."
    return f"± is the standard deviation over {report['spread']}; a figure without ± was measured once."


def _distance(report: dict) -> str:
    if not measured_steps(report):
        return "No Fréchet distance was measured."
    floor = report["fd"]["floor"]
    known = f" ({number(floor)})" if floor else " (not measured)"
    lines = [
        f"## {METRICS['fd']}, beside the paper's FID",
        f"Lower is better. In brackets: as a multiple of the floor{known}, the distance of real pictures from others.",
        method_table(report, "fd", number, "floor (real pictures)", times=True),
        "The paper's are of SDXL on COCO in other features: compare how the rows lie to each other, not the sizes.",
        saturation(report),
    ]
    return "\n\n".join(filter(None, lines))


def _claims(report: dict) -> str | None:
    found = claims(report)
    if not found:
        return None
    yes, no, level = (sum(claim.holds is verdict for claim in found) for verdict in (True, False, None))
    rows = []
    for claim in found:
        theirs = claim.paper + (" (not so there)" if claim.paper_holds is False else "")
        rows.append([claim.text, VERDICTS[claim.holds], claim.here, theirs])
    lines = [
        "## Which of the paper's claims hold here",
        f"Of {len(found)} that these figures can test, {yes} hold, {no} do not, and {level} lie within the spread: "
        "their figures are no further apart than the root of the sum of the squared spreads. A figure measured once is "
        "given the other's spread.",
        table(["claim", "holds here", "figures", "in the paper"], rows, numbers=False),
    ]
    return "\n\n".join(lines)


def _student(report: dict) -> str | None:
    sentence, steps = student_sentence(report), measured_steps(report)
    if not sentence:
        return None
    rows = [
        [f"{METHODS[student]} weights, γ = {gamma}", *cells(row, steps, number, report["fd"]["floor"])]
        for student, tables in report["student_x_gamma"].items()
        for gamma, row in tables.items()
    ]
    lines = [
        "## The weights or the sampler?",
        f"Both students' weights, each sampled as LCM is (γ = 1) and as TCD is. {METRICS['fd']}.",
        table(["", *headed(steps)], rows),
        sentence,
    ]
    return "\n\n".join(lines)


def _gammas(report: dict) -> str | None:
    if not report["gamma_sweep"]:
        return None
    lines = ["## TCD weights at several γ"]
    for metric, form in (("fd", number), ("complexity", three), ("accuracy", three)):
        sweep = report["gamma_sweep"].items()
        rows = {gamma: {n: row[metric] for n, row in by.items() if metric in row} for gamma, by in sweep}
        if steps := sorted({int(n) for row in rows.values() for n in row}):
            body = [[f"γ = {gamma}", *cells(row, steps, form)] for gamma, row in rows.items()]
            lines.append(table([METRICS[metric], *headed(steps)], body))
    return "\n\n".join(lines)


def _pixels(report: dict) -> str | None:
    if not measured_steps(report, "fd_pixels"):
        return None
    figures = method_table(report, "fd_pixels", number, "floor (real pictures)", times=True)
    return f"## {METRICS['fd_pixels']}\n\n{figures}"


def _accuracy(report: dict) -> str | None:
    if not measured_steps(report, "accuracy"):
        return None
    what = "How often a classifier, trained on real pictures, sees the class that was asked for."
    return f"## {METRICS['accuracy']}\n\n{what}\n\n{method_table(report, 'accuracy', three, 'real pictures')}"


def _complexity(report: dict) -> str | None:
    if not measured_steps(report, "complexity"):
        return None
    what = "Real pictures' own is the mark. The paper gives none, and takes more for better."
    figures = method_table(report, "complexity", three, "real pictures")
    return f"## {METRICS['complexity']}, beside the paper's\n\n{what}\n\n{figures}"


def _forms(report: dict) -> str | None:
    if not report["forms"]:
        return None
    steps = sorted({int(n) for by in report["forms"].values() for n in by})
    rows = []
    for form, by in report["forms"].items():
        row = {n: row["fd"] for n, row in by.items() if "fd" in row}
        theirs = f"{paper.FORMS[form]['fid']:g}"
        rows.append([FORMS[form], *cells(row, steps, number, report["fd"]["floor"]), theirs])
    lines = [
        "## Forms of the trajectory consistency function",
        f"{METRICS['fd']}. Columns are network evaluations, of which TCF(2) takes two a step. Students had the same "
        "optimiser steps and batches, twice the work for TCF(2); the end times of TCF(2) and TCF(S+) are drawn.",
        table(["", *headed(steps), "paper's FID: 4 steps"], rows),
    ]
    return "\n\n".join(lines)


def _run(report: dict) -> str:
    training, sampling, solvers = (", ".join(map(str, report["seeds"][kind])) or "none" for kind in report["seeds"])
    rows = [
        ["recipe", f"`{report['recipe']['name']}`, hash `{report['recipe_hash']}`"],
        ["seeds", f"training {training}; sampling {sampling}, of the numerical solvers {solvers}"],
        ["time", phases(report)],
        ["libraries", ", ".join(f"{name} {version}" for name, version in report["versions"].items()) or "–"],
    ]
    return "## The run\n\n" + table(["", ""], rows, numbers=False)
