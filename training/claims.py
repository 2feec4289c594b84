"""Which of the paper's claims hold here: each one worked out from the report's numbers, and from the paper's own.

Two figures differ where their distance exceeds the root of the sum of their squared spreads; else they are level,
"within the spread". A figure's spread is that over its seeds, or its confidence interval's reach towards the other,
whichever is more; one that was measured once and has no interval is given the other's (`figures.compare`).

"TCD" and "LCM" are the report's first methods of those roles, "the distance" is its main metric.
"""

from __future__ import annotations

from typing import NamedTuple

from . import paper
from .catalogue import FORM_TITLES, LCM_GAMMA
from .figures import (
    apart,
    at,
    cell,
    compare,
    few_and_many,
    form_of,
    like_papers,
    measured_steps,
    number,
    solvers,
    spread,
    title,
    with_role,
)
from .results import Cell

SIGNS = {-1: "<", 0: "≈", 1: ">"}


class Claim(NamedTuple):
    """holds: True, False, or None where the figures lie within the spread; paper_holds: of the paper's own figures,
    which have no spread; None where it gives none."""

    text: str
    holds: bool | None
    here: str
    paper: str = "–"
    paper_holds: bool | None = None


def claims(report: dict) -> list[Claim]:
    """All claims that the measured values can decide."""
    few, many = few_and_many(report)
    steps = measured_steps(report)
    found = [
        *(below_lcm(report, n) for n in steps),
        lcm_gets_worse(report, few, many),
        tcd_hardly_gets_worse(report, few, many),
        *(below_solvers(report, n) for n in steps if n <= 8),
        below_ddim_at_many(report, few, many),
        *(above_lcm(report, like, n) for like in ("image_reward", "pick_score") for n in steps),
        more_detail_than_lcm(report, few),
        detail_grows(report, few),
        suffers_without_noise(report, few),
        best_form(report, few),
    ]
    return [claim for claim in found if claim]


def of(report: dict, role: str, n: int, metric: str | None = None) -> Cell | None:
    """The figure of the method of that role at its own gamma; of the main metric where none is said."""
    return cell(report[metric or report["main"]], with_role(report, role), n)


def papers(report: dict, role: str, n: int, metric: str | None = None) -> float | None:
    """The paper's figure beside `of`; None where the metric is none of its own, nor stands in for one."""
    return paper.figure(report["metrics"][metric or report["main"]]["paper"], role, n)


def _less(report, text: str, a: Cell | None, b: Cell | None, theirs=(None, None), note="", names=("", ""), **how):
    """The claim that a < b.

    Args:
        theirs: the paper's two figures, either may be None.
        how: metric, where it is not the main one; paired, (role of a, role of b, steps): where these have a difference
            on the same prompts, it decides.
    """
    if not (a and b):
        return None
    metric = how.get("metric", report["main"])
    sign, form = compare(a, b), form_of(report, metric)
    entry = on_same_prompts(report, metric, *how["paired"]) if "paired" in how else None
    if entry:
        low, high = entry["interval"]
        sign = 0 if low <= 0 <= high else 1 if low > 0 else -1
        note = f"; first − second on the same prompts {apart(entry, form)}{note}"
    here = f"{names[0]}{spread(a, form)} {SIGNS[sign]} {names[1]}{spread(b, form)}{note}"
    return Claim(text, {-1: True, 0: None, 1: False}[sign], here, *_theirs(*theirs))


def on_same_prompts(report: dict, metric: str, role: str, other: str, n: int) -> dict | None:
    """The difference of the two roles' methods at their own gammas, if it was worked out, either way round."""
    names = [with_role(report, one) for one in (role, other)]
    for entry in report["differences"]:
        whose = [(entry["method"], entry["gamma"]), (entry["other"], entry["other_gamma"])]
        own = all(gamma == report["methods"][name]["gamma"] for name, gamma in whose)
        if (entry["metric"], entry["steps"]) != (metric, n) or entry["mean"] is None or not own:
            continue
        if [name for name, _ in whose] == names:
            return entry
        if [name for name, _ in whose] == names[::-1]:
            low, high = entry["interval"]
            return entry | {"mean": -entry["mean"], "interval": [-high, -low]}
    return None


def _theirs(a: float | None, b: float | None, name: str = "") -> tuple[str, bool | None]:
    if a is None or b is None:
        return "–", None
    return f"{a:g} {'<' if a < b else '>'} {name}{b:g}".replace("-", "−"), a < b


def below_lcm(report: dict, n: int) -> Claim | None:
    tcd, lcm = (of(report, role, n) for role in ("tcd", "lcm"))
    theirs = [papers(report, role, n) for role in ("tcd", "lcm")]
    wins = report["tcd_below_lcm"].get(f"{n}")
    note = f" (lower on {wins['seeds']} of {wins['of']} seeds)" if wins and wins["of"] > 1 else ""
    text = f"TCD is below LCM, as LCM is sampled (γ = 1), at {n} steps"
    return _less(report, text, tcd, lcm, theirs, note, paired=("tcd", "lcm", n))


