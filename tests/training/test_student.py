"""One network in memory: what is trained, what stays the teacher, what the target is."""

import copy

import pytest
import torch
from training_support.tiny import ALPHA, LORA_TARGETS, RANK, TinyFamily, randomise, tiny_recipe, tuned_copy

from training.objective import TrajectoryDistillation
from training.student import Student

KINDS = [("lora", False), ("lora", True), ("full", False), ("full", True)]
NAMES = ["lora", "lora S+", "full", "full S+"]


def task_of(kind="lora", s_plus=False, target="stop_gradient", seed=0):
    """(the task, its network as it was before)."""
    family = TinyFamily()
    base = copy.deepcopy(family.network)
    form = "tcf_s_plus" if s_plus else "tcf1"
    recipe = tiny_recipe(
        student={"kind": kind}, objective={"form": form, "target": target, "target_ema": 0.9}, seed=seed
    )
    return TrajectoryDistillation(family, recipe), base


def optimise(task, steps=3, lr=1e-2):
    """A few plain optimiser steps, as the loop takes them."""
    optimizer = torch.optim.AdamW(task.trainable().values(), lr=lr, weight_decay=0.01)
    for step in range(steps):
        task(task.draw(step)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        task.after_step()


def inputs(count=4, seed=5):
    family, generator = TinyFamily(), torch.Generator().manual_seed(seed)
    x = torch.randn(count, 1, 4, 4, generator=generator)
    return x, torch.tensor([999.0, 499.0, 49.0, 20.0][:count]), family.condition(torch.arange(count) % 3)


def plain(network, x, times, condition):
    with torch.no_grad():
        return network(x, times, **condition).sample


# ---- what is trained ----


@pytest.mark.parametrize(("kind", "s_plus"), KINDS, ids=NAMES)
def test_gradients_reach_exactly_what_is_trained(kind, s_plus):
    task, base = task_of(kind, s_plus)
    randomise(task.trainable())
    task(task.draw(0)).mean().backward()
    reached = {n for n, p in task.named_parameters() if p.grad is not None and p.grad.abs().max() > 0}
    assert reached == {f"student.{name}" for name in task.trainable()}
    embedding = {f"target_embedding.linear_{i}.{part}" for i in (1, 2) for part in ("weight", "bias")}
    network = {name.removeprefix("network.") for name in task.trainable()} - embedding
    assert (embedding <= set(task.trainable())) == s_plus
    if kind == "full":
        assert network == {name for name, _ in base.named_parameters()}
    else:
        modules = [n for n, _ in base.named_modules() if any(n == t or n.endswith(f".{t}") for t in LORA_TARGETS)]
        assert len(modules) > 10
        assert network == {f"{name}.lora_{part}.default.weight" for name in modules for part in "AB"}


def test_the_first_step_moves_the_up_matrices_alone_then_both_move():
    task, _ = task_of()
    before = {name: p.detach().clone() for name, p in task.trainable().items()}
    task(task.draw(0)).mean().backward()
    assert {name for name, p in task.trainable().items() if p.grad.any()} == {n for n in before if ".lora_B." in n}
    optimise(task, 2)
    assert not [name for name, p in task.trainable().items() if torch.equal(p, before[name])]


@pytest.mark.parametrize("s_plus", [False, True], ids=["lora", "lora S+"])
def test_the_bases_weights_never_change_by_a_bit(s_plus):
    task, base = task_of("lora", s_plus)
    optimise(task)
    now = {n.replace(".base_layer", ""): p for n, p in task.student.network.named_parameters() if ".lora_" not in n}
    for name, weight in base.named_parameters():
        assert torch.equal(weight, now[name]) and not now[name].requires_grad


# ---- the teacher ----


@pytest.mark.parametrize(("kind", "s_plus"), KINDS, ids=NAMES)
def test_the_teacher_is_the_given_network_to_the_bit_before_and_after_training(kind, s_plus):
    task, base = task_of(kind, s_plus)
    x, times, condition = inputs()
    expected = plain(base, x, times, condition)
    assert torch.equal(task.student.teacher(x, times, condition), expected)
    optimise(task)
    assert torch.equal(task.student.teacher(x, times, condition), expected)
    student = task.student(x, times, torch.zeros(4), condition)
    assert (student - expected).abs().max() > 1e-3  # it has learnt, and calling the teacher left its adapters on


@pytest.mark.parametrize(("kind", "s_plus"), KINDS, ids=NAMES)
def test_the_student_starts_from_the_teacher(kind, s_plus):
    task, base = task_of(kind, s_plus)
    x, times, condition = inputs()
    expected = plain(base, x, times, condition)
    for s in (0.0, 17.0, 999.0):
        torch.testing.assert_close(
            task.student(x, times, torch.full((4,), s), condition), expected, rtol=0, atol=0 if not s_plus else 1e-7
        )


def test_the_adapters_are_back_on_after_an_error_in_the_teacher():
    task, _ = task_of()
    randomise(task.trainable())
    x, times, condition = inputs()
    before = task.student(x, times, times, condition)
    with pytest.raises(RuntimeError):
        task.student.teacher(x[:, :, :, :0], times, condition)
    assert torch.equal(task.student(x, times, times, condition), before)


def test_full_fine_tunings_teacher_is_a_copy_that_moves_with_the_module_and_takes_no_gradient():
    task, _ = task_of("full")
    assert not [name for name, _ in task.named_parameters() if "teacher" in name]
    x, times, condition = inputs()
    task.double()
    output = task.student.teacher(x.double(), times, {name: c.double() for name, c in condition.items()})
    assert output.dtype == torch.float64 and not output.requires_grad


def test_a_lora_is_scaled_by_alpha_over_rank():
    task, base = task_of()
    assert ALPHA != RANK
    randomise(task.trainable(), 0.2)
    x, times, condition = inputs()
    expected = plain(tuned_copy(base, task.trainable()), x, times, condition)
    assert (expected - plain(base, x, times, condition)).abs().max() > 0.05
    torch.testing.assert_close(task.student(x, times, times, condition), expected, rtol=1e-4, atol=1e-5)


def test_a_plain_module_can_be_fine_tuned_whole():
    network = torch.nn.Linear(3, 3)
    before = network(torch.ones(1, 3)).detach()
    student = Student(network, lambda net, x, times, condition: net(x), kind="full")
    randomise(student.trainable(), 1.0)
    assert set(student.trainable()) == {"network.weight", "network.bias"}
    assert torch.equal(student.teacher(torch.ones(1, 3), torch.zeros(1), {}), before)
    assert not torch.allclose(student(torch.ones(1, 3), torch.zeros(1), torch.zeros(1), {}), before)


# ---- TCF(S+) ----


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_tcf_s_plus_depends_on_s_after_training_and_no_other_form_does(kind):
    x, times, condition = inputs()
    for s_plus in (True, False):
        task, _ = task_of(kind, s_plus)
        optimise(task)
        near, far = (task.student(x, times, torch.full((4,), s), condition) for s in (0.0, 400.0))
        assert torch.equal(near, far) != s_plus


def test_each_sample_of_a_batch_has_its_own_s():
    task, _ = task_of("lora", True)
    randomise(task.trainable(), 0.2)
    x, times, condition = inputs()
    s = torch.tensor([700.0, 300.0, 0.0, 10.0])
    together = task.student(x, times, s, condition)
    for i in range(4):
        part = {name: c[i : i + 1] for name, c in condition.items()}
        alone = task.student(x[i : i + 1], times[i : i + 1], s[i : i + 1], part)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


def test_the_embedding_of_s_is_added_after_the_time_mlp():
    task, base = task_of("lora", True)
    x, times, condition = inputs()
    randomise({n: p for n, p in task.trainable().items() if n.startswith("target_embedding.")}, 0.2)
    s = torch.tensor([700.0, 300.0, 0.0, 10.0])
    added = task.student.target_embedding(s)
    base.time_embedding.register_forward_hook(lambda module, arguments, emb: emb + added)
    expected = plain(base, x, times, condition)
    assert torch.equal(task.student(x, times, s, condition), expected)


# ---- the target ----


def test_the_stop_gradient_target_is_the_student():
    task, _ = task_of("lora", True)
    randomise(task.trainable(), 0.2)
    x, times, condition = inputs()
    target = task.student.target(None, x, times, times / 2, condition)
    assert not target.requires_grad
    assert torch.equal(target, task.student(x, times, times / 2, condition))
    assert task_of(target="stop_gradient")[0].target_ema is None


@pytest.mark.parametrize(("kind", "s_plus"), KINDS, ids=NAMES)
def test_the_ema_target_is_the_average_of_the_students_so_far(kind, s_plus):
    task, base = task_of(kind, s_plus, target="ema")
    average = {name: p.detach().clone() for name, p in task.trainable().items()}
    optimizer = torch.optim.SGD(task.trainable().values(), lr=1.0)
    for step in range(4):
        task(task.draw(step)).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
        task.after_step()
        average = {name: 0.9 * average[name] + 0.1 * p.detach() for name, p in task.trainable().items()}
    assert set(task.target_ema.weights) == set(average)
    for name, weight in task.target_ema.weights.items():
        torch.testing.assert_close(weight, average[name])
    x, times, condition = inputs()
    randomise(task.target_ema.weights, 0.2)
    target = task.student.target(task.target_ema.weights, x, times, times / 2, condition)
    assert not target.requires_grad
    if not s_plus:
        expected = plain(tuned_copy(base, task.target_ema.weights), x, times, condition)
        torch.testing.assert_close(target, expected, rtol=1e-4, atol=1e-5)
    assert (target - task.student(x, times, times / 2, condition)).abs().max() > 0.01


@pytest.mark.parametrize("target", ["ema", "stop_gradient"])
def test_the_target_is_no_part_of_the_gradient(target):
    """The loss's gradient is that of a loss whose target is a constant, seen by moving one weight a little."""
    task, _ = task_of(target=target)
    randomise(task.trainable(), 0.2)
    batch = task.draw(0)
    task.family.calls = []
    task(batch).mean().backward()
    frozen = task.family.calls[1][2]  # the target's raw output; the calls are teacher, target, student

    def loss_with_constant_target():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(task.student, "target", lambda *arguments: frozen)
            return task(batch).mean().item()

    name, weight = next((n, p) for n, p in task.trainable().items() if "to_v.lora_B" in n)
    place = divmod(weight.grad.abs().argmax().item(), weight.shape[1])
    values = []
    for move in (5e-3, -1e-2):
        with torch.no_grad():
            weight[place] += move
        values.append(loss_with_constant_target())
    slope = (values[0] - values[1]) / 1e-2
    assert weight.grad[place].item() == pytest.approx(slope, rel=0.02)


def test_a_moved_student_moves_the_stop_gradient_target_and_not_the_ema_target():
    x, times, condition = inputs()
    for kind in ("stop_gradient", "ema"):
        task, _ = task_of(target=kind)
        weights = task.target_ema.weights if task.target_ema else None
        before = task.student.target(weights, x, times, times, condition)
        randomise(task.trainable(), 0.2)
        after = task.student.target(weights, x, times, times, condition)
        assert torch.equal(before, after) == (kind == "ema")
