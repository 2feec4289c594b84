"""Which of the paper's claims hold here: each one worked out from the report's numbers, and from the paper's own.

Two figures differ where their distance exceeds the root of the sum of their squared spreads; else they are level,
"within the spread". A figure that was measured once has no spread of its own and is given the other's.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from . import paper
from .results import FORMS, LCM_GAMMA, METHODS, SOLVERS, Cell

SIGNS = {-1: "<", 0: "≈", 1: ">"}


class Claim(NamedTuple):
    """holds: True, False, or None where the figures lie within the spread; paper_holds: of the paper's own figures,
    which have no spread; None where it gives none."""

    text: str
    holds: bool | None
    here: str
    paper: str = "–"
    paper_holds: bool | None = None


def compare(a: Cell, b: Cell) -> int:
    """-1 where a lies below b beyond the spread, 1 above, 0 within; 0 too where both were measured once."""
    if a["n"] == b["n"] == 1:
        return 0
    spreads = [cell["std"] for cell in (a, b) if cell["n"] > 1]
    spread = math.hypot(*spreads) if len(spreads) == 2 else math.sqrt(2) * sum(spreads)
    distance = a["mean"] - b["mean"]
    return 0 if abs(distance) <= spread else int(math.copysign(1, distance))


def cell(table: dict | None, *path: str | int | float) -> Cell | None:
    """The cell at ``table[path[0]][path[1]]…``, or None where it was not measured or is not finite."""
    for key in path:
        table = (table or {}).get(key if isinstance(key, str) else f"{key:g}")
    return table if table and table["mean"] is not None else None


def number(value: float) -> str:
    """Two decimals, one from 10 on: distances, and multiples of one."""
    return f"{value:.{1 if abs(value) >= 9.995 else 2}f}"


def three(value: float) -> str:
    """Three decimals: shares and complexities."""
    return f"{value:.3f}"


def spread(value: Cell, form: Callable[[float], str] = number) -> str:
    """``mean ± std``, or the value alone where there is one."""
    if value["mean"] is None:
        return "not finite"
    mean = form(value["mean"])
    return mean + (f" ± {value['std']:.{len(mean.partition('.')[2])}f}" if value["n"] > 1 else "")


def few_and_many(report: dict) -> tuple[int, int]:
    """The step counts that stand for "few" and "many": 4 and 20, or the nearest to 4 and the most there are."""
    steps = measured_steps(report)
    return (min(steps, key=lambda n: abs(math.log(n / 4))), 20 if 20 in steps else steps[-1]) if steps else (4, 20)


def measured_steps(report: dict, metric: str = "fd") -> list[int]:
    """All step counts of a metric, ascending."""
    return sorted({int(n) for method in METHODS for n in report[metric].get(method, {})})


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
        more_detail_than_lcm(report, few),
        detail_grows(report, few),
        suffers_without_noise(report, few),
        best_form(report, few),
    ]
    return [claim for claim in found if claim]


def _less(text: str, a: Cell | None, b: Cell | None, theirs=(None, None), note="", names=("", ""), form=number):
    """The claim that a < b; theirs: the paper's two figures, either may be None."""
    if not (a and b):
        return None
    sign = compare(a, b)
    here = f"{names[0]}{spread(a, form)} {SIGNS[sign]} {names[1]}{spread(b, form)}{note}"
    return Claim(text, {-1: True, 0: None, 1: False}[sign], here, *_theirs(*theirs))


def _theirs(a: float | None, b: float | None, name: str = "") -> tuple[str, bool | None]:
    if a is None or b is None:
        return "–", None
    return f"{a:g} {'<' if a < b else '>'} {name}{b:g}", a < b


def below_lcm(report: dict, n: int) -> Claim | None:
    theirs = [paper.figure("fid", method, n) for method in ("tcd", "lcm")]
    wins = report["tcd_below_lcm"].get(f"{n}")
    note = f" (lower on {wins['seeds']} of {wins['of']} seeds)" if wins else ""
    tcd, lcm = (cell(report["fd"], method, n) for method in ("tcd", "lcm"))
    return _less(f"TCD is below LCM, as LCM is sampled (γ = 1), at {n} steps", tcd, lcm, theirs, note)


def lcm_gets_worse(report: dict, few: int, many: int) -> Claim | None:
    if few >= many:
        return None
    theirs = [paper.figure("fid", "lcm", n) for n in (few, many)]
    start, end = (cell(report["fd"], "lcm", n) for n in (few, many))
    return _less(f"LCM gets worse from {few} to {many} steps", start, end, theirs)


def tcd_hardly_gets_worse(report: dict, few: int, many: int) -> Claim | None:
    """ "Hardly" is what it is in the paper: from 12.68 to 13.56, by 7 %."""
    start, end = (cell(report["fd"], "tcd", n) for n in (few, many))
    if few >= many or not (start and end):
        return None
    first, last = (paper.figure("fid", "tcd", n) for n in (4, 20))
    bound = {key: value * last / first if key != "n" else value for key, value in start.items()}
    holds = {-1: True, 0: None, 1: False}[compare(end, bound)]
    text = f"TCD hardly gets worse from {few} to {many} steps (by no more than the paper's {last / first - 1:.0%})"
    here = f"{spread(start)} → {spread(end)} ({end['mean'] / start['mean'] - 1:+.0%})".replace("-", "−")
    theirs = (f"{first:g} → {last:g}", True) if (few, many) == (4, 20) else ()
    return Claim(text, holds, here, *theirs)


