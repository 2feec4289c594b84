"""``python -m training.evaluate``: measure a run that `training.distill` made, or real models like the paper.

``RUN_DIR``: measure and draw a run from its files, with other steps, gammas or seeds if wanted, into a folder of its
own; `training.distill` ends with the same. ``--model CHECKPOINT``: see `training.evaluation`. ``--compare A.json
B.json``: reports side by side, see `compare`.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Literal

import tyro

VALUES = "results.json"  # every single value, with its seeds
_Baseline = Literal["euler", "ddim", "dpmpp_2s", "lcm", "tcd"]
_Metric = Literal[
    "fid", "kid", "image_reward", "pick_score", "clip_score", "hps", "aesthetic", "complexity", "diversity"
]


@dataclass(frozen=True)
class Options:
    """Measure a run that training.distill made (RUN_DIR), or real models (--model); or --compare A.json B.json.

    Attributes:
        run: a run's folder; without it, --model
        output: where to write; of a run: a new folder "measured" in it; of models: outputs/evaluate-MODEL, gone on with
        steps: sampling steps, network evaluations; of models 2 4 8 20
        gamma: gamma at which TCD is reported, 0 … 1; of models 0.2
        gammas: gammas of the sweep; of models none
        sampling_seeds: how many noises each student is sampled from
        w: guidance of the numerical solvers, CFG scale − 1; of models 6.5
        model: the checkpoint: a .safetensors file, a diffusers folder, or a Hub name
        lora: LoRAs, each FILE or NAME=FILE, sampled by strategic stochastic sampling at --gamma
        lcm_lora: LoRAs that are sampled as LCM is, at gamma 1
        prompts: a text file with a prompt per line
        coco: the paper's protocol: a folder with COCO-2017's captions_val2017.json (or annotations/) and val2017/
        reference: real pictures' folder, or a .npz of their mu and sigma; with --coco its pictures
        baselines: diffusers' schedulers: the solvers on the base model, lcm on each --lcm-lora, tcd on each --lora
        seeds: of models: the seeds of the noise, a set of pictures each
        resolution: side of the pictures, px; default: the family's own
        dtype: number format of the UNet; default: fp16, on a CPU fp32
        batch: pictures at a time
        count: only the first so many prompts
        metrics: what to measure
        weights: a folder in which the metrics' weights are looked for first
        fetch: download metrics' weights that are not on this machine
        model_config: folder of diffusers' configs, for a model of other sizes than its family's
        prediction: what the model's network predicts; auto: what the file says
    """

    run: Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")] = None
    output: Path | None = None
    steps: tuple[int, ...] | None = None
    gamma: float | None = None
    gammas: tuple[float, ...] | None = None
    sampling_seeds: int | None = None
    w: float | None = None
    model: str | None = None
    lora: tuple[str, ...] = ()
    lcm_lora: tuple[str, ...] = ()
    prompts: Path | None = None
    coco: Path | None = None
    reference: Path | None = None
    baselines: tuple[_Baseline, ...] | None = None
    seeds: tuple[int, ...] | None = None
    resolution: int | None = None
    dtype: Literal["fp16", "bf16", "fp32"] | None = None
    batch: int | None = None
    count: int | None = None
    metrics: tuple[_Metric, ...] | None = None
    weights: Path | None = None
    fetch: tyro.conf.FlagCreatePairsOff[bool] = False
    model_config: str | None = None
    prediction: Literal["auto", "epsilon", "v_prediction"] | None = None

    def given(self) -> dict:
        """Options that were given, by name."""
        values = {of.name: getattr(self, of.name) for of in fields(self)}
        return {name: value for name, value in values.items() if not (value is None or value is False or value == ())}


_BOTH = {"output", "steps", "gamma", "gammas", "w"}
_OF_A_RUN = {"run", "sampling_seeds"}


def main(argv: list[str] | None = None) -> int:
    if "--compare" in (sys.argv[1:] if argv is None else argv):
        from .compare import main as compare

        return compare(argv)
    options = tyro.cli(
        Options,
        args=argv,
        prog="python -m training.evaluate",
        description=" ".join(Options.__doc__.split("\n\n")[0].split()),
    )
    given = options.given()
    of_models = set(given) - _OF_A_RUN - _BOTH
    if options.run and of_models or options.model and set(given) & _OF_A_RUN:
        wrong = sorted(of_models if options.run else set(given) & _OF_A_RUN)
        names = ", ".join("RUN_DIR" if name == "run" else "--" + name.replace("_", "-") for name in wrong)
        what = "a run that training.distill made" if options.run else "models"
        print(f"error: {names} has no meaning for {what}: give RUN_DIR or --model, not both", file=sys.stderr)
        return 2
    if not (options.run or options.model):
        print("error: give RUN_DIR, a run that training.distill made, or --model CHECKPOINT", file=sys.stderr)
        return 2
    from .disk import OutputError
    from .distill import _quiet
    from .stopping import terminated_as_interrupted

    _quiet(offline=bool(options.run) or not (options.fetch or _is_hub_name(options.model)))
    try:
        with terminated_as_interrupted():
            _measure_run(options, given) if options.run else _measure_models(given)
    except (OutputError, ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stopped:
        print(f"\nInterrupted{stopped or '; nothing was written'}", file=sys.stderr)
        return 130
    return 0


def _measure_run(options: Options, given: dict) -> None:
    from .disk import check_writable
    from .opening import stored_recipe
    from .run_folder import claim

    changed = {name: value for name, value in given.items() if name in (_BOTH | _OF_A_RUN) - {"output", "run"}}
    stored_recipe(options.run)  # a wrong run is said before a wrong output
    check_writable(options.output or options.run, 20_000_000)
    evaluate(options.run, None, changed, lambda: claim(options.output or options.run / "measured"))


def _measure_models(given: dict) -> None:
    from .evaluation.command import Request, run

    run(Request(**given))


def _is_hub_name(model: str) -> bool:
    from .models.hub import is_hub_name

    return not Path(model).exists() and is_hub_name(model)


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
    from .catalogue import distilled_methods
    from .comparisons import described
    from .distill import seed_folders
    from .measure import Measurement
    from .opening import stored_recipe
    from .phases import losses, trained_phases
    from .recipe import recipe_hash, replaced
    from .results import Results
    from .run_folder import finished

    recipe = replaced(stored_recipe(run), measure=changed or {})
    parts = seed_folders(recipe, run)
    for _, part in parts:
        _check_whole(recipe, part)
    measurement = Measurement(recipe, lambda line: print(f"Measuring {line}", flush=True))
    methods, groups = described(recipe)
    results = Results(
        recipe.model_dump(mode="json"),
        recipe_hash(recipe),
        len(measurement.judge.labels),
        versions=_versions(),
        metrics=measurement.judge.metrics,
        methods=distilled_methods(recipe.measure.gamma) | methods,
        groups=groups,
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
    artefacts = [phase.artefact(part) for _, part in parts for phase in trained_phases(recipe)]
    print(
        report.summary(results, [*(folder / f"report.{kind}" for kind in ("html", "md", "json")), *files, *artefacts])
    )
    return written


def _check_whole(recipe, part: Path) -> None:
    """Refuse a training seed's folder in which a phase or its artefact is missing."""
    from .phases import TEACHER, trained_phases
    from .run_folder import finished

    artefacts = {TEACHER: part / TEACHER} | {phase.name: phase.artefact(part) for phase in trained_phases(recipe)}
    if missing := [name for name in artefacts if name not in finished(part)]:
        raise ValueError(f"{part} is not finished, {', '.join(missing)} is missing: go on with --resume first")
    if lost := [str(path) for path in artefacts.values() if not path.exists()]:
        raise ValueError(f"{', '.join(lost)} is gone: put it back, or train a new run")


def draw(report: dict, pictures: dict, folder: Path) -> list[Path]:
    """The PNGs of a report; those that there are values for."""
    from . import plots, sample_grid

    rows = {
        told["title"]: pictures[method]
        for method, told in report["methods"].items()
        if method in pictures and not told["group"]
    }
    ink_on_paper = report["recipe"]["family"] == "digits"
    sample_grid.sample_grid(rows, folder / "samples.png", invert=ink_on_paper)
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
