"""The digits family: latents that lose nothing, the training target, a teacher that is read back whole or refused."""

import pytest
import torch

from tcd_core import VPSchedule, from_x0, to_x0
from tcd_core.predictions import from_pair
from training import families
from training.disk import OutputError
from training.families import digits_features
from training.families.digits import encode
from training.families.digits_data import load_split
from training.families.digits_judge import DigitsJudge
from training.recipe import load_recipe


@pytest.fixture
def family():
    return families.build(load_recipe("digits"))


def test_latents_lose_nothing(family):
    pictures = family.split.train[:50]
    assert encode(pictures).shape == (50, *family.latent_shape)
    assert torch.equal(family.decode(encode(pictures)), pictures)


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
def test_a_training_target_is_the_output_that_gives_the_data_back(prediction):
    t = VPSchedule.scaled_linear().level(400)
    x0, eps = torch.randn(2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0)).double()
    x = t.alpha * x0 + t.sigma * eps
    output = from_pair(x0, eps, t, prediction)
    torch.testing.assert_close(to_x0(output, x, t, prediction), x0)
    torch.testing.assert_close(output, from_x0(x0, x, t, prediction))


def test_a_teacher_is_read_back_to_the_bit_and_frozen(family, tmp_path):
    before = {name: p.clone() for name, p in family.network.named_parameters()}
    tokens = family.tokens.weight.clone()
    family.save(tmp_path / "teacher")
    family.load(tmp_path / "teacher")
    after = dict(family.network.named_parameters())
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert torch.equal(family.tokens.weight, tokens)
    assert not any(p.requires_grad for p in (*after.values(), family.tokens.weight))


@pytest.mark.parametrize("name", ["label_tokens.safetensors", "diffusion_pytorch_model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", ["cut", "gone"])
def test_a_damaged_teacher_is_refused_by_its_folder_and_nothing_is_fetched(family, tmp_path, monkeypatch, name, damage):
    family.save(tmp_path / "run" / "teacher")
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "run" / "teacher" / name
    path.write_bytes(path.read_bytes()[:20]) if damage == "cut" else path.unlink()
    monkeypatch.setattr("socket.socket.connect", lambda *_: pytest.fail("tried to reach the network"))
    with pytest.raises(OutputError, match="run/teacher is damaged or incomplete"):
        family.load((tmp_path / "run" / "teacher").relative_to(tmp_path))


def test_the_floor_s_range_is_of_other_halves_of_the_same_pictures(monkeypatch):
    monkeypatch.setattr(digits_features, "SEEDS", (0,))
    monkeypatch.setattr(digits_features, "_STEPS", 20)
    split = load_split("validation")
    judge, again = DigitsJudge(split), DigitsJudge(split)
    low, high = judge.floor_ranges["fd"]
    assert (low, high) == again.floor_ranges["fd"] and judge.floors == again.floors
    assert 0 < low < high < 5 * low
    # the training part against the compared part is one such draw, but for what the classifier has seen
    assert low / 3 < judge.floors["fd"] < 3 * high


def test_the_judge_knows_digits_and_finds_spoilt_ones_farther_away():
    split = load_split("validation")
    judge, noise = DigitsJudge(split), torch.Generator().manual_seed(0)
    assert judge.floors["accuracy"] > 0.97
    z = torch.randn(split.reference.shape, generator=noise)
    distances = [judge(split.reference + amount * z)["fd"] for amount in (0.0, 0.2, 0.5)]
    assert distances[0] < 1e-6 and distances[1] > judge.floors["fd"] and distances[2] > 2 * distances[1]