def below_solvers(report: dict, n: int) -> Claim | None:
    """Against the numerical solver that does best at these steps."""
    tcd = cell(report["fd"], "tcd", n)
    solvers = {name: value for name in SOLVERS if (value := cell(report["fd"], name, n))}
    if not (tcd and solvers):
        return None
    best = min(solvers, key=lambda name: solvers[name]["mean"])
    theirs = {name: figure for name in SOLVERS if (figure := paper.figure("fid", name, n))}
    text = f"TCD is below every numerical solver on the teacher at {n} steps"
    claim = _less(text, tcd, solvers[best], names=("", f"{METHODS[best]} "))
    if theirs:
        top = min(theirs, key=theirs.get)
        figures, holds = _theirs(paper.figure("fid", "tcd", n), theirs[top], f"{METHODS[top]} ")
        claim = claim._replace(paper=figures, paper_holds=holds)
    return claim


def below_ddim_at_many(report: dict, few: int, many: int) -> Claim | None:
    theirs = (paper.figure("fid", "tcd", few), paper.figure("fid", "ddim", many))
    tcd, ddim = cell(report["fd"], "tcd", few), cell(report["fd"], "ddim", many)
    return _less(f"TCD at {few} steps is below the teacher's DDIM at {many}", tcd, ddim, theirs)


def more_detail_than_lcm(report: dict, n: int) -> Claim | None:
    theirs = [paper.figure("complexity", method, n) for method in ("lcm", "tcd")]
    lcm, tcd = (cell(report["complexity"], method, n) for method in ("lcm", "tcd"))
    text = f"TCD's pictures have more detail (image complexity) than LCM's at {n} steps"
    return _less(text, lcm, tcd, theirs, names=("LCM ", "TCD "), form=three)


def detail_grows(report: dict, n: int) -> Claim | None:
    """Complexity rises from the lowest to the highest gamma, and falls nowhere between beyond the spread."""
    sweep = report["gamma_sweep"]
    gammas = [g for g in sorted(sweep, key=float) if cell(sweep, g, n, "complexity")]
    if len(gammas) < 2:
        return None
    values = [cell(sweep, g, n, "complexity") for g in gammas]
    falls = any(compare(b, a) < 0 for a, b in zip(values, values[1:], strict=False))
    holds = False if falls else {1: True, 0: None, -1: False}[compare(values[-1], values[0])]
    here = ", ".join(f"{spread(value, three)} at {g}" for g, value in zip(gammas, values, strict=True))
    return Claim(f"Detail (image complexity) grows with γ, at {n} steps", holds, here, "stated", True)


def suffers_without_noise(report: dict, n: int) -> Claim | None:
    gamma = f"{report['recipe']['measure']['gamma']:g}"
    here, without = (cell(report["gamma_sweep"], g, n, "fd") for g in (gamma, "0"))
    if gamma == "0" or not (here and without):
        return None
    claim = _less(f"The distance suffers at γ = 0: γ = {gamma} is lower at {n} steps", here, without)
    return claim._replace(paper="stated", paper_holds=True)


def best_form(report: dict, n: int) -> Claim | None:
    """TCF(1) against the better of the other forms."""
    values = {form: value for form in FORMS if (value := cell(report["forms"], form, n, "fd"))}
    first = values.pop("tcf1", None)
    if not (first and values):
        return None
    best = min(values, key=lambda form: values[form]["mean"])
    text = f"TCF(1) is the best form on an equal budget, at {n} steps"
    claim = _less(text, first, values[best], names=("", f"{FORMS[best]} "))
    top = min((form for form in paper.FORMS if form != "tcf1"), key=lambda form: paper.FORMS[form]["fid"])
    figures, holds = _theirs(paper.FORMS["tcf1"]["fid"], paper.FORMS[top]["fid"], f"{FORMS[top]} ")
    return claim._replace(paper=figures, paper_holds=holds) if n == 4 else claim


def student_sentence(report: dict) -> str | None:
    """Whether TCD's gain on LCM lies in the sampler (SSS) or in the weights; None where the four were not measured."""
    gamma = f"{report['recipe']['measure']['gamma']:g}"
    table, lcm_gamma = report["student_x_gamma"], f"{LCM_GAMMA:g}"
    if gamma == lcm_gamma:
        return None
    paths = (("lcm", lcm_gamma), ("lcm", gamma), ("tcd", gamma))
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


def at(steps: list[int]) -> str:
    """ "at 2, 4 and 8 steps"."""
    words = [f"{n}" for n in steps]
    listed = f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]
    return f"at {listed} {'step' if steps == [1] else 'steps'}"


def saturation(report: dict) -> str | None:
    """Where TCD cannot be told from real pictures: at most its spread above the floor, or within the floor's range."""
    floor = report["fd"].get("floor")
    cells = {n: value for n in measured_steps(report) if (value := cell(report["fd"], "tcd", n))}
    if not floor or not cells:
        return None
    high = report["floor_ranges"].get("fd", (floor, floor))[1]
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
