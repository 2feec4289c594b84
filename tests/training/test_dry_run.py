import re
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from training_support.pretrained import RANK, SIDE, model_words, small_recipe, write_pictures, write_small_checkpoint
from training_support.runs import bytes_in
from training_support.tiny import fresh_accelerator

from training import checkpoint, distill, dry_run, families, timed_step
from training.disk import human_size
from training.loop import make_optimizer
from training.objective import TrajectoryDistillation
from training.phases import student_settings
from training.recipe import load_recipe, replaced

UNET = "model.diffusion_model."


@pytest.fixture
def recipe(sd15, cats, tmp_path):
    """Six pictures, two of them repeated twice."""
    return small_recipe(sd15, cats, data={"cache": str(tmp_path / "cache")})


@pytest.fixture(scope="module")
def found(sd15, cats, tmp_path_factory) -> dict[str, str]:
    """What a dry run of 20 steps says."""
    cache = {"cache": str(tmp_path_factory.mktemp("cache"))}
    return said(small_recipe(sd15, cats, data=cache, training={"steps": 20}))


@pytest.fixture
def stepped(recipe):
    """``stepped(**sections)``: a task of the recipe with these changes, and what a step of it took."""

    def make(**sections):
        changed = replaced(recipe, **sections)
        family = families.build(changed)
        family.load()
        family.data = dry_run.RandomData(family, dry_run.Size(SIDE, SIDE))
        task = TrajectoryDistillation(family, changed)
        return task, timed_step.one_step(task, fresh_accelerator())

    return make


def said(recipe) -> dict[str, str]:
    """What a dry run says, by name."""
    lines = dry_run.dry_run(recipe, fresh_accelerator()).splitlines()
    return {line[2:26].strip(): line[26:] for line in lines if line.startswith("  ")}


def layer_shapes(model) -> list[torch.Size]:
    """Shapes of the weights that a LoRA adapts, told by the file alone: SD 1.5 has 278 of them."""
    with safe_open(model, "pt") as file:
        names = [name for name in file.keys() if name.startswith(UNET) and name.endswith(".weight")]
        shapes = {name: torch.Size(file.get_slice(name).get_shape()) for name in names}
    ends = ("input_blocks.0.0.weight", "out.2.weight", "time_embed.0.weight", "time_embed.2.weight")
    return [shape for name, shape in shapes.items() if len(shape) > 1 and not name.endswith(ends)]


def test_parameters_are_those_in_the_file_and_of_two_matrices_a_layer(found, sd15):
    with safe_open(sd15, "pt") as file:
        names = [name for name in file.keys() if name.startswith(UNET)]
        network = sum(torch.Size(file.get_slice(name).get_shape()).numel() for name in names)
    shapes = layer_shapes(sd15)
    lora = sum(RANK * (shape[1:].numel() + shape[0]) for shape in shapes)
    assert len(shapes) == 278
    assert found["network"].startswith(f"{network:,} parameters")
    assert found["trained"] == f"LoRA of rank {RANK} on 278 layers: {lora:,} parameters, fp32"
    for name, n_bytes in (
        ("frozen network", 4 * network),
        ("what is trained", 4 * lora),
        ("gradients", 4 * lora),
        ("averages (EMA)", 4 * lora),
        ("optimiser", 8 * lora + 4 * 2 * 278),  # two moments, and each tensor's count of steps
    ):
        assert found[name] == human_size(n_bytes), name
    assert found["prediction"] == "epsilon" and found["family"].startswith("sd15 (")


def test_data_steps_and_epochs(found):
    assert found["items"] == "6, 8 with repeats, 7 captions; 0 skipped"
    assert found["buckets"].startswith("2 (") and f"{SIDE}×{SIDE}: 4" in found["buckets"]
    assert found["steps"].startswith("20 of 2 samples (1 processes × 1 passes of 2)")
    assert found["epochs"] == "5.0"


