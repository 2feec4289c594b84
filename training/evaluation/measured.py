"""From what lies in files to figures: sets' distances, means, intervals and costs, one record for the report.

`to_results` is the one place that knows how a report takes them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm.auto import tqdm

from ..bootstrap import mean_interval, paired_interval
from ..disk import write_atomically
from . import costs
from .cells import Cell, Method
from .distances import distance_to, gaussian_of, influences, kid
from .generation import picture_path
from .judging import DIVERSITY, Judging

MEANS = ("image_reward", "pick_score", "clip_score", "hps", "aesthetic", "complexity")
METRICS = ("fid", "kid", *MEANS, DIVERSITY)
Interval = tuple[float, float]


@dataclass
class Figures:
    """One cell's."""

    cell: Cell
    values: dict[str, float] = field(default_factory=dict)
    intervals: dict[str, Interval] = field(default_factory=dict)
    cost: dict[str, float | None] = field(default_factory=dict)


class Difference(NamedTuple):
    """method − other on the same prompts, each at its own gamma, with its 95 % interval."""

    metric: str
    method: str
    other: str
    steps: int
    difference: float
    interval: Interval


@dataclass
class Measured:
    """All that a report of real models is made from.

    Attributes:
        settings: what was measured, as plain data: model, prompts, steps, gamma, guidance ….
        pictures: of each cell, one for each prompt.
        floors: metric → the real pictures' own value, where it has one.
        sources: metric → library and weights.
        left_out: metric → why it was not measured.
        notes: what a reader must know, a line each.
        reference: what the pictures were compared with; empty for nothing.
    """

    settings: dict
    pictures: int
    methods: list[Method]
    figures: list[Figures] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    floors: dict[str, float] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    reference: dict[str, str | int] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it all as JSON."""
        write_atomically(path, json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")


def distances(judging: Judging, wanted: Sequence[str]) -> None:
    """FID, its interval, and KID of this process's share of the cells, each into a file beside its features."""
    real, rows = judging.reference, None
    if real.pictures:
        rows = judging.features(judging.reference_name)
    statistics = real.statistics or gaussian_of(rows)
    distance = distance_to(statistics)
    own = judging.cells[judging.process :: judging.processes]
    for cell in tqdm(own, desc="distances", unit="set", disable=judging.process > 0):
        path = distances_path(judging, cell)
        known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        if all(name in known for name in wanted if name == "fid" or (name == "kid" and rows)):
            continue
        made = judging.features(cell.name)
        if "fid" in wanted and "fid" not in known:
            moments = gaussian_of(made)
            known["fid"] = distance(moments)
            known["fid_interval"] = mean_interval(known["fid"] + influences(made, moments, statistics))
        if "kid" in wanted and rows and "kid" not in known:
            known["kid"] = kid(made, rows)
        write_atomically(path, json.dumps(known))


def distances_path(judging: Judging, cell: Cell) -> Path:
    """Where a cell's distances lie: another file for other weights and references."""
    told = f"{judging.sources['inception']} {judging.reference.sha256}"
    return judging.folder / "scores" / cell.name / f"distances-{hashlib.sha256(told.encode()).hexdigest()[:8]}.json"


def collect(judging: Judging, wanted: Sequence[str], measured: Measured) -> None:
    """Fill in the figures, from the files of all processes."""
    for name in wanted:
        network = "inception" if name in ("fid", "kid") else name
        if network in judging.sources:
            measured.sources[name] = judging.sources[network]
        elif network in judging.left_out:
            measured.left_out[name] = judging.left_out[network]
    for cell in judging.cells:
        figures = Figures(cell)
        if judging.reference and "inception" in judging.sources:
            known = json.loads(distances_path(judging, cell).read_text(encoding="utf-8"))
            figures.values |= {name: known[name] for name in ("fid", "kid") if name in known and name in wanted}
            if "fid" in figures.values and "fid_interval" in known:
                figures.intervals["fid"] = tuple(known["fid_interval"])
        for name in (*MEANS, DIVERSITY):
            if name in wanted and name in judging.sources and judging.path(cell.name, name).is_file():
                scores = judging.scores(cell, name)
                figures.values[name] = float(scores.mean())
                if len(scores) > 1:
                    figures.intervals[name] = mean_interval(scores)
        batches = costs.read(judging.folder / "costs", cell.name)
        figures.cost = costs.summed(batches, measured.pictures)
        if broken := sum(len(batch.broken) for batch in batches):
            measured.notes.append(
                f"{broken} of the {measured.pictures} pictures of {cell.name} were not finite (the network or the VAE "
                "overflowed) and stand as grey."
            )
        measured.figures.append(figures)
    measured.differences += _differences(judging, [name for name in (*MEANS, DIVERSITY) if name in measured.sources])
    if judging.reference and judging.reference.pictures and "complexity" in wanted:
        real = judging.path(judging.reference_name, "complexity")
        measured.floors["complexity"] = float(np.concatenate([*_parts(real)]).mean())


