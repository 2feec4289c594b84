"""A report's sections, as blocks. Every sentence is worked out from the numbers; what was not measured has none."""

from __future__ import annotations

from .claims import claims, saturation, student_sentence
from .document import Block, Code, Heading, Paragraph, Picture, Strong, Table
from .figures import cell, compare, label, listed, measured_steps, number, shown, title, with_role
from .report_tables import (
    cost_table,
    difference_table,
    forms_table,
    gamma_tables,
    group_tables,
    method_table,
    run_table,
    student_table,
)

REACH = (
    "A figure's spread is that over its seeds, or its interval's reach, whichever is more; differences on the same "
    "prompts are judged by their own interval."
)
VERDICTS = {True: "yes", False: Strong("no"), None: "within the spread"}
BEST = {"lower": "Lower is better.", "higher": "Higher is better."}


def sections(report: dict) -> list[Block]:
    """The whole report; takes what `to_json` gives."""
    others = (metric for metric in report["metrics"] if metric != report["main"])
    found = [
        _head(report),
        _main(report),
        _samples(report),
        _claims(report),
        _student(report),
        _gammas(report),
        *(_metric(report, metric) for metric in others),
        _forms(report),
        *(_group(group, report) for name, group in report["groups"].items() if name != "forms"),
        _costs(report),
        _left_out(report),
        _losses(report),
        _run(report),
    ]
    return [block for section in found for block in section]


def _head(report: dict) -> list[Block]:
    recipe, seeds = report["recipe"], report["seeds"]
    if report["title"]:
        blocks = [Heading(report["title"], 1), Paragraph(" ".join(filter(None, [report["about"], _spread(report)])))]
    else:
        both = "lcm" in report[report["main"]]
        what = "A TCD student and, on the same budget, an LCM baseline were" if both else "A TCD student was"
        about = (
            f"{what} distilled from one teacher and sampled in few steps, beside the teacher itself under numerical "
            f"solvers with as many steps. Each figure is of {report['n_samples']} generated pictures against "
            f"{report['n_samples']} real ones. {_spread(report)}"
        )
        name = "TCD and LCM" if both else "TCD"
        blocks = [Heading((f"{name} on recipe ", Code(recipe["name"])), 1), Paragraph(about)]
        if len(seeds["training"]) == 1:
            blocks.append(Paragraph("With one training seed ± does not say how much a second training would differ."))
    if _has_intervals(report):
        blocks.append(
            Paragraph(
                "In square brackets: 95 % confidence intervals by bootstrap over pictures. They say how far other "
                "pictures of the same kind would move a figure, not how far another training would."
            )
        )
    if recipe["measure"].get("against") == "validation":
        warning = "Measured against the validation split, which is for choosing settings: not for publication."
        blocks.append(Paragraph([Strong(warning)]))
    return blocks


def _has_intervals(report: dict) -> bool:
    rows = [row for metric in report["metrics"] for row in report[metric].values() if isinstance(row, dict)]
    return any("interval" in value for row in rows for value in row.values())


def _spread(report: dict) -> str:
    if max(map(len, report["seeds"].values())) <= 1:
        return "Each was measured once: how far another seed would move it is not known."
    return f"± is the standard deviation over {report['spread']}; a figure without ± was measured once."


def _main(report: dict) -> list[Block]:
    main, told = report["main"], report["metrics"][report["main"]]
    if not measured_steps(report):
        what = "No Fréchet distance was measured." if told["distance"] else f"No {told['title']} was measured."
        return [Paragraph(what)]
    beside = ", beside the paper's FID" if told["paper"] == "fid" and main != "fid" else ""
    beside = ", beside the paper's" if main == "fid" else beside
    return [
        Heading(told["title"] + beside),
        *_metric_blocks(report, main),
        *[Paragraph(text) for text in [saturation(report)] if text],
        Picture("metric_against_steps.png", _steps_alt(report), "Every metric against sampling steps."),
    ]


def _metric_blocks(report: dict, metric: str) -> list[Block]:
    """A metric's table with what is to be said of it."""
    told, floor = report["metrics"][metric], report[metric]["floor"]
    words = [told["about"], BEST.get(told["better"], "")]
    if told["distance"] and metric == report["main"] and floor:
        known = f"the floor ({number(floor)}), the distance of real pictures from others"
        words.append(f"In brackets: as a multiple of {known}.")
    differences = difference_table(report, metric)
    return [
        Paragraph(" ".join(filter(None, words))),
        method_table(report, metric),
        *[Paragraph(text) for text in (told["paper_note"], leaders(report, metric)) if text],
        *([Paragraph(PAIRED), differences] if differences else []),
    ]


PAIRED = (
    "Differences are of the pictures of one prompt and seed, with 95 % intervals by bootstrap over prompts; a star "
    "marks those whose interval does not hold 0."
)


def leaders(report: dict, metric: str) -> str | None:
    """Which method is best at each step count, and whether beyond the spread; None of a single method."""
    better, table = report["metrics"][metric]["better"], report[metric]
    sign = {"lower": 1, "higher": -1}.get(better)
    best: dict[str, list[str]] = {}
    for n in measured_steps(report, metric) if sign else []:
        row = {name: value for name in shown(report) if (value := cell(table, name, n))}
        if len(row) > 1:
            first = min(row, key=lambda name: sign * row[name]["mean"])
            level = [name for name in row if name != first and compare(row[name], row[first]) == 0]
            tied = f" (level with {listed([title(report, name) for name in level])})" if level else ""
            best.setdefault(title(report, first), []).append(f"{n}{tied}")
    each = [f"{name} at {listed(steps)}" for name, steps in best.items()]
    return f"Best, by number of steps: {'; '.join(each)}." if each else None


