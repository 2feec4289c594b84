"""`python -m training.distill` as a user runs it: what it leaves behind, and that it does the same again."""

import json
import re
import shutil
import struct
import subprocess
import sys

import pytest
from training_support import commands as commands_module
from training_support.commands import MINI, at, environment
from training_support.runs import METRICS, bytes_in, figures_in, files_in, is_finite, metadata_of, tensors_in
from training_support.tiny import differing

from training.recipe import lcm_baseline, load_recipe, recipe_hash, replaced

PICTURES = {"samples.png", "metric_against_steps.png", "metric_against_gamma.png", "loss_curve.png"}
LORAS = {"tcd_digits.safetensors", "lcm_digits.safetensors"}
TEACHER = {"teacher/config.json", "teacher/diffusion_pytorch_model.safetensors", "teacher/label_tokens.safetensors"}
REPORTS = {"report.json", "report.md", "report.html", "results.json"}
OF_THE_RUN = {"recipe.toml", "state.json", "losses.json"}


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """(working directory, the process) of the command in a new interpreter, with the smallest recipe."""
    folder = tmp_path_factory.mktemp("real")
    done = subprocess.run(
        [sys.executable, commands_module.__file__, *MINI],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, done


@pytest.fixture(scope="module")
def run(real):
    """Its run's folder."""
    return real[0] / "outputs" / "digits"


@pytest.fixture(scope="module")
def report(run):
    return json.loads((run / "report.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def again(commands, tmp_path_factory):
    """The folder of a second run of the same recipe."""
    folder = tmp_path_factory.mktemp("again")
    done = commands.run(*MINI, "--output", "run", cwd=folder)
    assert done.status == 0, done
    return folder / "run"


# ---- what it leaves behind ----


def test_everything_promised_is_written_and_nothing_else(real, run):
    assert files_in(run) == LORAS | TEACHER | PICTURES | REPORTS | OF_THE_RUN
    assert all(f"outputs/digits/{name}" in files_in(real[0]) for name in files_in(run))
    assert len(files_in(real[0])) == len(files_in(run))


def test_the_report_holds_every_metric_by_method_and_steps(report):
    assert report["version"] == 1 and report["n_samples"] == 300
    assert report["spread"] == "one training seed, one sampling seed"
    for metric in METRICS:
        assert isinstance(report[metric]["floor"], float)
        assert set(report[metric]) == {"floor", "euler", "ddim", "dpmpp_2s", "lcm", "tcd"}
        for method in set(report[metric]) - {"floor"}:
            assert set(report[metric][method]) == {"2", "4"}
            assert all(set(cell) == {"mean", "std", "n"} for cell in report[metric][method].values())
            assert all(cell["n"] == 1 for cell in report[metric][method].values())
        assert is_finite(report[metric])
    assert set(report["gamma_sweep"]) == {"0.2", "1"}
    assert {method: set(row) for method, row in report["student_x_gamma"].items()} == {
        "lcm": {"1", "0.2"},
        "tcd": {"1", "0.2"},
    }
    assert report["forms"] is None
    assert {phase: len(curve["loss"]) for phase, curve in report["loss"].items()} == {"teacher": 8, "tcd": 4, "lcm": 4}
    assert set(report["seconds"]) == {"teacher", "tcd", "lcm", "measure", "total"}


def test_the_markdown_shows_the_figures_and_the_pictures(run, report):
    text = (run / "report.md").read_text(encoding="utf-8")
    assert all(words in text for words in ("DPM++(2S)", "LCM", "TCD", "floor", "Each was measured once"))
    shown = set(re.findall(r"!\[[^\]]*\]\(([^)]+)\)", text))
    assert shown <= PICTURES, "a picture that is not there"


@pytest.mark.parametrize("name", sorted(PICTURES))
def test_pictures_are_whole_and_large_enough_to_read(run, name):
    data = (run / name).read_bytes()
    width, height = struct.unpack(">II", data[16:24])
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and data[-8:-4] == b"IEND"
    assert width >= 600 and height >= 150


def test_the_resolved_recipe_lies_beside_the_results(run, report):
    recipe = load_recipe(run / "recipe.toml")
    assert recipe.model_dump(mode="json") == report["recipe"] and recipe_hash(recipe) == report["recipe_hash"]
    assert (recipe.name, recipe.teacher.steps, recipe.training.steps, recipe.student.alpha) == ("digits", 8, 4, 3.0)
    assert recipe.measure.steps == (2, 4) and recipe.objective == load_recipe("digits").objective


def test_the_loras_say_what_they_are(run):
    recipe = load_recipe(run / "recipe.toml")
    expected = {"tcd": (recipe, "0.2", "s in [0, t_n]"), "lcm": (lcm_baseline(recipe), "1.0", "s = 0")}
    for name, (own, gamma, span) in expected.items():
        told = metadata_of(run / f"{name}_digits.safetensors")
        assert told["tcd.recipe_hash"] == recipe_hash(own) and told["tcd.form"] == "tcf1"
        assert (told["tcd.gamma"], told["tcd.steps"], told["tcd.cfg"]) == (gamma, "4", "1.0")
        assert told["tcd.training_span"] == f"k={recipe.objective.skip}, N=1000, {span}"
        assert told["ss_network_dim"] == "2" and told["ss_network_alpha"] == "3.0"
        assert told["modelspec.title"] == f"{name}_digits"


def test_lora_and_baseline_differ(run):
    tensors = {path: w for path, w in tensors_in(run).items() if "lora_up" in path}
    names = {path.partition(": ")[2] for path in tensors}
    assert len(tensors) == 2 * len(names) > 20
    tcd, lcm = ({n: tensors[f"{name}_digits.safetensors: {n}"] for n in names} for name in ("tcd", "lcm"))
    assert set(differing(tcd, lcm)) == names


def test_progress_and_summary_tell_what_happened_and_where_the_files_are(real, run):
    out, err = real[1].stdout, real[1].stderr
    assert all(f"{phase}: 100%" in err and "loss=" in err and "step/s" in err for phase in ("teacher", "tcd", "lcm"))
    assert "Traceback" not in err and "Warning" not in err
    assert out.startswith("Writing to outputs/digits\n")
    table, _, files = out.partition("Files in outputs/digits:\n")
    assert all(method in table for method in ("Euler", "DDIM", "DPM++(2S)", "LCM, γ = 1", "TCD, γ = 0.2", "Time: "))
    listed = set(files.split())
    assert listed == LORAS | PICTURES | REPORTS - {"results.json"}


# ---- again ----


def test_a_second_run_takes_a_new_folder_and_leaves_the_first_as_it_was(commands, real, run):
    before = bytes_in(run)
    for number in (2, 3):
        done = commands.run(*MINI, cwd=real[0], faults=[at("training.loop._step", 3, "SIGKILL")])
        assert done.status == -9
        assert f"Writing to outputs/digits-{number}\n" in done.out
        assert (real[0] / "outputs" / f"digits-{number}" / "recipe.toml").is_file()
    assert bytes_in(run) == before


def test_the_same_recipe_gives_the_same_weights_to_the_bit(run, again):
    assert len(tensors_in(run)) > 100 and not differing(tensors_in(run), tensors_in(again))
    curves = [json.loads((folder / "losses.json").read_text()) for folder in (run, again)]
    assert curves[0] == curves[1]


def test_another_seed_gives_other_weights_and_figures(commands, again, tmp_path):
    done = commands.run(*MINI, "--seed", "1", "--output", tmp_path / "run", cwd=tmp_path)
    assert done.status == 0, done
    tensors, others = tensors_in(again), tensors_in(tmp_path / "run")
    weights = [name for name in tensors if name.endswith("weight")]
    assert set(differing(tensors, others)) >= set(weights)
    reports = [json.loads((folder / "report.json").read_text()) for folder in (again, tmp_path / "run")]
    assert reports[0]["fd"] != reports[1]["fd"] and reports[1]["seeds"]["training"] == [1]


# ---- training.evaluate alone ----


def evaluate(commands, *words, cwd, **options):
    return commands.run(*words, cwd=cwd, module="evaluate", **options)


def test_measured_alone_an_equal_run_has_the_figures_of_the_first_ones_report(commands, again, report):
    """Two runs and the two ways to measure at once: other processes, other files, the same figures."""
    before = bytes_in(again)
    done = evaluate(commands, "run", cwd=again.parent)
    assert done.status == 0, done
    new = bytes_in(again)
    assert {name: new[name] for name in before} == before
    assert set(new) - set(before) == {f"measured/{name}" for name in REPORTS | PICTURES | {"state.json"}}
    measured = json.loads((again / "measured" / "report.json").read_text())
    assert figures_in(measured) == figures_in(report) and measured["recipe_hash"] == report["recipe_hash"]
    assert "Files in run/measured:" in done.out


def test_other_steps_and_gammas_can_be_measured_and_nothing_is_overwritten(commands, again, tmp_path):
    words = "--steps 3 --gamma 0.5 --gammas 0.5 --sampling_seeds 2 --output other".split()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "report.json").write_text("somebody's")
    done = evaluate(commands, again, *words, cwd=tmp_path)
    assert done.status == 0 and "Files in other-2:" in done.out, done
    assert (tmp_path / "other" / "report.json").read_text() == "somebody's"
    measured = json.loads((tmp_path / "other-2" / "report.json").read_text())
    assert set(measured["fd"]["tcd"]) == {"3"} and measured["fd"]["tcd"]["3"]["n"] == 2
    assert set(measured["student_x_gamma"]["tcd"]) == {"0.5", "1"}
    changed = {"steps": [3], "gamma": 0.5, "gammas": [0.5], "sampling_seeds": 2}
    assert measured["recipe"] == replaced(load_recipe(again / "recipe.toml"), measure=changed).model_dump(mode="json")
    assert measured["spread"] == "2 sampling seeds, one training seed"


def test_what_is_no_finished_run_is_refused(commands, tmp_path):
    (tmp_path / "empty").mkdir()
    for name in ("empty", "gone"):
        done = evaluate(commands, name, cwd=tmp_path)
        assert done.status == 1 and f"error: {name} holds no run: there is no recipe.toml in it" in done.err, done
    stopped = commands.run(*MINI, "--output", "half", cwd=tmp_path, faults=[at("training.loop._step", 11, "SIGKILL")])
    assert stopped.status == -9
    before = bytes_in(tmp_path)
    done = evaluate(commands, "half", cwd=tmp_path)
    assert done.status == 1 and "error: half is not finished, tcd, lcm is missing: go on with --resume" in done.err, (
        done
    )
    done = evaluate(commands, "half", "--steps", "0", cwd=tmp_path)
    assert done.status == 1 and "error: measure.steps" in done.err and "Traceback" not in done.err, done
    assert bytes_in(tmp_path) == before


def test_a_run_that_lost_a_file_is_refused_by_its_name(commands, run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "lcm_digits.safetensors").unlink()
    done = evaluate(commands, "run", cwd=tmp_path)
    assert done.status == 1 and "error: run/lcm_digits.safetensors is gone: put it back" in done.err, done
