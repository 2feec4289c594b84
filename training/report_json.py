"""report.json: the tables of measured `Results` as plain data, of which report.md, report.html and plots are made.

``report[metric]`` holds ``floor`` and method → steps → {mean, std, n} (and ``interval``, [low, high], where it was
worked out); ``metrics``, ``methods`` and ``groups`` describe them (see `catalogue`), ``main`` is the metric that the
claims are about.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict

from .results import LCM_GAMMA, Key, Results


def to_json(results: Results) -> dict:
    """The report as plain data: means, spreads and tables; plain JSON, without NaN.

    Raises:
        ValueError: a metric's name is one of the report's own keys.
    """
    solvers = {name for name, method in results.methods.items() if method.kind == "solver"}
    tables = {metric: _methods(results, metric) for metric in results.metrics}
    report = {
        "version": 1,
        "recipe": dict(results.recipe),
        "recipe_hash": results.recipe_hash,
        "title": results.title,
        "about": results.about,
        "main": results.main,
        "metrics": {name: asdict(metric) for name, metric in results.metrics.items()},
        "methods": {name: asdict(method) for name, method in results.methods.items()},
        "reference": results.reference,
        "conditions": results.conditions,
        "left_out": results.left_out,
        "shown": results.shown,
        "spread": spread_rule(results.values, solvers),
        "seeds": {
            "training": sorted({key.training_seed for key in results.values}),
            "sampling": sorted({key.sampling_seed for key in results.values if key.method not in solvers}),
            "sampling_solvers": sorted({key.sampling_seed for key in results.values if key.method in solvers}),
        },
        "n_samples": results.n_samples,
        "seconds": {"total": sum(results.seconds.values())} | results.seconds,
        "versions": results.versions,
        "floor_ranges": {metric: list(ends) for metric, ends in results.floor_ranges.items()},
        "gamma_sweep": _sweep(results, results.with_role("tcd")),
        "gamma_sweeps": _other_sweeps(results),
        "student_x_gamma": _student_x_gamma(results),
        "tcd_below_lcm": _below(results),
        "forms": _group(results, "forms"),
        "groups": _groups(results),
        "differences": [
            pair._asdict() | {"mean": mean, "interval": [low, high]}
            for pair, (mean, low, high) in results.differences.items()
        ],
        "costs": _costs(results),
        "loss": results.losses,
    }
    if taken := report.keys() & tables.keys():
        raise ValueError(f"a metric cannot be called {', '.join(sorted(taken))}: report.json has other things there")
    return _plain(report | tables)


def spread_rule(keys: Iterable[Key], solvers: Iterable[str] = ()) -> str:
    """What the spread of the students' figures is over, in words."""
    keys = list(keys)
    keys = [key for key in keys if key.method not in solvers] or keys
    training, sampling = len({key.training_seed for key in keys}), len({key.sampling_seed for key in keys})
    if training > 1:
        each = f"each the mean of {sampling} sampling seeds" if sampling > 1 else "one sampling seed each"
        return f"{training} training seeds, {each}"
    return f"{sampling} sampling seeds, one training seed" if sampling > 1 else "one training seed, one sampling seed"


def _methods(results: Results, metric: str) -> dict:
    """The row of every method that stands in the tables of methods, at its own gamma."""
    shown = {name: method.gamma for name, method in results.methods.items() if method.group is None}
    rows = {name: results.table(metric, name, gamma) for name, gamma in shown.items()}
    return {"floor": results.floors.get(metric)} | {name: row for name, row in rows.items() if row}


def _by_steps(results: Results, method: str | None, gamma: float | None) -> dict:
    """steps → metric → cell."""
    tables = {metric: results.table(metric, method, gamma) for metric in results.metrics}
    steps = sorted({int(n) for table in tables.values() for n in table})
    return {str(n): {metric: table[str(n)] for metric, table in tables.items() if str(n) in table} for n in steps}


def _sweep(results: Results, method: str | None) -> dict:
    """gamma → steps → metric → cell, of one student's weights sampled at several gammas."""
    gammas = results.gammas(method) if method else []
    return {f"{gamma:g}": _by_steps(results, method, gamma) for gamma in gammas} if len(gammas) > 1 else {}


def _other_sweeps(results: Results) -> dict:
    """method → its sweep, for the students besides the first TCD that were sampled at more gammas than the 2 × 2's."""
    ours, pair = results.with_role("tcd"), {results.gamma, LCM_GAMMA}
    swept = [name for name in results.methods if name != ours and set(results.gammas(name)) - pair]
    return {name: sweep for name in swept if (sweep := _sweep(results, name))}


def _student_x_gamma(results: Results) -> dict:
    """Each student's weights, as LCM is sampled and as TCD is, by the main metric."""
    gammas = sorted({results.gamma, LCM_GAMMA}, reverse=True)
    students = [name for name, method in results.methods.items() if method.kind == "student" and method.group is None]
    tables = {m: {f"{g:g}": row for g in gammas if (row := results.table(results.main, m, g))} for m in students}
    return {method: table for method, table in tables.items() if table}


def _below(results: Results) -> dict:
    """steps → on how many (training seed, sampling seed) pairs TCD's main metric is below LCM's."""
    ours, theirs = results.with_role("tcd"), results.with_role("lcm")
    if not (ours and theirs):
        return {}
    pairs = {}
    for key, tcd in results.values.items():
        if key[:3] == (results.main, ours, results.methods[ours].gamma):
            lcm = results.values.get(key._replace(method=theirs, gamma=results.methods[theirs].gamma))
            if lcm is not None:
                pairs.setdefault(key.steps, []).append(tcd < lcm)
    return {str(n): {"seeds": sum(pairs[n]), "of": len(pairs[n])} for n in sorted(pairs)}


def _group(results: Results, group: str) -> dict | None:
    """method → steps → metric → cell of a group's students, the report's own first; None where none was measured."""
    members = {name: method for name, method in results.methods.items() if method.group == group}
    rows = {name: _by_steps(results, name, method.gamma) for name, method in members.items()}
    rows = {name: row for name, row in rows.items() if row}
    if not rows:
        return None
    own, ours = results.groups[group].own, results.with_role("tcd")
    return ({own: _by_steps(results, ours, results.methods[ours].gamma)} if own and ours else {}) | rows


def _groups(results: Results) -> dict:
    """group → its description and, but for the forms, which stand by themselves, its rows."""
    rows = {name: _group(results, name) for name in results.groups}
    return {
        name: asdict(results.groups[name]) | ({} if name == "forms" else {"rows": rows[name]})
        for name in results.groups
        if rows[name]
    }


def _costs(results: Results) -> dict:
    """method → steps → seconds a picture, evaluations, peak bytes, and of how many pictures."""
    found: dict[str, dict] = {}
    for (method, steps), cost in sorted(results.costs.items(), key=lambda item: item[0][1]):
        found.setdefault(method, {})[str(steps)] = {
            "seconds_per_picture": cost.seconds / cost.pictures if cost.pictures else None,
            "evaluations": cost.evaluations,
            "peak_bytes": cost.peak_bytes,
            "pictures": cost.pictures,
        }
    return {name: found[name] for name in results.methods if name in found}


def _plain(data):
    """JSON without NaN and infinity, which are None, and with nothing that UTF-8 cannot hold."""
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, str):  # a file's name may hold bytes that are no letters
        return data.encode("utf-8", "replace").decode()
    if isinstance(data, Sequence):
        return [_plain(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data