def test_nothing_is_written(sd15, cats, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    before = bytes_in(cats), bytes_in(sd15.parent)
    assert distill.main([*model_words(sd15), "--images", str(cats), "--output", "run", "--dry_run"]) == 0
    assert "one step" in capsys.readouterr().out
    assert not list(tmp_path.iterdir()) and (bytes_in(cats), bytes_in(sd15.parent)) == before


def test_the_cache_still_to_be_encoded_is_as_large_as_it_becomes(recipe):
    family = families.build(recipe)
    plan, folder = dry_run._planned(family)
    wanted = dry_run.estimate(plan, dry_run.bytes_per_caption(family))
    assert not folder.exists() and (wanted.pictures, wanted.captions) == (6, 7)
    family.prepare(fresh_accelerator(), say=lambda line: None)
    became = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    assert 0.8 * became < wanted.n_bytes < 1.3 * became
    assert "0 pictures and 0 captions" in said(recipe)["cache"]


def test_a_checkpoint_is_as_large_as_said(stepped, tmp_path):
    task, step = stepped()
    optimizer = make_optimizer(list(task.trainable().values()), student_settings(task.recipe))
    for parameter in task.trainable().values():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    weights = {name: p.detach() for name, p in task.trainable().items()}
    state = {"weights": weights, "optimizer": optimizer.state_dict(), "extra": task.extra_state()}
    written = checkpoint.save(tmp_path / "checkpoints", 1, state, keep=1).stat().st_size
    tensors = 3 * 278 * 2 + 2 * 278 * 2
    assert 0 < written - dry_run.checkpoint_bytes(task, step) < 1000 * tensors  # torch's own record of each tensor


def test_checkpointed_activations_are_fewer(stepped):
    plain = stepped()[1].memory["activations"]
    assert stepped(memory={"gradient_checkpointing": True})[1].memory["activations"] < plain / 4


def test_offloaded_averages_take_no_device_memory_and_activations_less(stepped):
    plain, memory = stepped()[1].memory, stepped(memory={"offload": True})[1].memory
    assert memory["averages (EMA)"] == 0 < memory["what is trained"]
    assert memory["activations"] < plain["activations"] / 4


def test_the_gradients_of_a_pass_before_stand_beside_a_pass_s_activations(stepped):
    once, accumulated = (stepped(training={"batch": n, "accumulation": n})[1].memory for n in (1, 2))
    more = accumulated["activations"] - once["activations"]
    assert once["gradients"] == accumulated["gradients"] and 0 < more < 1.01 * once["gradients"]


def test_full_fine_tuning_holds_the_teacher_besides(stepped):
    task, step = stepped(student={"kind": "full"})
    network = sum(p.numel() * 4 for p in task.student.network.parameters())
    assert step.memory["frozen network"] == step.memory["what is trained"] == step.memory["gradients"] == network


def test_what_encoding_and_grids_take_is_told(found, recipe, monkeypatch):
    assert re.fullmatch(r"31\.7 MB: weights 21\.0 MB, [\d.]+ MB for 4 of \d+×\d+", found["encoding pictures"])
    assert (
        "for 32 captions" in found["encoding captions"] and "with what the training holds" in found["decoding a grid"]
    )
    monkeypatch.setattr(dry_run, "encoding_needs", lambda *_: 1 / 0)
    told = said(replaced(recipe, training={"batch": 1}))
    assert "can't work it out (ZeroDivisionError" in told["not known"] and "one step" in told


def test_with_kept_pairs_their_memory_and_the_steps_without_the_teacher_are_told(recipe, monkeypatch):
    taken = timed_step.Step(90.0, {"what is trained": 1, "optimiser": 2, "activations": 0}, False, again=60.0)
    monkeypatch.setattr(dry_run, "one_step", lambda *_: taken)
    pairs = {"pairs": 10, "w_min": 1.0, "w_max": 1.0}
    found = said(replaced(recipe, training={"steps": 50}, objective=pairs, validation={"every": 0}))
    assert found["with its pairs kept"] == "60 s, all after the first 10" and found["in all"].startswith("55 min")
    assert found["teacher pairs"] == "20.5 kB in main memory" and "decoding a grid" not in found


def test_time_is_that_of_all_steps(recipe, monkeypatch):
    taken = timed_step.Step(90.0, {"what is trained": 1, "optimiser": 2, "activations": 0}, False)
    monkeypatch.setattr(dry_run, "one_step", lambda *_: taken)
    found = said(replaced(recipe, training={"steps": 50}))
    assert found["one step"].startswith("90 s") and found["in all"].startswith("1 h 15 min for 50 steps")


def test_accumulated_passes_are_timed_once(stepped, monkeypatch):
    ticks = iter([0.0, 10.0, 11.0])  # a pass of 10 s, the optimiser 1 s
    monkeypatch.setattr(timed_step, "_now", lambda cuda: next(ticks))
    task, step = stepped(training={"batch": 4, "accumulation": 4})
    assert step.seconds == 41.0


def test_sizes_are_told_to_sdxl(tmp_path):
    model, pictures = write_small_checkpoint(tmp_path, "sdxl"), write_pictures(tmp_path / "cats", 1)
    found = said(replaced(small_recipe(model, pictures), family="sdxl", training={"batch": 1}))
    assert " on 788 layers: " in found["trained"]


def test_the_digits_are_answered_in_short():
    answer = dry_run.dry_run(load_recipe("digits"), fresh_accelerator())
    assert "downloads nothing" in answer and len(answer.splitlines()) < 4


def test_what_processes_share_is_said_for_each(sd15, cats, stepped):
    full = {"student": {"kind": "full"}, "memory": {"shard": True}, "model": {"dtype": "fp32"}}
    task, step = stepped(**full)
    lines = dry_run._memory(step, task, SimpleNamespace(num_processes=4, device="cpu"))
    held = sum(n_bytes for name, n_bytes in step.memory.items() if name != "activations")
    assert lines["memory.shard"].startswith(f"{human_size(held / 4)} in each of 4 processes")
