"""report.json, read back: checked to be a report whole enough to be shown, and older ones completed."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, NonNegativeInt, PositiveInt, TypeAdapter, ValidationError

from .catalogue import DIGITS, Group, Method, Metric, distilled_forms, distilled_groups, distilled_methods, known


class CellShape(BaseModel):
    """A figure; mean and std are None where a value was not finite."""

    mean: FiniteFloat | None
    std: FiniteFloat | None
    n: PositiveInt
    interval: tuple[FiniteFloat, FiniteFloat] | None = None


class CostShape(BaseModel):
    seconds_per_picture: FiniteFloat | None
    evaluations: FiniteFloat
    peak_bytes: NonNegativeInt | None
    pictures: NonNegativeInt


class SeedsShape(BaseModel):
    training: list[int]
    sampling: list[int]
    sampling_solvers: list[int]


class MeasureShape(BaseModel):
    model_config = ConfigDict(extra="allow")
    gamma: FiniteFloat


class RecipeShape(BaseModel):
    model_config = ConfigDict(extra="allow")
    name: str
    measure: MeasureShape


Row = dict[str, CellShape]  # by steps
BySteps = dict[str, Row]  # steps → metric


class ReportShape(BaseModel):
    """What of a report other code relies on; the metrics' tables are checked one by one."""

    model_config = ConfigDict(extra="allow")
    version: Literal[1]
    recipe: RecipeShape
    recipe_hash: str
    main: str
    metrics: dict[str, Metric]
    methods: dict[str, Method]
    groups: dict[str, dict]
    n_samples: NonNegativeInt
    seeds: SeedsShape
    spread: str
    reference: dict[str, str | int]
    conditions: dict[str, str | int]
    versions: dict[str, str]
    floor_ranges: dict[str, tuple[FiniteFloat, FiniteFloat]]
    gamma_sweep: dict[str, BySteps]
    gamma_sweeps: dict[str, dict[str, BySteps]]
    student_x_gamma: dict[str, dict[str, Row]]
    tcd_below_lcm: dict[str, dict[Literal["seeds", "of"], int]]
    forms: dict[str, BySteps] | None
    costs: dict[str, dict[str, CostShape]]


TABLE = TypeAdapter(dict[str, Row])


def read_report(path: Path) -> dict:
    """A report.json, or that of a run's folder; of an earlier version too, which are of digits.

    Raises:
        ValueError: there is none, or the file is something else.
    """
    path = Path(path) / "report.json" if Path(path).is_dir() else Path(path)
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a report: it holds no JSON ({error})") from error
    if not isinstance(report, dict):
        raise ValueError(f"{path} is not a report: it holds no object")
    if "values" in report:
        raise ValueError(f"{path} holds single values: give the report.json beside it")
    if report.get("version") not in (1, None):
        raise ValueError(f"{path} is of version {report['version']}: a newer training.evaluate made it; use that one")
    if "files" in report and "metrics" not in report and "fd" not in report:
        raise ValueError(f"{path} is the record of a training, without figures: measure it with training.evaluate")
    try:
        return _checked(_completed(report))
    except (ValidationError, KeyError, TypeError, AttributeError, ValueError) as error:
        first = error.errors()[0] if isinstance(error, ValidationError) else None
        why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}" if first else repr(error)
        raise ValueError(f"{path} is not a report of this project ({why})") from error


def _completed(report: dict) -> dict:
    """With what reports did not have before they could be of other metrics and methods than digits'."""
    if "metrics" in report:
        return report
    recipe = report["recipe"]
    groups = distilled_groups(recipe.get("objective", {}).get("form", "tcf1")) if report.get("forms") else {}
    gamma = float(recipe["measure"]["gamma"])
    methods = distilled_methods(gamma) | distilled_forms(gamma)
    return {
        "title": "",
        "about": "",
        "main": "fd",
        "metrics": {name: asdict(metric) for name, metric in known(*DIGITS).items()},
        "methods": {name: asdict(method) for name, method in methods.items()},
        "groups": {name: asdict(group) for name, group in groups.items()},
        "gamma_sweeps": {},
        "differences": [],
        **{name: {} for name in ("reference", "conditions", "left_out", "shown", "costs")},
    } | report


def _checked(report: dict) -> dict:
    ReportShape.model_validate(report)
    if report["main"] not in report["metrics"]:
        raise ValueError(f"its main metric {report['main']!r} is not described")
    for metric in report["metrics"]:
        table = dict(report[metric])
        TypeAdapter(FiniteFloat | None).validate_python(table.pop("floor"))
        TABLE.validate_python(table)
        if lost := table.keys() - report["methods"].keys():
            raise ValueError(f"methods of {metric} are not described: {', '.join(sorted(lost))}")
    if lost := {*report["gamma_sweeps"], *report["student_x_gamma"], *report["costs"]} - {*report["methods"]}:
        raise ValueError(f"methods are not described: {', '.join(sorted(lost))}")
    if report["gamma_sweep"] and not any(told["role"] == "tcd" for told in report["methods"].values()):
        raise ValueError("gammas of TCD's weights, but no method of role tcd")
    for group in report["groups"].values():
        Group(*(group[name] for name in ("title", "about", "own")))
        TypeAdapter(dict[str, BySteps]).validate_python(group.get("rows", {}))
        if lost := {*group.get("rows", {})} - {*report["methods"]}:
            raise ValueError(f"methods are not described: {', '.join(sorted(lost))}")
    return report