def lcm_gets_worse(report: dict, few: int, many: int) -> Claim | None:
    if few >= many:
        return None
    start, end = (of(report, "lcm", n) for n in (few, many))
    theirs = [papers(report, "lcm", n) for n in (few, many)]
    return _less(report, f"LCM gets worse from {few} to {many} steps", start, end, theirs)


def tcd_hardly_gets_worse(report: dict, few: int, many: int) -> Claim | None:
    """ "Hardly" is what it is in the paper: from 12.68 to 13.56, by 7 %."""
    start, end = (of(report, "tcd", n) for n in (few, many))
    if few >= many or not (start and end):
        return None
    first, last = (paper.figure("fid", "tcd", n) for n in (4, 20))
    ends = [end * last / first for end in start.get("interval", ())]
    bound = {"mean": start["mean"] * last / first, "std": start["std"] * last / first, "n": start["n"]}
    bound |= {"interval": ends} if ends else {}
    holds = {-1: True, 0: None, 1: False}[compare(end, bound)]
    text = f"TCD hardly gets worse from {few} to {many} steps (by no more than the paper's {last / first - 1:.0%})"
    form = form_of(report, report["main"])
    change = f"{end['mean'] / start['mean'] - 1:+.0%}".replace("-", "−")
    theirs = (f"{first:g} → {last:g}", True) if (few, many) == (4, 20) and papers(report, "tcd", few) else ()
    return Claim(text, holds, f"{spread(start, form)} → {spread(end, form)} ({change})", *theirs)


def below_solvers(report: dict, n: int) -> Claim | None:
    """Against the numerical solver that does best at these steps."""
    tcd, table = of(report, "tcd", n), report[report["main"]]
    values = {name: value for name in solvers(report) if (value := cell(table, name, n))}
    if not (tcd and values):
        return None
    best = min(values, key=lambda name: values[name]["mean"])
    text = f"TCD is below every numerical solver on the teacher at {n} steps"
    claim = _less(report, text, tcd, values[best], names=("", f"{title(report, best)} "))
    roles = {name: report["methods"][name]["role"] for name in solvers(report)}
    theirs = {name: figure for name, role in roles.items() if (figure := papers(report, role, n))}
    if theirs:
        top = min(theirs, key=theirs.get)
        figures, holds = _theirs(papers(report, "tcd", n), theirs[top], f"{title(report, top)} ")
        claim = claim._replace(paper=figures, paper_holds=holds)
    return claim


def below_ddim_at_many(report: dict, few: int, many: int) -> Claim | None:
    theirs = (papers(report, "tcd", few), papers(report, "ddim", many))
    tcd, ddim = of(report, "tcd", few), of(report, "ddim", many)
    return _less(report, f"TCD at {few} steps is below the teacher's DDIM at {many}", tcd, ddim, theirs)


def above_lcm(report: dict, like: str, n: int) -> Claim | None:
    """By what people like, or by what stands in for it here."""
    metric = like_papers(report, like)
    if metric is None:
        return None
    lcm, tcd = (of(report, role, n, metric) for role in ("lcm", "tcd"))
    theirs = [papers(report, role, n, metric) for role in ("lcm", "tcd")]
    text = f"TCD is above LCM by {report['metrics'][metric]['title']} at {n} steps"
    return _less(report, text, lcm, tcd, theirs, names=("LCM ", "TCD "), metric=metric, paired=("lcm", "tcd", n))


def more_detail_than_lcm(report: dict, n: int) -> Claim | None:
    metric = like_papers(report, "complexity")
    if metric is None:
        return None
    theirs = [papers(report, role, n, metric) for role in ("lcm", "tcd")]
    lcm, tcd = (of(report, role, n, metric) for role in ("lcm", "tcd"))
    text = f"TCD's pictures have more detail (image complexity) than LCM's at {n} steps"
    return _less(report, text, lcm, tcd, theirs, names=("LCM ", "TCD "), metric=metric, paired=("lcm", "tcd", n))


def detail_grows(report: dict, n: int) -> Claim | None:
    """Complexity rises from the lowest to the highest gamma, and falls nowhere between beyond the spread."""
    sweep, metric = report["gamma_sweep"], like_papers(report, "complexity")
    gammas = [g for g in sorted(sweep, key=float) if cell(sweep, g, n, metric)]
    if len(gammas) < 2:
        return None
    values, form = [cell(sweep, g, n, metric) for g in gammas], form_of(report, metric)
    falls = any(compare(b, a) < 0 for a, b in zip(values, values[1:], strict=False))
    holds = False if falls else {1: True, 0: None, -1: False}[compare(values[-1], values[0])]
    here = ", ".join(f"{spread(value, form)} at {g}" for g, value in zip(gammas, values, strict=True))
    return Claim(f"Detail (image complexity) grows with γ, at {n} steps", holds, here, "stated", True)


