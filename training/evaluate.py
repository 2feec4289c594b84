"""``python -m training.evaluate RUN_DIR``: measure and draw a run that `training.distill` made, from its files.

`training.distill` ends with the same. Alone it measures a run again, with other steps, gammas or seeds if wanted, into
a folder of its own. ``--compare A.json B.json`` shows reports side by side (`compare`).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated

import tyro

VALUES = "results.json"  # every single value, with its seeds


@dataclass(frozen=True)
class Options:
    """Measure and draw a run that training.distill made; --compare A.json B.json shows reports side by side.

    Attributes:
        run: the run's folder
        output: where to write; default: a new folder "measured" in the run's
        steps: sampling steps, network evaluations
        gamma: gamma at which TCD is reported, 0 … 1
        gammas: gammas of the sweep
        sampling_seeds: how many noises each student is sampled from
        w: guidance of the numerical solvers
    """

    run: Annotated[Path, tyro.conf.Positional]
    output: Path | None = None
    steps: tuple[int, ...] | None = None
    gamma: float | None = None
    gammas: tuple[float, ...] | None = None
    sampling_seeds: int | None = None
    w: float | None = None


def main(argv: list[str] | None = None) -> int:
    if "--compare" in (sys.argv[1:] if argv is None else argv):
        from .compare import main as compare

        return compare(argv)
    options = tyro.cli(
        Options, args=argv, prog="python -m training.evaluate", description=Options.__doc__.split("\n")[0]
    )
    from .disk import OutputError, check_writable
    from .distill import _quiet
    from .opening import stored_recipe
    from .run_folder import claim
    from .stopping import terminated_as_interrupted

    _quiet()
    names = [field.name for field in fields(Options)][2:]
    changed = {name: value for name in names if (value := getattr(options, name)) is not None}
    try:
        stored_recipe(options.run)  # a wrong run is said before a wrong output
        check_writable(options.output or options.run, 20_000_000)
        with terminated_as_interrupted():
            evaluate(options.run, None, changed, lambda: claim(options.output or options.run / "measured"))
    except (OutputError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; nothing was written", file=sys.stderr)
        return 130
    return 0


def evaluate(run: Path, folder: Path | None, changed: dict | None = None, make_folder=None) -> dict:
    """Measure a run's files and write report.json, report.md, results.json and the pictures.

    Args:
        run: a run's folder, all of its phases finished.
        folder: where the report goes; None asks ``make_folder`` once everything is measured.
        changed: fields of the recipe's ``measure`` to replace.

    Returns:
        What report.json holds.

    Raises:
        ValueError: no run there, or one with phases left to do.
    """
    from . import report
    from .distill import seed_folders
    from .measure import Measurement
    from .opening import stored_recipe
    from .phases import losses, student_phases
    from .recipe import recipe_hash, replaced
    from .results import Results
    from .run_folder import finished

    recipe = replaced(stored_recipe(run), measure=changed or {})
    parts = seed_folders(recipe, run)
    for _, part in parts:
        _check_whole(recipe, part)
    measurement = Measurement(recipe, lambda line: print(f"Measuring {line}", flush=True))
    results = Results(
        recipe.model_dump(mode="json"),
        recipe_hash(recipe),
        len(measurement.judge.labels),
        versions=_versions(),
        metrics=measurement.judge.metrics,
    )
    for seed, part in parts:
        for phase, seconds in finished(part).items():
            results.seconds[phase] = results.seconds.get(phase, 0.0) + seconds
        measurement.run(results, part, seed)
    results.losses.update(losses(parts[0][1]))
    results.seconds["total"] = sum(results.seconds.values())
    folder = folder or make_folder()
    files = draw(report.to_json(results), measurement.pictures, folder)
    results.save(folder / VALUES)
    written = report.write_report(results, folder, files)
    artefacts = [phase.artefact(part) for _, part in parts for phase in student_phases(recipe)]
    print(
        report.summary(results, [*(folder / f"report.{kind}" for kind in ("html", "md", "json")), *files, *artefacts])
    )
    return written


def _check_whole(recipe, part: Path) -> None:
    """Refuse a training seed's folder in which a phase or its artefact is missing."""
    from .phases import TEACHER, student_phases
    from .run_folder import finished

    artefacts = {TEACHER: part / TEACHER} | {phase.name: phase.artefact(part) for phase in student_phases(recipe)}
    if missing := [name for name in artefacts if name not in finished(part)]:
        raise ValueError(f"{part} is not finished, {', '.join(missing)} is missing: go on with --resume first")
    if lost := [str(path) for path in artefacts.values() if not path.exists()]:
        raise ValueError(f"{', '.join(lost)} is gone: put it back, or train a new run")


def draw(report: dict, pictures: dict, folder: Path) -> list[Path]:
    """The PNGs of a report; those that there are values for."""
    from . import plots, sample_grid

    rows = {told["title"]: pictures[method] for method, told in report["methods"].items() if method in pictures}
    sample_grid.sample_grid(rows, folder / "samples.png", invert=True)
    drawn = [folder / "samples.png"]
    for name in ("metric_against_steps", "metric_against_gamma", "loss_curve"):
        if getattr(plots, name)(report, folder / f"{name}.png"):
            drawn.append(folder / f"{name}.png")
    return drawn


def _versions() -> dict[str, str]:
    """Of the libraries that the figures depend on."""
    found = {}
    for name in ("tcd-toolkit", "torch", "diffusers", "peft", "accelerate", "scikit-learn", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed as a package"
    return found


if __name__ == "__main__":
    sys.exit(main())
