"""``python -m training.evaluate --model …``: every method sampled and measured, in a folder to be gone on with."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch
from accelerate import PartialState
from tqdm.auto import tqdm

from ..disk import OutputError, check_writable, write_atomically
from ..folder_lock import lock
from ..models.configs import TITLES
from . import lora
from .cells import Baseline, Cell, Method, cells_of, methods_of, named_loras
from .generation import Work, generate
from .judging import Judging
from .measured import DIVERSITY, METRICS, Measured, collect, distances, sample_files, to_results
from .model import Model
from .prompts import Prompt, read_coco, read_prompts
from .reference import Reference, notes_on, open_reference
from .weights import Weights

SETTINGS = "settings.json"  # what the pictures follow from
FIGURES = "measured.json"
SHOWN = 10  # pictures of each set in the sample grid, of the first prompts
LIBRARIES = ("tcd-toolkit", "torch", "diffusers", "transformers", "accelerate", "numpy", "pillow")
LIBRARIES += ("torch-fidelity", "torchmetrics", "torchvision")


@dataclass(frozen=True)
class Request:
    """What is asked for, as on the command line; see `training.evaluate.Options`."""

    model: str
    lora: tuple[str, ...] = ()
    lcm_lora: tuple[str, ...] = ()
    prompts: Path | None = None
    coco: Path | None = None
    reference: Path | None = None
    steps: tuple[int, ...] = (2, 4, 8, 20)
    gamma: float = 0.2
    gammas: tuple[float, ...] = ()
    seeds: tuple[int, ...] = (0,)
    baselines: tuple[Baseline, ...] = ("euler", "ddim", "dpmpp_2s")
    w: float = 6.5
    resolution: int | None = None
    dtype: str | None = None
    batch: int = 4
    count: int | None = None
    metrics: tuple[str, ...] = METRICS
    weights: Path | None = None
    fetch: bool = False
    model_config: str = ""
    prediction: str = "auto"
    output: Path | None = None

    def __post_init__(self):
        if (self.prompts is None) == (self.coco is None):
            raise ValueError("give --prompts FILE, a prompt per line, or --coco FOLDER, and not both")
        if self.resolution is not None and (self.resolution < 64 or self.resolution % 8):
            raise ValueError(f"--resolution must be a multiple of 8 from 64 on, got {self.resolution}")
        for name, values, least in (("steps", self.steps, 1), ("seeds", self.seeds, 0), ("batch", [self.batch], 1)):
            if not values or min(values) < least or len(set(values)) < len(values):
                raise ValueError(f"--{name} must be from {least} on, none of them twice, got {_words(values)}")
        for name, values in (("gamma", [self.gamma]), ("gammas", self.gammas)):
            if not all(0 <= value <= 1 for value in values):
                raise ValueError(f"--{name} must lie in [0, 1], got {_words(values)}")
        for name, values, known in (("metrics", self.metrics, METRICS),):
            if unknown := set(values) - set(known):
                raise ValueError(f"--{name}: {_words(sorted(unknown))} is none of {', '.join(known)}")
        if self.w < 0 or (self.count is not None and self.count < 2):
            raise ValueError("--w must not be negative, and --count at least 2")


@dataclass(frozen=True)
class Opened:
    """A request whose files were all looked at."""

    request: Request
    folder: Path
    model: Model
    prompts: Sequence[Prompt]
    reference: Reference | None
    loras: Mapping[str, Path]
    methods: Sequence[Method]
    cells: Sequence[Cell]
    settings: dict

    @property
    def pictures(self) -> int:
        return len(self.cells) * len(self.prompts)


def run(request: Request) -> Measured:
    """Make what pictures are missing, measure them all, and write the figures.

    Raises:
        ValueError, OutputError: something that was given cannot be used; said before anything is made.
        KeyboardInterrupt: with what is kept and how to go on.
    """
    from ..distill import _has_accelerator

    state = PartialState(cpu=not _has_accelerator(), timeout=timedelta(days=7))  # the others wait for the slowest
    opened = open_all(request, state.device)
    with ExitStack() as stack:
        if state.is_main_process:
            _begin(opened, stack)
        state.wait_for_everyone()
        try:
            started = time.monotonic()
            _generate(opened, state)
            state.wait_for_everyone()
            judging = _judge(opened, state)
            state.wait_for_everyone()
            measured = _collected(opened, judging)
            measured.seconds["total"] = time.monotonic() - started
            if state.is_main_process:
                _write(opened, measured)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f": what is done stays in {opened.folder}, the same command goes on") from None
        state.wait_for_everyone()
    return measured


def open_all(request: Request, device: torch.device) -> Opened:
    """Look at everything that was given."""
    coco = read_coco(request.coco, request.count) if request.coco else None
    prompts = coco[0] if coco else read_prompts(request.prompts, request.count)
    dtype = request.dtype or ("fp32" if device.type == "cpu" else "fp16")
    model = Model(request.model, dtype, device, request.resolution, request.model_config, request.prediction)
    path = request.reference or (coco[1] if coco else None)
    reference = open_reference(path, len(prompts), model.resolution) if path else None
    ours, lcm = named_loras(request.lora), named_loras(request.lcm_lora, "--lcm-lora")
    methods = methods_of(ours, lcm, request.baselines, request.gamma)
    if not methods:
        raise ValueError("nothing to sample: give --lora FILE, --lcm-lora FILE, or --baselines euler ddim dpmpp_2s")
    loras, skeleton = ours | lcm, model.skeleton() if ours or lcm else None
    second = [name for name, path in loras.items() if lora.read(skeleton, path).second_order]
    cells = cells_of(methods, request.steps, request.gammas, request.seeds, second)
    name = re.sub(r"[^\w.-]+", "_", Path(request.model).stem)
    folder = request.output or Path("outputs") / f"evaluate-{name}"
    settings = _settings(name, request, model, dtype, prompts, loras)
    _check_same(folder, settings)
    return Opened(request, folder, model, prompts, reference, loras, methods, cells, settings)


# -- the folder --------------------------------------------------------------------------------------------------------


def _settings(name: str, request: Request, model: Model, dtype: str, prompts, loras: Mapping[str, Path]) -> dict:
    """What the pictures follow from; a folder's are all of the same, but for LoRAs, which may be more each time."""
    found = model.family.found
    return {
        "name": name,
        "model": {
            "title": TITLES[found.family],
            "fingerprint": found.fingerprint,
            "prediction": model.family.prediction,
            "zero_terminal_snr": model.family.zero_terminal_snr,
        },
        "prompts": hashlib.sha256(json.dumps([prompt.text for prompt in prompts]).encode()).hexdigest(),
        "count": len(prompts),
        "resolution": model.resolution,
        "dtype": dtype,
        "w": request.w,
        "batch": request.batch,
        "loras": {name: _file_sha256(path) for name, path in loras.items()},
    }


