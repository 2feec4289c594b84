"""This trainer against the public one (rootonchair/consistency_models_distill), alternately, on a tiny SD 1.5.

    python benchmarks/trainer.py [CHECKOUT] [--python PYTHON] [--rounds 3] [--steps 50]

CHECKOUT is a clone of the public trainer; without it this trainer is measured alone. PYTHON is an interpreter that has
what its script imports (torchvision besides this package's extras), by default this one. Its LCM/TCD LoRA script for
SD 1.5 is run as it is; the one for SDXL stops at its first step.

Random weights: a UNet of 0.79 M parameters; 128 px, batch 4, LoRA of rank 8 on all layers, k = 20, w in [5, 15], L2,
float32, TensorBoard on, no checkpoints and no validation; one thread of one CPU, each run a process of its own. Both
read one webdataset shard: the public trainer in its loop, this one in a pass before, which is counted apart.

The UNet is evaluated as often in both: once with gradient, three times without. But the public trainer's teacher and
target run under an autocast without a dtype, which on a CPU is bf16, slower than float32 on most. So it is also run
with that switched off (row "public, fp32"): only then is the work per step equal.

CPU seconds per step are those between the optimiser's first and last step; the public trainer decodes pictures in a
process of its own, whose time and memory are not counted. "teacher pairs kept" has w fixed and goes through its first
batches again and again (objective.pairs): the steps that are counted are those after each teacher step has been made.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from trainer_runs import OURS, PAIRS, PARTS, PICTURES, POOL, PUBLIC, PUBLIC_FP32, SCRIPT

ROOT = Path(__file__).resolve().parent.parent
RATIOS = {
    "cpu": "CPU time %.2f (bar 0.75)",
    "MiB": "peak memory %.2f (bar 0.8)",
    "own MiB": "beyond the libraries %.2f",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", nargs="?", type=Path, help="a clone of the public trainer")
    parser.add_argument("--python", default=sys.executable, help="the interpreter that runs it")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each")
    parser.add_argument("--steps", type=int, default=50)
    options = parser.parse_args()
    if options.checkout and not (options.checkout / SCRIPT).is_file():
        parser.error(f"{options.checkout} is no clone of the public trainer: there is no {SCRIPT} in it")
    with tempfile.TemporaryDirectory() as folder:
        measured = measure(Path(folder), options)
    show(measured, options)


def measure(folder: Path, options) -> dict[str, list[dict]]:
    """Of each kind of run what its rounds gave; "cache" is the pass over the data."""
    in_process("prepare", folder, options)
    measured: dict[str, list[dict]] = {"cache": [in_process("encode", folder, options)]}
    kinds = [OURS, PAIRS] + [PUBLIC, PUBLIC_FP32] * bool(options.checkout)
    for number in range(options.rounds):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            print(f"round {number + 1}: {kind}", file=sys.stderr)
            measured.setdefault(kind, []).append(in_process(kind, folder, options))
    return measured


def in_process(kind: str, folder: Path, options) -> dict:
    """Run a job in a fresh process on one thread; what it measured."""
    job = {"kind": kind, "folder": str(folder), "checkout": str(options.checkout), "steps": options.steps}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    switches = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    interpreter = options.python if kind in (PUBLIC, PUBLIC_FP32) else sys.executable
    words = [interpreter, Path(__file__).with_name("trainer_runs.py"), json.dumps(job)]
    environment = os.environ | threads | switches
    done = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True)
    result = folder / "result.json"
    if done.returncode or not result.is_file():
        raise SystemExit(f"{kind} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}")
    found = json.loads(result.read_text())
    result.unlink()
    return found


# ---- what is printed ----


def show(measured: dict[str, list[dict]], options) -> None:
    cache = measured.pop("cache")[0]
    columns = ("run", "CPU s/step", "peak MiB", "of that libraries", *PARTS, "rest")
    print(f"{options.rounds} runs of {options.steps} steps each, medians (least … most)\n")
    print(f"| {' | '.join(columns)} |\n|{' --- |' * len(columns)}")
    for kind, runs in measured.items():
        spread = sorted(run["cpu"] for run in runs)
        parts = " | ".join(f"{middle(runs, part):.4f}" for part in (*PARTS, "rest"))
        seconds = f"{middle(runs, 'cpu'):.3f} ({spread[0]:.3f} … {spread[-1]:.3f})"
        print(f"| {kind} | {seconds} | {middle(runs, 'MiB'):.0f} | {middle(runs, 'libraries'):.0f} | {parts} |")
    print(
        f"\napart from that: this trainer's pass over {PICTURES} pictures {cache['all']:.1f} CPU s, "
        f"{cache['MiB']:.0f} MiB peak, {cache['bytes'] / 1e6:.1f} MB on the disk; pool of {POOL} teacher steps "
        f"{middle(measured[PAIRS], 'pool'):.2f} CPU s\n"
    )
    for other in (PUBLIC, PUBLIC_FP32):
        for ours in (OURS, PAIRS) if other in measured else ():
            said = [words % (middle(measured[ours], of) / middle(measured[other], of)) for of, words in RATIOS.items()]
            print(f"{ours} / {other}: {', '.join(said)}")


def middle(runs: list[dict], name: str) -> float:
    return statistics.median(run[name] for run in runs)


if __name__ == "__main__":
    main()
