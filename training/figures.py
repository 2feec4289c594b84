"""A report's figures: how they are found, written and compared. Everything here takes what `to_json` gives."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from .results import Cell


def number(value: float) -> str:
    """Two decimals, one from 10 on: distances, and multiples of one."""
    return f"{value:.{1 if abs(value) >= 9.995 else 2}f}"


def three(value: float) -> str:
    """Three decimals: shares and complexities."""
    return f"{value:.3f}"


FORMATS: dict[str, Callable[[float], str]] = {
    "distance": number,
    "two": "{:.2f}".format,
    "three": three,
    "four": "{:.4f}".format,
    "five": "{:.5f}".format,
}  # a metric's form → how its figures are written


def form_of(report: dict, metric: str) -> Callable[[float], str]:
    return FORMATS[report["metrics"][metric]["form"]]


def spread(value: Cell, form: Callable[[float], str] = number) -> str:
    """``mean ± std [low, high]``: no ± where it was measured once, no brackets where it has no interval."""
    if value["mean"] is None:
        return "not finite"
    mean = form(value["mean"])
    decimals = len(mean.partition(".")[2])
    text = mean + (f" ± {value['std']:.{decimals}f}" if value["n"] > 1 else "")
    if "interval" in value:
        text += " [{:.{d}f}, {:.{d}f}]".format(*value["interval"], d=decimals)
    return text.replace("-", "−")


def compare(a: Cell, b: Cell) -> int:
    """-1 where a lies below b beyond the spread, 1 above, 0 within; 0 too where nothing says how much they vary."""
    distance = a["mean"] - b["mean"]
    known = [r for r in (reach(a, -distance), reach(b, distance)) if r is not None]
    if not known:
        return 0
    whole = math.hypot(*known) if len(known) == 2 else math.sqrt(2) * known[0]
    return 0 if abs(distance) <= whole else int(math.copysign(1, distance))


def apart(entry: dict, form: Callable[[float], str] = number) -> str:
    """A difference on the same prompts, with its interval."""
    low, high = entry["interval"]
    return f"{form(entry['mean'])} [{form(low)}, {form(high)}]".replace("-", "−")


def reach(value: Cell, towards: float) -> float | None:
    """How far a figure may lie off, up (towards > 0) or down: the spread over its seeds, or how far its interval
    reaches, whichever is more; None of a figure that was measured once and has no interval."""
    found = [value["std"]] if value["n"] > 1 else []
    if "interval" in value:
        low, high = value["interval"]
        found.append(max(0.0, high - value["mean"] if towards > 0 else value["mean"] - low))
    return max(found, default=None)


def cell(table: dict | None, *path: str | int | float | None) -> Cell | None:
    """The cell at ``table[path[0]][path[1]]…``, or None where it was not measured or is not finite."""
    for key in path:
        table = (table or {}).get(f"{key:g}" if isinstance(key, int | float) else key)
    return table if table and table["mean"] is not None else None


# -- a report's methods, metrics and step counts -----------------------------------------------------------------------


def shown(report: dict) -> list[str]:
    """The methods that stand in the tables of methods, in their order."""
    return [name for name, method in report["methods"].items() if method["group"] is None]


def with_role(report: dict, role: str) -> str | None:
    """The first method that stands for that row of the paper's table."""
    return next((name for name in shown(report) if report["methods"][name]["role"] == role), None)


def solvers(report: dict) -> list[str]:
    return [name for name in shown(report) if report["methods"][name]["kind"] == "solver"]


def title(report: dict, method: str) -> str:
    return report["methods"][method]["title"]


def label(report: dict, method: str) -> str:
    """The method's title, with gamma for a student."""
    gamma = report["methods"][method]["gamma"]
    return title(report, method) + (f", γ = {gamma:g}" if gamma is not None else "")


def measured_steps(report: dict, metric: str | None = None) -> list[int]:
    """All step counts of a metric (the main one), ascending."""
    values = report[metric or report["main"]]
    return sorted({int(n) for method in shown(report) for n in values.get(method, {})})


def few_and_many(report: dict) -> tuple[int, int]:
    """The step counts that stand for "few" and "many": 4 and 20, or the nearest to 4 and the most there are."""
    steps = measured_steps(report)
    return (min(steps, key=lambda n: abs(math.log(n / 4))), 20 if 20 in steps else steps[-1]) if steps else (4, 20)


def like_papers(report: dict, metric: str) -> str | None:
    """The report's metric that is the paper's, or stands in for it."""
    return next((name for name, told in report["metrics"].items() if told["paper"] == metric), None)


def headed(steps: Sequence[int]) -> list[str]:
    """Column heads."""
    return [f"{n} {'step' if n == 1 else 'steps'}" for n in steps]


def at(steps: Sequence[int]) -> str:
    """ "at 2, 4 and 8 steps"."""
    return f"at {listed([str(n) for n in steps])} {'step' if list(steps) == [1] else 'steps'}"


def listed(words: Sequence[str]) -> str:
    """ "a, b and c"."""
    return f"{', '.join(words[:-1])} and {words[-1]}" if len(words) > 1 else words[0]


def duration(seconds: float) -> str:
    """ "4.2 s", "48 s", "3 min 5 s" or "2 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole // 3600} h {whole % 3600 // 60} min"


def phases(report: dict) -> str:
    """The whole time, and each phase's where it is known."""
    names = {name: told["title"] for name, told in report["methods"].items()}
    parts = [f"{names.get(key, key)} {duration(value)}" for key, value in report["seconds"].items() if key != "total"]
    return duration(report["seconds"]["total"]) + (f" ({', '.join(parts)})" if parts else "")