def _claims(report: dict) -> list[Block]:
    found = claims(report)
    if not found:
        return []
    yes, no, level = (sum(claim.holds is verdict for claim in found) for verdict in (True, False, None))
    rows = []
    for claim in found:
        theirs = claim.paper + (" (not so there)" if claim.paper_holds is False else "")
        rows.append([claim.text, VERDICTS[claim.holds], claim.here, theirs])
    names = {role: title(report, name) for role in ("tcd", "lcm") if (name := with_role(report, role))}
    other = [f"{role.upper()} is {name}" for role, name in names.items() if name != role.upper()]
    return [
        Heading("Which of the paper's claims hold here"),
        *([Paragraph(f"Here {listed(other)}.")] if other else []),
        Paragraph(
            f"Of {len(found)} that these figures can test, {yes} hold, {no} do not, and {level} lie within the spread: "
            "their figures are no further apart than the root of the sum of the squared spreads. "
            + (REACH if _has_intervals(report) else "A figure measured once is given the other's spread.")
        ),
        Table("The paper's claims", ["claim", "holds here", "figures", "in the paper"], rows, numbers=False),
    ]


def _student(report: dict) -> list[Block]:
    tables, sentence = report["student_x_gamma"], student_sentence(report)
    if not sentence and not (len(tables) > 1 and all(len(row) > 1 for row in tables.values())):
        return []
    name = report["metrics"][report["main"]]["title"]
    who = "Both" if len(tables) == 2 else "All"
    about = f"{who} students' weights, each sampled as LCM is (γ = 1) and as TCD is. {name}."
    return [
        Heading("The weights or the sampler?"),
        Paragraph(about),
        student_table(report),
        *([Paragraph(sentence)] if sentence else []),
    ]


def _gammas(report: dict) -> list[Block]:
    sweeps = {with_role(report, "tcd"): report["gamma_sweep"]} | report["gamma_sweeps"]
    blocks = []
    for method, sweep in sweeps.items():
        if sweep:
            blocks += [Heading(f"{title(report, method)} weights at several γ"), *gamma_tables(report, sweep)]
    if report["gamma_sweep"]:
        alt = "Curves of metrics over γ, one for each number of steps; the tables above hold their figures."
        blocks.append(Picture("metric_against_gamma.png", alt, "Metrics against γ."))
    return blocks


def _metric(report: dict, metric: str) -> list[Block]:
    if not measured_steps(report, metric):
        return []
    told = report["metrics"][metric]
    return [Heading(told["title"] + (", beside the paper's" if told["paper"] else "")), *_metric_blocks(report, metric)]


def _forms(report: dict) -> list[Block]:
    if not report["forms"]:
        return []
    told = report["groups"]["forms"]
    about = f"{report['metrics'][report['main']]['title']}. {told['about']}"
    return [Heading(told["title"]), Paragraph(about), forms_table(report)]


def _group(group: dict, report: dict) -> list[Block]:
    return [
        Heading(group["title"]),
        *([Paragraph(group["about"])] if group["about"] else []),
        *group_tables(report, group),
    ]


def _samples(report: dict) -> list[Block]:
    names = [label(report, name) for name in shown(report) if name in report[report["main"]]]
    if not names:
        return []
    alt = f"Sample pictures: a row for each of {listed(names)}; a column for each number of sampling steps."
    caption = "Pictures at the same place in their cells have one seed and condition."
    names = dict.fromkeys(["samples.png", *report["shown"]])
    return [Heading("Samples"), *(Picture(name, alt, caption, report["shown"].get(name, ())) for name in names)]


def _costs(report: dict) -> list[Block]:
    if not report["costs"]:
        return []
    about = (
        "Wall time of a picture in batches as they were generated, loading left out; evaluations are passes of one "
        "picture through the network, two a step with guidance; peak memory is the device's, or the process's on a CPU."
    )
    return [Heading("What generating took"), Paragraph(about), cost_table(report)]


def _left_out(report: dict) -> list[Block]:
    rows = [[name, why] for name, why in report["left_out"].items()]
    table = Table("Metrics that were not measured", ["metric", "why"], rows, numbers=False)
    return [Heading("Not measured"), table] if rows else []


def _losses(report: dict) -> list[Block]:
    if not report["loss"]:
        return []
    phases = listed([name for name in report["loss"]])
    return [Heading("Training"), Picture("loss_curve.png", f"Loss over training steps of {phases}.", "Loss, smoothed.")]


def _run(report: dict) -> list[Block]:
    return [Heading("The run"), run_table(report)]


def _steps_alt(report: dict) -> str:
    names = [told["title"] for name, told in report["metrics"].items() if measured_steps(report, name)]
    methods = [label(report, name) for name in shown(report) if name in report[report["main"]]]
    return (
        f"{listed(names)} against sampling steps, a curve for each of {listed(methods)}; the tables hold the figures."
    )