def _check_same(folder: Path, settings: dict) -> None:
    """Refuse a folder with pictures of other settings, or of another LoRA by the same name."""
    path = folder / SETTINGS
    if not path.is_file():
        if folder.is_dir() and any(folder.glob("*")) and not _only_locks(folder):
            raise OutputError(f"{folder} holds something else than an evaluation: choose another with --output")
        return
    try:
        there = json.loads(path.read_text(encoding="utf-8"))
        others = {name: sha for name, sha in there.pop("loras").items() if settings["loras"].get(name, sha) != sha}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise OutputError(f"{path} cannot be read ({error}): choose another folder with --output") from error
    differing = [name for name in there if there[name] != settings.get(name) and name != "name"]
    differing += [f"LoRA {name}" for name in others]
    if differing:
        words = ", ".join(
            f"{name} ({_short(there[name])} there, {_short(settings.get(name))} here)" if name in there else name
            for name in differing
        )
        raise OutputError(
            f"{folder} holds pictures made with other settings: {words}. Give the same, or another folder with --output"
        )


def _only_locks(folder: Path) -> bool:
    return all(path.name.startswith("running-") for path in folder.iterdir())


def _begin(opened: Opened, stack: ExitStack) -> None:
    """Hold the folder, and note what its pictures follow from."""
    folder, side = opened.folder, opened.model.resolution
    works = Work(folder, opened.prompts, opened.cells, opened.loras, opened.request.batch, opened.request.w)
    missing = sum(len(rows) for cell in opened.cells for rows in works.missing(cell))
    check_writable(folder, int(missing * (1.6 * side**2 + 10_000)) + 20_000_000)
    folder.mkdir(parents=True, exist_ok=True)
    stack.enter_context(lock(folder))
    settings = dict(opened.settings)
    if (folder / SETTINGS).is_file():
        settings["loras"] = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))["loras"] | settings["loras"]
    write_atomically(folder / SETTINGS, json.dumps(settings, indent=1, ensure_ascii=False) + "\n")
    kept = f", {opened.pictures - missing:,} of them there already" if missing < opened.pictures else ""
    print(f"{opened.pictures:,} pictures of {len(opened.cells)} sets in {folder}{kept}", flush=True)


# -- the work ----------------------------------------------------------------------------------------------------------


def _generate(opened: Opened, state: PartialState) -> None:
    request = opened.request
    work = Work(
        opened.folder,
        opened.prompts,
        opened.cells,
        opened.loras,
        request.batch,
        request.w,
        state.process_index,
        state.num_processes,
    )
    missing = sum(len(rows) for cell in opened.cells for rows in work.missing(cell))
    with tqdm(total=missing, desc="pictures", unit="picture", disable=not (state.is_main_process and missing)) as bar:
        generate(work, opened.model, bar.update)
    opened.model.free()


