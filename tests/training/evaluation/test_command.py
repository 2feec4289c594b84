"""``python -m training.evaluate --model …`` as a whole: killed and gone on with, several processes, its refusals."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training_support.commands import at, wait_for
from training_support.evaluations import PROMPTS, SIDE, words, write_inception
from training_support.processes import launch

from training.evaluate import main
from training.report_file import read_report

COUNT, SETS = len(PROMPTS), 6


@pytest.fixture(scope="session")
def weights(tmp_path_factory) -> Path:
    """A folder with a stand-in for Inception's weights."""
    return write_inception(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="session")
def real(tmp_path_factory) -> Path:
    """A folder of real pictures, of several sizes and one to each prompt."""
    folder = tmp_path_factory.mktemp("real")
    for i in range(COUNT):
        pixels = np.random.default_rng(i).integers(0, 256, (80 + i, 100, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="session")
def asked(checkpoint, lora, prompts, weights, real):
    """``asked(folder, …)``: the words of one evaluation: 6 sets of pictures, FID, KID and complexity."""

    def made(folder, *more):
        metrics = ["--metrics", "fid", "kid", "complexity", "--weights", weights, "--reference", real]
        sets = ["--lora", f"mine={lora('sd15')}", "--baselines", "ddim", "--steps", 1, 2, "--gammas", 1]
        return words(checkpoint("sd15"), prompts, folder, *sets, *metrics, *more)

    return made


@pytest.fixture(scope="session")
def whole(commands, asked, tmp_path_factory) -> Path:
    """The folder of an evaluation that nothing interrupted."""
    folder = tmp_path_factory.mktemp("whole")
    done = commands.run(*asked("out"), cwd=folder, module="evaluate")
    assert done.status == 0 and "Traceback" not in done.err, done
    return folder / "out"


def figures(folder: Path) -> dict:
    """All that was measured but what depends on the clock and the machine's state."""
    found = json.loads((folder / "measured.json").read_text())
    for of in found["figures"]:
        assert of["cost"].pop("seconds") > 0 and of["cost"].pop("peak_bytes", 1)
    return {name: value for name, value in found.items() if name not in ("seconds", "versions")}


def pictures(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in (folder / "pictures").rglob("*.png")}


def test_an_evaluation_has_every_picture_and_every_figure(whole):
    assert len(pictures(whole)) == COUNT * SETS
    found = figures(whole)
    cells = {(of["cell"]["method"]["name"], of["cell"]["gamma"], of["cell"]["steps"]) for of in found["figures"]}
    assert cells == {(n, g, s) for n, g in (("ddim", None), ("mine", 0.2), ("mine", 1.0)) for s in (1, 2)}
    for of in found["figures"]:
        assert set(of["values"]) == {"fid", "kid", "complexity"} and set(of["intervals"]) == {"fid", "complexity"}
        for name, (low, high) in of["intervals"].items():
            assert low < of["values"][name] < high
        assert of["cost"]["evaluations"] == of["cell"]["steps"] * (2 if of["cell"]["method"]["name"] == "ddim" else 1)
    assert found["reference"]["pictures"] == COUNT and 0.1 < found["floors"]["complexity"] < 1
    assert any("FID is of 5 pictures only" in note for note in found["notes"])
    assert found["sources"]["fid"].startswith("TorchScript, inception-2015-12-05.pt (sha256 ")
    report = json.loads((whole / "report.json").read_text())
    by_method = {(of["cell"]["method"]["name"], of["cell"]["gamma"]): of for of in found["figures"]}
    assert report["fid"]["mine"]["2"]["mean"] == by_method["mine", 0.2]["values"]["fid"]
    assert "FID is of 5 pictures only" in (whole / "report.html").read_text()
    files = {path.suffix for path in whole.rglob("*") if path.is_file()}
    assert files == {".png", ".npy", ".json", ".jsonl", ".md", ".html"}  # nothing half-written, no lock


def test_the_report_has_tables_intervals_differences_and_costs(whole):
    report, found = read_report(whole), figures(whole)
    assert report["main"] == "fid" and set(report["metrics"]) == {"fid", "kid", "complexity"}
    for of in found["figures"]:
        name, gamma = of["cell"]["method"]["name"], of["cell"]["gamma"]
        row = report["gamma_sweep"][f"{gamma:g}"] if gamma is not None else None
        steps = str(of["cell"]["steps"])
        cell = row[steps]["fid"] if row else report["fid"][name][steps]
        assert (cell["mean"], cell["interval"]) == (of["values"]["fid"], of["intervals"]["fid"])
    ((first, second),) = [[d for d in report["differences"] if d["metric"] == "complexity"]]
    assert (first["method"], first["other"], first["steps"], second["steps"]) == ("mine", "ddim", 1, 2)
    means = (report["complexity"][name]["1"]["mean"] for name in ("mine", "ddim"))
    assert first["mean"] == pytest.approx(next(means) - next(means))
    assert report["costs"]["ddim"]["2"]["evaluations"] == 4 and report["costs"]["mine"]["2"]["pictures"] == COUNT
    html = (whole / "report.html").read_text(encoding="utf-8")
    assert all(f"<li>{prompt}</li>" in html for prompt in PROMPTS)
    assert html.count("<img") == 3 and "What generating took" in html


def test_an_evaluation_is_compared_with_itself(whole, capsys):
    assert main(["--compare", str(whole), str(whole)]) == 0
    text = capsys.readouterr().out
    assert "mine, γ = 0.2: B − A" in text and "better" not in text.partition("## ")[2].replace("is better", "")


def test_the_distances_are_those_of_the_pictures(whole, real):
    """Worked out anew, from the files, without the command's own code."""
    import torch
    from training_support.evaluations import TinyInception

    from training.metrics import frechet_distance

    def features(files):
        cropped = []
        for path in files:
            image = Image.open(path)
            if image.size != (SIDE, SIDE):
                scale = max(SIDE / side for side in image.size)
                image = image.resize([max(SIDE, round(scale * side)) for side in image.size], Image.Resampling.LANCZOS)
                left, top = round((image.width - SIDE) / 2), round((image.height - SIDE) / 2)
                image = image.crop((left, top, left + SIDE, top + SIDE))
            cropped.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
        with torch.no_grad():
            return TinyInception()(torch.stack(cropped))

    for of in figures(whole)["figures"][:2]:
        cell = of["cell"]
        name = f"{cell['method']['name']}_steps{cell['steps']}_seed0"
        made = features([whole / "pictures" / name / f"{i:05d}.png" for i in range(COUNT)])
        expected = frechet_distance(made, features([real / f"{i}.png" for i in range(COUNT)]))
        assert of["values"]["fid"] == pytest.approx(expected, rel=1e-4)


def test_done_again_it_makes_no_picture_and_reports_the_same(commands, asked, whole):
    before = {path: path.stat().st_mtime_ns for path in (whole / "pictures").rglob("*.png")}
    expected = figures(whole)
    done = commands.run(*asked(whole), cwd=whole.parent, module="evaluate")
    assert done.status == 0 and "30 pictures of 6 sets" in done.out and "30 of them there already" in done.out, done
    assert {path: path.stat().st_mtime_ns for path in before} == before and figures(whole) == expected


DEATHS = [  # one process after the other: at which call of which function it dies
    ("training.evaluation.pictures.write", 1),
    ("training.evaluation.pictures.write", 4),  # the second picture of a batch
    ("training.evaluation.costs.append", 3),
    ("training.evaluation.pictures.write", 7),
    ("training.evaluation.rows.write", 2),
    ("training.evaluation.distances.kid", 2),
    ("training.evaluation.measured.write_atomically", 1),
]


def test_killed_at_any_moment_and_gone_on_with_it_reports_the_same(commands, asked, whole, tmp_path):
    for function, call in DEATHS:
        at_call = at(_where(function), call, "SIGKILL")
        killed = commands.run(*asked("out"), cwd=tmp_path, module="evaluate", faults=[at_call])
        assert killed.status == -signal.SIGKILL, (function, killed)
    done = commands.run(*asked("out"), cwd=tmp_path, module="evaluate")
    assert done.status == 0, done
    assert pictures(tmp_path / "out") == pictures(whole) and figures(tmp_path / "out") == figures(whole)


def _where(function: str) -> str:
    """The name by which it is called."""
    return {
        "training.evaluation.costs.append": "training.evaluation.generation.append",
        "training.evaluation.distances.kid": "training.evaluation.measured.kid",
    }.get(function, function)


def test_two_processes_make_and_measure_what_one_does(commands, asked, whole, tmp_path):
    ended = launch(commands, 2, *asked("out"), cwd=tmp_path, module="evaluate")
    assert [of.status for of in ended] == [0, 0], ended
    assert pictures(tmp_path / "out") == pictures(whole) and figures(tmp_path / "out") == figures(whole)
    costs = {path.name.rsplit(".", 2)[1] for path in (tmp_path / "out" / "costs").iterdir()}
    assert costs == {"0", "1"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on_and_keeps_what_is_there(commands, asked, tmp_path, number):
    running = commands.start(*asked("out"), cwd=tmp_path, module="evaluate")
    wait_for(lambda: len(list(tmp_path.glob("out/pictures/*/*.png"))) > 2)
    os.kill(running.pid, number)
    done = running.wait()
    assert done.status == 130 and "Interrupted: what is done stays in out, the same command goes on" in done.err, done
    assert "Traceback" not in done.err and not list(tmp_path.glob("out/*.lock"))
    for path in tmp_path.glob("out/pictures/*/*.png"):
        Image.open(path).load()


# -- refusals ----------------------------------------------------------------------------------------------------------


def refused(commands, cwd, *given) -> str:
    """The one line of an error; nothing was made."""
    before = sorted(cwd.rglob("*"))
    done = commands.run(*given, cwd=cwd, module="evaluate")
    assert done.status in (1, 2) and "Traceback" not in done.err and sorted(cwd.rglob("*")) == before, done
    (line,) = [line for line in done.err.splitlines() if line.startswith("error: ")]
    return line


def test_a_folder_of_other_settings_is_refused_with_what_differs(commands, asked, whole, lora, prompts, checkpoint):
    at_home = whole.parent
    line = refused(commands, at_home, *asked("out", "--w", 3))
    assert "out holds pictures made with other settings: w (6.5 there, 3.0 here)" in line
    line = refused(commands, at_home, *asked("out", "--count", 3, "--batch", 3))
    assert "count (5 there, 3 here)" in line and "batch (2 there, 3 here)" in line and "prompts (" in line
    line = refused(commands, at_home, *asked("out", "--lora", f"mine={lora('sd15', 'peft')}"))
    assert "other settings: LoRA mine" in line
    (at_home / "mine").mkdir(exist_ok=True)
    (at_home / "mine" / "diary.txt").write_text("mine")
    assert "holds something else than an evaluation" in refused(commands, at_home, *asked("mine"))


def test_another_lora_and_other_steps_join_the_pictures_that_are_there(commands, asked, lora, tmp_path):
    first = ["--steps", 1, "--gammas", 0.2, "--metrics", "complexity"]
    assert commands.run(*asked("out", *first), cwd=tmp_path, module="evaluate").status == 0
    before = pictures(tmp_path / "out")
    more = ["--steps", 1, 2, "--gammas", 0.2, "--metrics", "complexity"]
    more += ["--lora", f"other={lora('sd15', 'peft')}"]
    done = commands.run(*asked("out", *more), cwd=tmp_path, module="evaluate")
    assert done.status == 0 and before.items() < pictures(tmp_path / "out").items(), done
    again = refused(commands, tmp_path, *asked("out", *first, "--lora", f"mine={lora('sd15', 'peft')}"))
    assert "LoRA mine" in again


def test_what_cannot_be_used_is_said_before_anything_is_made(
    commands, asked, checkpoint, lora, prompts, real, tmp_path
):
    model = checkpoint("sd15")
    (tmp_path / "bad.txt").write_bytes("a cat\nein Häuschen\n".encode("latin-1"))
    (tmp_path / "utf16.txt").write_text("a cat\n", encoding="utf-16")
    (tmp_path / "none.txt").write_text("# nothing\n\n")
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "0.png").write_bytes((real / "0.png").read_bytes())
    for given, expected in [
        (
            words(model, tmp_path / "bad.txt", "out"),
            "bad.txt, line 2: the prompt is not UTF-8 (byte 0xe4 at position 5)",
        ),
        (words(model, tmp_path / "utf16.txt", "out"), "utf16.txt is UTF-16, not UTF-8: save it as UTF-8"),
        (words(model, tmp_path / "none.txt", "out"), "none.txt holds no prompt"),
        (words(model, tmp_path / "gone.txt", "out"), "gone.txt cannot be read: No such file or directory"),
        (words(tmp_path / "gone.safetensors", prompts, "out"), "there is no model"),
        (asked("out", "--reference", tmp_path / "gone"), "gone does not exist"),
        (asked("out", "--reference", tmp_path / "few"), "few holds 1 picture, for 5 generated ones"),
        (asked("out", "--reference", prompts), "is neither a folder of pictures nor a .npz"),
        (asked("out", "--lora", lora("sdxl")), "of its 788 modules 162 are in the UNet by name"),
        (asked("out", "--lora", model), "sd15.safetensors is no LoRA of a UNet"),
        (asked("out", "--lora", "ddim=x.safetensors"), "the name 'ddim' is a baseline's"),
        (asked("out", "--lora", tmp_path / "gone.safetensors"), "gone.safetensors cannot be read"),
        (asked("out", "--gamma", 1.3), "--gamma must lie in [0, 1], got 1.3"),
        (asked("out", "--steps", 2, 2), "--steps must be from 1 on, none of them twice, got 2 2"),
        (asked("out", "--resolution", 100), "--resolution must be a multiple of 8 from 64 on, got 100"),
        (asked("out", "--steps", 51, "--baselines", "tcd"), "takes 50 steps at most, got 51"),
        (asked("out", "--coco", tmp_path), "give --prompts FILE, a prompt per line, or --coco FOLDER, and not both"),
        (["somewhere", "--model", model], "--model has no meaning for a run that training.distill made"),
        (["--sampling-seeds", 2, "--model", model], "--sampling-seeds has no meaning for models"),
        (["somewhere", "--count", 3], "--count has no meaning for a run that training.distill made"),
        ([], "give RUN_DIR, a run that training.distill made, or --model CHECKPOINT"),
    ]:
        assert expected in (line := refused(commands, tmp_path, *given)), line


def test_a_damaged_picture_is_named_and_made_again_once_it_is_deleted(commands, asked, whole, tmp_path):
    given = asked("out", "--baselines", "ddim", "--lora", "--steps", 1, "--metrics", "complexity", "--gammas", 0.2)
    assert commands.run(*given, cwd=tmp_path, module="evaluate").status == 0
    path = tmp_path / "out" / "pictures" / "ddim_steps1_seed0" / "00002.png"
    expected = path.read_bytes()
    path.write_bytes(expected[:200])
    for score in (tmp_path / "out" / "scores").rglob("*.npy"):
        score.unlink()
    done = commands.run(*given, cwd=tmp_path, module="evaluate")
    assert done.status == 1 and "ddim_steps1_seed0/00002.png is damaged or cut short" in done.err, done
    path.unlink()
    assert commands.run(*given, cwd=tmp_path, module="evaluate").status == 0 and path.read_bytes() == expected
