"""The tables of a report: methods × steps beside the paper's, gammas, students and groups × steps, costs, the run."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from . import paper
from .document import Code, Table
from .figures import apart, form_of, headed, label, measured_steps, number, phases, shown, spread, title

PAPER_NAMES = {
    "fid": "FID",
    "complexity": "complexity",
    "image_reward": "ImageReward",
    "pick_score": "PickScore",
}
NONE = "–"


def cells(row: dict, steps: Sequence[int], form: Callable = number, floor: float | None = None) -> list[str]:
    """A row's figures with their spread and, given the floor, as a multiple of it; a dash where there is none."""

    def one(value):
        if value is None:
            return NONE
        times = f" ({number(value['mean'] / floor)}×)" if floor and value["mean"] is not None else ""
        return spread(value, form) + times

    return [one(row.get(str(n))) for n in steps]


def floor_of(report: dict, metric: str) -> float | None:
    """What a distance is a multiple of; None for other metrics, and where it was not measured."""
    return report[metric]["floor"] if report["metrics"][metric]["distance"] else None


def method_table(report: dict, metric: str) -> Table:
    """Table 1's layout: methods × steps, the real pictures' own figure, and the paper's where it has this metric."""
    steps, values, form = measured_steps(report, metric), report[metric], form_of(report, metric)
    told = report["metrics"][metric]
    names = [name for name in shown(report) if name in values]
    floor = values["floor"]
    rows = [[label(report, m), *cells(values[m], steps, form, floor_of(report, metric))] for m in names]
    if floor is not None:
        real = "floor (real pictures)" if told["distance"] else "real pictures"
        rows.append([real, *[form(floor)] * len(steps)])
    head, spans = ["", *headed(steps)], []
    if told["paper"]:
        head += map(str, paper.STEPS)
        spans = [("", len(steps)), (f"paper's {PAPER_NAMES[told['paper']]}", len(paper.STEPS))]
        roles = [report["methods"][name]["role"] for name in names] + [None] * (floor is not None)
        rows = [row + papers_row(told["paper"], role) for row, role in zip(rows, roles, strict=True)]
    return Table(f"{told['title']}: methods by sampling steps", head, rows, spans=spans)


def papers_row(metric: str, role: str | None) -> list[str]:
    """The paper's figures at its step counts, a dash each for what has no row there."""
    figures = paper.TABLE_1[metric].get(role)
    return [papers(metric, figure) for figure in figures] if figures else [NONE] * len(paper.STEPS)


def papers(metric: str, figure: float) -> str:
    """As the paper writes it."""
    return f"{figure:.{4 if metric == 'complexity' else 2}f}".replace("-", "−")


def rows_table(report: dict, metric: str, caption: str, rows: Sequence[tuple[str, dict]], corner: str = "") -> Table:
    """Named rows (steps → cell) of one metric, with multiples of the floor; the steps are those that any row has."""
    steps = sorted({int(n) for _, row in rows for n in row})
    form, floor = form_of(report, metric), None if corner else floor_of(report, metric)
    return Table(caption, [corner, *headed(steps)], [[name, *cells(row, steps, form, floor)] for name, row in rows])


def of_metric(by_steps: dict, metric: str) -> dict:
    """steps → cell, from steps → metric → cell."""
    return {n: row[metric] for n, row in by_steps.items() if metric in row}


def gamma_tables(report: dict, sweep: dict) -> list[Table]:
    """A table a metric: gammas × steps, the main metric first."""
    found = []
    for metric in sorted(report["metrics"], key=lambda name: name != report["main"]):
        rows = [(f"γ = {gamma}", row) for gamma, by in sweep.items() if (row := of_metric(by, metric))]
        if rows:
            name = report["metrics"][metric]["title"]
            found.append(rows_table(report, metric, f"{name}: γ by sampling steps", rows, corner=name))
    return found


def student_table(report: dict) -> Table:
    """Every student's weights as LCM is sampled and as TCD is."""
    rows = [
        (f"{title(report, student)} weights, γ = {gamma}", row)
        for student, tables in report["student_x_gamma"].items()
        for gamma, row in tables.items()
    ]
    return rows_table(report, report["main"], "Students' weights and γ by sampling steps", rows)