def _judge(opened: Opened, state: PartialState) -> Judging:
    request = opened.request
    judging = Judging(
        opened.folder,
        opened.prompts,
        opened.cells,
        opened.reference,
        opened.model.resolution,
        Weights(request.weights, request.fetch),
        state.device,
        state.process_index,
        state.num_processes,
        state.wait_for_everyone,
    )
    wanted = request.metrics
    networks = [name for name in wanted if name not in ("fid", "kid", DIVERSITY)]
    if opened.reference and {"fid", "kid"} & set(wanted):
        networks.insert(0, "inception")
    judging.run(networks, DIVERSITY in wanted and len(request.seeds) > 1)
    if "inception" in judging.sources:
        distances(judging, wanted)
    return judging


def _collected(opened: Opened, judging: Judging) -> Measured:
    request, reference = opened.request, opened.reference
    settings = opened.settings | {"gamma": request.gamma, "steps": list(request.steps), "seeds": list(request.seeds)}
    settings["hash"] = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
    measured = Measured(settings, len(opened.prompts), list(opened.methods), versions=_versions())
    if reference:
        measured.reference = reference.data
        measured.notes += notes_on(reference, len(opened.prompts)) if "inception" in judging.sources else []
    collect(judging, request.metrics, measured)
    for name in {"fid", "kid"} & set(request.metrics):
        if not reference:
            measured.left_out[name] = "there is nothing to compare with: give --reference FOLDER, or FILE.npz"
        elif name == "kid" and not reference.pictures and "inception" in judging.sources:
            measured.sources.pop(name, None)
            measured.left_out[name] = "it needs the real pictures, and statistics were given"
    if DIVERSITY in request.metrics and len(request.seeds) < 2:
        measured.left_out[DIVERSITY] = "it is between pictures of several seeds: give --seeds 0 1"
    measured.seconds["generate"] = sum(of.cost["seconds"] for of in measured.figures)
    return measured


def _write(opened: Opened, measured: Measured) -> None:
    measured.save(opened.folder / FIGURES)
    _report(opened, measured)
    for name, why in measured.left_out.items():
        print(f"{name} is left out: {why}")
    for note in measured.notes:
        print(f"Note: {note}")
    print("\n".join(table(measured)))
    print(f"Figures in {opened.folder / FIGURES}, report in {opened.folder / 'report.html'}")


def _report(opened: Opened, measured: Measured) -> None:
    """results.json, the report, and its pictures."""
    from .. import plots, report, sample_grid

    folder, results = opened.folder, to_results(measured)
    results.shown["samples.png"] = [prompt.text for prompt in opened.prompts[:SHOWN]]
    results.save(folder / "results.json")
    drawn = [folder / "samples.png"]
    sample_grid.sample_grid(sample_files(measured, folder, SHOWN), drawn[0])
    data = report.to_json(results)
    for name in ("metric_against_steps", "metric_against_gamma"):
        if getattr(plots, name)(data, folder / f"{name}.png"):
            drawn.append(folder / f"{name}.png")
    report.write_report(results, folder, drawn)


def table(measured: Measured) -> list[str]:
    """Every metric's figures in lines of text, a row for each method and gamma, step counts across."""
    steps, lines = sorted({of.cell.steps for of in measured.figures}), []
    rows: dict[tuple, dict[str, dict[int, list[float]]]] = {}
    for of in measured.figures:
        row = rows.setdefault((of.cell.method.title, of.cell.gamma), {})
        cost = {"seconds per picture": of.cost["seconds"] / measured.pictures, "evaluations": of.cost["evaluations"]}
        peak = of.cost["peak_bytes"]
        for name, value in (of.values | cost | ({"peak memory, GB": peak / 1e9} if peak else {})).items():
            row.setdefault(name, {}).setdefault(of.cell.steps, []).append(value)
    names = dict.fromkeys(name for row in rows.values() for name in row)
    for name in names:
        lines += ["", f"{name:40}" + "".join(f"{n:>5} step{'s' if n > 1 else ' '}" for n in steps)]
        for (title, gamma), row in rows.items():
            if name in row:
                head = title if gamma is None else f"{title}, γ = {gamma:g}"
                cells = (row[name].get(n) for n in steps)
                lines.append(f"{head:40}" + "".join(f"{sum(v) / len(v):>11.4g}" if v else " " * 11 for v in cells))
    return lines


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while part := file.read(1 << 24):
            digest.update(part)
    return digest.hexdigest()


def _short(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(_short(v) for v in value.values())
    return str(value)[:24]


def _words(values: Sequence) -> str:
    return " ".join(map(str, values)) or "none"