def suffers_without_noise(report: dict, n: int) -> Claim | None:
    gamma = f"{report['recipe']['measure']['gamma']:g}"
    here, without = (cell(report["gamma_sweep"], g, n, report["main"]) for g in (gamma, "0"))
    if gamma == "0" or not (here and without):
        return None
    claim = _less(report, f"The distance suffers at γ = 0: γ = {gamma} is lower at {n} steps", here, without)
    return claim._replace(paper="stated", paper_holds=True)


def best_form(report: dict, n: int) -> Claim | None:
    """TCF(1) against the better of the other forms."""
    values = {form: v for form in report["forms"] or {} if (v := cell(report["forms"], form, n, report["main"]))}
    first = values.pop("tcf1", None)
    if not (first and values):
        return None
    best = min(values, key=lambda form: values[form]["mean"])
    text = f"TCF(1) is the best form on an equal budget, at {n} steps"
    claim = _less(report, text, first, values[best], names=("", f"{title(report, best)} "))
    top = min((form for form in paper.FORMS if form != "tcf1"), key=lambda form: paper.FORMS[form]["fid"])
    figures, holds = _theirs(paper.FORMS["tcf1"]["fid"], paper.FORMS[top]["fid"], f"{FORM_TITLES[top]} ")
    return claim._replace(paper=figures, paper_holds=holds) if n == 4 else claim


# -- sentences ---------------------------------------------------------------------------------------------------------


def student_sentence(report: dict) -> str | None:
    """Whether TCD's gain on LCM lies in the sampler (SSS) or in the weights; None where the four were not measured."""
    gamma = f"{report['recipe']['measure']['gamma']:g}"
    table, lcm_gamma = report["student_x_gamma"], f"{LCM_GAMMA:g}"
    if gamma == lcm_gamma:
        return None
    ours, theirs = (with_role(report, role) for role in ("tcd", "lcm"))
    paths = ((theirs, lcm_gamma), (theirs, gamma), (ours, gamma))
    rows = {n: cells for n in measured_steps(report) if all(cells := [cell(table, *path, n) for path in paths])}
    if not rows:
        return None
    weights = {n: compare(tcd, lcm) for n, (_, lcm, tcd) in rows.items()}
    wins, losses = ([n for n in rows if weights[n] == sign] for sign in (-1, 1))
    sampler = {n: compare(lcm, as_lcm) for n, (as_lcm, lcm, _) in rows.items()}
    helped, hurt = ([n for n in rows if sampler[n] == sign] for sign in (-1, 1))
    by_sampler = sum(as_lcm["mean"] - lcm["mean"] for as_lcm, lcm, _ in rows.values())
    by_weights = sum(lcm["mean"] - tcd["mean"] for _, lcm, tcd in rows.values())
    verbs = {0: "tie with TCD's within the spread", -1: "do worse than TCD's", 1: "do better than TCD's"}
    parts = [f"{verb} {at(ns)}" for sign, verb in verbs.items() if (ns := [n for n in rows if weights[n] == sign])]
    moves = [f"falls {at(helped)}" if helped else "falls nowhere", *([f"rises {at(hurt)}"] if hurt else [])]
    lead = _lead(wins, losses, helped, by_sampler, by_weights)
    at_gamma = f"at γ = {gamma} LCM's weights {', and '.join(parts)}"
    return f"{lead}: {at_gamma}; their own distance {' and '.join(moves)} when γ goes from 1 to {gamma}."


def _lead(wins: list, losses: list, helped: list, by_sampler: float, by_weights: float) -> str:
    if not wins:
        if not helped:
            return "Neither the sampler nor the weights gain anything beyond the spread"
        return "The sampler carries all of it" + (" and TCD's weights cost something" if losses else "")
    if not helped or by_weights >= by_sampler:
        return "The weights carry it" if not helped else "The weights carry most of it"
    return "The sampler carries most of it"


def saturation(report: dict) -> str | None:
    """Where TCD cannot be told from real pictures: at most its spread above the floor, or within the floor's range."""
    floor = report[report["main"]].get("floor")
    cells = {n: value for n in measured_steps(report) if (value := of(report, "tcd", n))}
    if not floor or not cells:
        return None
    high = report["floor_ranges"].get(report["main"], (floor, floor))[1]
    level = [n for n, value in cells.items() if value["mean"] - value["std"] <= max(floor, high)]
    if level:
        draws = f", up to {number(high)} over draws" if high > floor else ""
        return (
            f"Saturated: {at(level)} TCD is as near to the held-out pictures as other real pictures are, within "
            f"sampling noise (floor {number(floor)}{draws}). There this data cannot say which method is better."
        )
    nearest = min(cells, key=lambda n: cells[n]["mean"])
    times = number(cells[nearest]["mean"] / floor)
    return f"Not saturated: TCD is nearest to the floor {at([nearest])}, {times} times it."