def forms_table(report: dict) -> Table:
    """The forms of the trajectory consistency function, with the paper's figure at 4 steps."""
    main, told = report["main"], report["metrics"][report["main"]]
    rows = [(title(report, form), of_metric(by, main)) for form, by in report["forms"].items()]
    table = rows_table(report, main, "Forms of the student's jump by network evaluations", rows)
    theirs = told["paper"]
    if theirs not in paper.FORMS["tcf1"]:
        return table
    figures = [papers(theirs, paper.FORMS[form][theirs]) if form in paper.FORMS else NONE for form in report["forms"]]
    head = [*table.head, "4 steps"]
    spans = [("", len(table.head) - 1), (f"paper's {PAPER_NAMES[theirs]}", 1)]
    return Table(
        table.caption, head, [[*row, figure] for row, figure in zip(table.rows, figures, strict=True)], True, spans
    )


def group_tables(report: dict, group: dict) -> list[Table]:
    """A table a metric of a group's students by steps, with the main metric's first."""
    found = []
    for metric in sorted(report["metrics"], key=lambda name: name != report["main"]):
        rows = [(title(report, m), row) for m, by in group["rows"].items() if (row := of_metric(by, metric))]
        if rows:
            name = report["metrics"][metric]["title"]
            found.append(rows_table(report, metric, f"{group['title']}: {name} by sampling steps", rows, corner=name))
    return found


def difference_table(report: dict, metric: str) -> Table | None:
    """Differences of two methods on the same prompts, with their intervals."""
    form, rows = form_of(report, metric), {}
    for entry in report["differences"]:
        if entry["metric"] == metric and entry["mean"] is not None:
            name = f"{_sampled(report, entry, '')} − {_sampled(report, entry, 'other')}"
            low, high = entry["interval"]
            rows.setdefault(name, {})[entry["steps"]] = apart(entry, form) + ("" if low <= 0 <= high else " *")
    steps = sorted({n for row in rows.values() for n in row})
    body = [[name, *(row.get(n, NONE) for n in steps)] for name, row in rows.items()]
    caption = f"{report['metrics'][metric]['title']}: differences on the same prompts, by sampling steps"
    return Table(caption, ["", *headed(steps)], body) if rows else None


def _sampled(report: dict, entry: dict, other: str) -> str:
    name, gamma = (entry["other"], entry["other_gamma"]) if other else (entry["method"], entry["gamma"])
    return title(report, name) + (f", γ = {gamma:g}" if gamma is not None else "")


def cost_table(report: dict) -> Table:
    """Wall time, network evaluations and peak memory by method and steps."""
    rows = []
    for method, by in report["costs"].items():
        for n, cost in by.items():
            peak = cost["peak_bytes"]
            rows.append(
                [
                    f"{label(report, method)}, {headed([int(n)])[0]}",
                    measured_time(cost),
                    f"{cost['evaluations']:g}",
                    NONE if peak is None else _bytes(peak),
                    f"{cost['pictures']}",
                ]
            )
    head = ["", "time a picture", "evaluations", "peak memory", "pictures"]
    return Table("What generating took", head, rows)


def measured_time(cost: dict) -> str:
    """Of one picture, "48.2 ms" or "3.1 s"."""
    seconds = cost["seconds_per_picture"]
    if seconds is None:
        return NONE
    return f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def _bytes(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def run_table(report: dict) -> Table:
    """What is needed to know which run this was: recipe, seeds, time, what was compared with, libraries, weights."""
    training, sampling, solvers = (", ".join(map(str, report["seeds"][kind])) or "none" for kind in report["seeds"])
    kind = "recipe" if "objective" in report["recipe"] else "settings"
    rows = [
        [kind, (Code(report["recipe"]["name"]), ", hash ", Code(report["recipe_hash"]))],
        ["seeds", f"training {training}; sampling {sampling}, of the numerical solvers {solvers}"],
        ["time", phases(report)],
        *([name, str(value)] for name, value in [*report["reference"].items(), *report["conditions"].items()]),
        *([told["title"], told["source"]] for told in report["metrics"].values() if told["source"]),
        ["libraries", ", ".join(f"{name} {version}" for name, version in report["versions"].items()) or NONE],
    ]
    return Table("The run", ["", ""], rows, numbers=False)
