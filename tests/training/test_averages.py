"""Moving averages of weights."""

import copy

import pytest
import torch
from training_support.tiny import TinyFamily, tiny_recipe

from training.objective import TrajectoryDistillation
from training.student import Ema


def test_an_average_is_the_hand_computed_one():
    values = [torch.tensor([float(v)]) for v in (1, 5, 2, 7)]
    ema = Ema({"w": values[0]}, 0.75)
    for value in values[1:]:
        ema.update({"w": value})
    expected = 0.75**3 * 1 + 0.75**2 * 0.25 * 5 + 0.75 * 0.25 * 2 + 0.25 * 7
    assert ema.weights["w"].item() == pytest.approx(expected)


def test_an_average_that_warms_up_forgets_its_start():
    ema = Ema({"w": torch.tensor([100.0])}, 0.999, warm_up=True)
    expected = 100.0
    for n in range(30):
        ema.update({"w": torch.tensor([1.0])})
        decay = min(0.999, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * 1.0
    assert ema.weights["w"].item() == pytest.approx(expected) and expected < 1.01


def test_a_decay_of_zero_follows_at_once_and_never_shares_memory():
    weight = torch.nn.Parameter(torch.ones(2, dtype=torch.bfloat16))
    ema = Ema({"w": weight}, 0.0)
    with torch.no_grad():
        weight.fill_(3.0)
    assert ema.weights["w"].tolist() == [1, 1]
    ema.update({"w": weight})
    average = ema.weights["w"]
    assert average.tolist() == [3, 3] and average.dtype == torch.float32 and not average.requires_grad


def test_an_average_goes_on_from_its_saved_state():
    first, second = Ema({"w": torch.zeros(1)}, 0.9, warm_up=True), Ema({"w": torch.ones(1)}, 0.9, warm_up=True)
    for value in (3.0, 4.0):
        first.update({"w": torch.tensor([value])})
    second.load_state_dict(copy.deepcopy(first.state_dict()))
    for ema in (first, second):
        ema.update({"w": torch.tensor([9.0])})
    assert torch.equal(first.weights["w"], second.weights["w"]) and first.updates == second.updates == 3


def test_averages_move_with_the_task():
    task = TrajectoryDistillation(TinyFamily(), tiny_recipe(objective={"target": "ema"}))
    task.to("meta")
    averages = [*task.saved.weights.values(), *task.target_ema.weights.values()]
    assert {average.device.type for average in averages} == {"meta"}