def _differences(judging: Judging, names: Sequence[str]) -> list[Difference]:
    """The first TCD student against every other method, each at its own gamma: of the same prompts and seeds."""
    own: dict[tuple[str, int], list[Cell]] = {}
    for cell in judging.cells:
        if cell.gamma == cell.method.gamma:
            own.setdefault((cell.method.name, cell.steps), []).append(cell)
    ours = next((cell.method.name for cell in judging.cells if cell.method.role == "tcd"), None)
    found = []
    for name in names:
        for (other, steps), theirs in own.items():
            mine = own.get((ours, steps), [])
            a, b = (_of_prompts(judging, cells, name) for cells in (mine, theirs))
            if other != ours and a is not None and b is not None and len(a) > 1:
                difference, interval = paired_interval(a, b)
                found.append(Difference(name, ours, other, steps, difference, interval))
    return found


def _of_prompts(judging: Judging, cells: Sequence[Cell], name: str) -> np.ndarray | None:
    """A value for each prompt: the mean over the seeds that have one; None where there is none."""
    scores = [judging.scores(cell, name) for cell in cells if judging.path(cell.name, name).is_file()]
    return np.mean(scores, axis=0) if scores else None


def _parts(path: Path):
    from .rows import Rows

    return Rows(path)


def to_results(measured: Measured):
    """The figures as a report takes them, `training.results.Results`.

    Methods are under their own names, solvers without a gamma; the main metric is FID, or what stands nearest to it of
    those that were measured. Costs go in by `add_cost`: seconds of all of a method's pictures, evaluations of one.
    """
    from ..catalogue import METRICS as KNOWN
    from ..catalogue import Method as Described
    from ..catalogue import known
    from ..results import Results

    present = [name for name in METRICS if any(name in of.values for of in measured.figures)]
    recipe = {"name": measured.settings["name"], "measure": {"gamma": measured.settings["gamma"]}} | measured.settings
    results = Results(
        recipe=recipe,
        recipe_hash=measured.settings["hash"],
        n_samples=measured.pictures,
        floors=dict(measured.floors),
        seconds=dict(measured.seconds),
        versions=dict(measured.versions),
        metrics=known(*present, **{name: measured.sources[name] for name in present}),
        methods={
            method.name: Described(
                method.title, "solver" if method.gamma is None else "student", method.gamma, method.role
            )
            for method in measured.methods
        },
        title=f"{measured.settings['name']}, {measured.pictures} prompts",
        about=" ".join([_about(measured.settings), *measured.notes]),
        reference=dict(measured.reference),
        conditions={"prompts": measured.pictures, "sha256": measured.settings["prompts"][:16]},
        left_out={KNOWN[name].title: why for name, why in measured.left_out.items()},
    )
    for of in measured.figures:
        cell = of.cell
        for name, value in of.values.items():
            results.add(name, cell.method.name, cell.steps, value, 0, cell.seed, cell.gamma, of.intervals.get(name))
        if cell.gamma == cell.method.gamma and of.cost:
            results.add_cost(cell.method.name, cell.steps, measured.pictures, **of.cost)
    for difference in measured.differences:
        results.add_difference(*difference)
    return results


def sample_files(measured: Measured, folder: Path, count: int) -> dict[str, dict[int, list[Path]]]:
    """Method's title → steps → its first pictures' files, at its own gamma, from the first seed: for a sample grid."""
    rows: dict[str, dict[int, list[Path]]] = {}
    for of in measured.figures:
        if of.cell.gamma == of.cell.method.gamma:
            files = [picture_path(folder, of.cell, i) for i in range(min(count, measured.pictures))]
            rows.setdefault(of.cell.method.title, {}).setdefault(of.cell.steps, files)
    return rows


def _about(settings: Mapping) -> str:
    return (
        f"{settings['model']['title']} at {settings['resolution']} px: numerical solvers by diffusers with guidance "
        f"w = {settings['w']:g} (CFG scale {settings['w'] + 1:g}), students without guidance by strategic stochastic "
        "sampling, unless a scheduler of diffusers is named."
    )
