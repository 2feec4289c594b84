"""Recipe shapes through the whole command, and what its text encoder learns before the teacher does."""

import json

import pytest
import torch
from training_support.commands import MINI, without
from training_support.runs import is_finite, metadata_of

from training import families
from training.comparisons import COMPARISONS
from training.families import shapes_text
from training.families.shapes_scenes import ABSENT, draw_scenes, read
from training.families.shapes_text import LENGTH, MEANT, TextEncoder, learn_to_read, meanings, tokens
from training.recipe import load_recipe

LESS = ("--recipe", "shapes", *MINI, "--measure.steps", "2", "--training.steps", "2", "--teacher.prediction", "sample")


def test_a_run_with_comparisons_ends_in_a_report_of_them_all(commands, tmp_path):
    words = [*LESS, "--comparisons", "guidance", "end_times", "--output", "run"]
    done = commands.run(*words, cwd=tmp_path, faults=[without("training.evaluate.draw", gives=[])])
    assert done.status == 0 and "Traceback" not in done.err, done
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert list(report["metrics"]) == ["fd", "attributes", "complexity"]
    for metric in report["metrics"]:
        assert set(report[metric]) == {"floor", "euler", "ddim", "dpmpp_2s", "lcm", "tcd"} and is_finite(report[metric])
    assert set(report["groups"]) == {"guidance", "end_times"}
    for name, told in report["groups"].items():
        assert set(told["rows"]) == set(COMPARISONS[name].students) and is_finite(told["rows"])
    own = report["fd"]["tcd"]["2"]
    assert report["groups"]["guidance"]["rows"]["w_fixed"]["2"]["fd"] == own
    assert report["groups"]["end_times"]["rows"]["ends_50"]["2"]["fd"] == own
    lcm = report["student_x_gamma"]["lcm"]["0.2"]["2"]["mean"]
    rows = (report["groups"]["guidance"]["rows"]["lcm_w_fixed"], report["groups"]["end_times"]["rows"]["ends_100"])
    assert all(row["2"]["fd"]["mean"] == pytest.approx(lcm) for row in rows), "one file serves all three"
    files = {path.name for path in (tmp_path / "run").glob("*.safetensors")}
    assert {"tcd_shapes.safetensors", "lcm_shapes.safetensors", "w_drawn_shapes.safetensors"} <= files
    assert not {"w_fixed_shapes.safetensors", "lcm_w_fixed_shapes.safetensors", "ends_100_shapes.safetensors"} & files
    assert metadata_of(tmp_path / "run" / "tcd_shapes.safetensors")["modelspec.architecture"] == "shapes/lora"
    text = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert all(COMPARISONS[name].title in text for name in report["groups"])


def test_words_mean_the_object_that_they_tell_of():
    (meant,) = meanings([read("a small red circle left of a blue striped square on white")])
    assert meant.shape == (LENGTH, len(MEANT))
    assert (meant[:4] == torch.tensor([0, 1, 0, 0, 0, 0])).all()  # left column, middle row, circle, red, small, plain
    assert (meant[4:6] == ABSENT).all()  # "left of"
    assert (meant[6:10] == torch.tensor([2, 1, 1, 4, 1, 1])).all()  # "a blue striped square": medium
    assert (meant[10:] == ABSENT).all()
    (alone,) = meanings([read("a blue square at the top left on white")])
    assert (alone[:3, :2] == 0).all() and (alone[3:] == ABSENT).all()


def test_an_encoder_learns_to_read(monkeypatch):
    monkeypatch.setattr(shapes_text, "_SCENES", 500)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        encoder = TextEncoder(64)
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    found = []
    for steps in (1, 60):
        encoder.load_state_dict(before)
        monkeypatch.setattr(shapes_text, "_STEPS", steps)
        found.append(learn_to_read(encoder, seed=0))
    assert found[1] < 0.75 * found[0], found
    again = TextEncoder(64)
    again.load_state_dict(before)
    assert learn_to_read(again, seed=0) == found[1]  # nothing but the seed
    assert all(torch.equal(a, b) for a, b in zip(encoder.parameters(), again.parameters(), strict=True))


def test_a_caption_changes_what_the_network_is_told_and_latents_lose_nothing():
    family = families.build(load_recipe("shapes"))
    scenes = draw_scenes("validation", 2, seed=0)
    states = family.condition(tokens([scene.caption() for scene in scenes]))["encoder_hidden_states"]
    assert states.shape == (2, LENGTH, 64) and not torch.allclose(states[0], states[1])
    pictures = torch.randint(256, (2, 3, 32, 32), dtype=torch.uint8)
    latents = family.encode(pictures)
    assert latents.shape == (2, *family.latent_shape)
    assert torch.equal(family.decode(latents).add(1).mul(127.5).round().byte(), pictures)
