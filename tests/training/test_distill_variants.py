"""Every kind of recipe goes through the whole command: trained, saved, loaded again, measured and drawn."""

import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file
from training_support import commands as commands_module
from training_support.commands import MINI, environment, without
from training_support.runs import METRICS, files_in, is_finite, metadata_of, tensors_in

SMALL = "--no_baseline --measure.steps 2 --measure.gammas 0.2 "  # one student, one figure each
SMALL += "--teacher.prediction epsilon --end_times.draw integers --end_times.draws 1 --objective.distance l2"
VARIANTS = {
    "v_prediction, PCM": "--teacher.prediction v_prediction --end_times.segments 4 --end_times.lower_share 1",
    "v_prediction, zero terminal SNR": "--teacher.prediction v_prediction --teacher.zero_terminal_snr",
    "sample, exact, bf16": "--teacher.prediction sample --end_times.draw exact --end_times.lower_share 0 "
    "--training.precision bf16",
    "flow, dpm2": "--teacher.prediction flow --objective.solver dpm2",
    "full": "--student.kind full",
    "full, TCF(S+), fp16": "--student.kind full --objective.form tcf_s_plus --student.dtype fp16",
    "TCF(2) in data, fp16": "--objective.form tcf2 --objective.tcf2_form data --student.dtype fp16",
    "TCF(S+)": "--objective.form tcf_s_plus",
    "TSCD": "--end_times.segments 8 4 2 1",
    "EMA target, dpm2, pseudo-Huber, span of w": "--objective.target ema --objective.solver dpm2 "
    "--objective.distance pseudo_huber --objective.w_min 0 --objective.w_max 2",
    "grid, several s, unguided, unweighted, accumulated": "--end_times.draw grid --end_times.draws 3 "
    "--objective.no_guided --objective.weight none --training.accumulation 2",
    "kept teacher pairs, accumulated": "--objective.pairs 2 --training.accumulation 2",
}
SOLVERS = {"euler", "ddim", "dpmpp_2s"}


def ran(commands, folder, *words) -> dict:
    """The report of a mini run of the recipe, which went well and has figures throughout."""
    undrawn = without("training.evaluate.draw", gives=[])
    done = commands.run(*MINI, *SMALL.split(), *words, "--output", "run", cwd=folder, faults=[undrawn])
    assert done.status == 0 and "Traceback" not in done.err, done
    report = json.loads((folder / "run" / "report.json").read_text(encoding="utf-8"))
    for metric in METRICS:
        assert is_finite(report[metric]), (metric, report[metric])
    assert all(is_finite(curve["loss"]) for curve in report["loss"].values())
    assert {"report.md", "results.json"} <= files_in(folder / "run")
    return report


@pytest.mark.parametrize("words", VARIANTS.values(), ids=VARIANTS)
def test_a_run_of_this_kind_ends_well(commands, tmp_path, words):
    report = ran(commands, tmp_path, *words.split())
    solvers = {"euler", "dpmpp_2s"} if "flow" in words else SOLVERS
    assert set(report["fd"]) == {"floor", "tcd", *solvers}
    tensors, recipe = tensors_in(tmp_path / "run"), report["recipe"]
    assert all(torch.isfinite(w).all() for w in tensors.values())
    embedding = [name for name in tensors if "target_embed" in name or "s_embed" in name]
    assert bool(embedding) == (recipe["objective"]["form"] == "tcf_s_plus")
    dtype = torch.float16 if recipe["student"]["dtype"] == "fp16" else torch.float32
    assert {w.dtype for name, w in tensors.items() if name.startswith("tcd_")} == {dtype}
    if recipe["student"]["kind"] == "full":
        assert "tcd_digits/config.json" in files_in(tmp_path / "run")
        return
    told = metadata_of(tmp_path / "run" / "tcd_digits.safetensors")
    assert told["tcd.form"] == recipe["objective"]["form"] and told["tcd.recipe_hash"] == report["recipe_hash"]
    prediction = recipe["teacher"]["prediction"]
    assert told["modelspec.prediction_type"] == {"v_prediction": "v"}.get(prediction, prediction)
    segments = recipe["end_times"]["segments"]
    assert (f"in {', '.join(map(str, segments))} segments" in told["tcd.training_span"]) == (segments != [1])


def test_the_forms_are_compared_on_demand(commands, tmp_path):
    report = ran(commands, tmp_path, "--comparisons", "forms")
    assert set(report["forms"]) == {"tcf1", "tcf2", "tcf_s_plus"} and is_finite(report["forms"])
    assert {"tcf2_digits.safetensors", "tcf_s_plus_digits.safetensors"} <= files_in(tmp_path / "run")


def test_several_training_seeds_are_whole_runs_in_one_report(commands, tmp_path):
    report = ran(commands, tmp_path, "--training_seeds", "2", "--seed", "3", "--name", "two")
    assert report["spread"] == "2 training seeds, one sampling seed each" and report["seeds"]["training"] == [3, 4]
    assert report["fd"]["tcd"]["2"]["n"] == 2 and report["fd"]["tcd"]["2"]["std"] > 0
    for seed in (3, 4):
        assert {"teacher/config.json", "tcd_two.safetensors"} <= files_in(tmp_path / "run" / f"seed-{seed}")
    tensors = tensors_in(tmp_path / "run")
    name = next(name for name in tensors if name.startswith("seed-3/tcd_two") and "lora_up" in name)
    assert not torch.equal(tensors[name], tensors[name.replace("seed-3", "seed-4", 1)])


def test_two_processes_make_one_run_with_the_weights_of_one(commands, tmp_path):
    words = [*MINI, *SMALL.split(), "--training.lr", "1e-4", "--output"]
    launch = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launch += ["--main_process_port", "0", commands_module.__file__, *words, "two"]
    env = environment() | {"ACCELERATE_USE_CPU": "true"}
    two = subprocess.run(launch, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=300)
    assert two.returncode == 0, two.stderr[:6000]
    assert two.stdout.count("Writing to two\n") == two.stdout.count("Files in two:") == 1
    one = commands.run(*words, "one", cwd=tmp_path)
    assert one.status == 0 and sorted(os.listdir(tmp_path)) == ["one", "two"], one
    assert files_in(tmp_path / "one") == files_in(tmp_path / "two")
    found, expected = (load_file(tmp_path / name / "tcd_digits.safetensors") for name in ("two", "one"))
    assert found.keys() == expected.keys() and len(found) > 20
    assert max(distances(found, expected).values()) <= 1e-5, distances(found, expected)
    moved = {name: w for name, w in expected.items() if "lora_up" in name}  # from zero
    assert norm({name: found[name] - w for name, w in moved.items()}) < 1e-3 * norm(moved)


def distances(found: dict, expected: dict) -> dict[str, float]:
    """Each tensor's largest difference. AdamW makes much of rounding where a gradient is next to nothing."""
    return {name: (found[name] - w).abs().max().item() for name, w in expected.items()}


def norm(tensors: dict) -> float:
    return torch.cat([w.flatten() for w in tensors.values()]).norm().item()
